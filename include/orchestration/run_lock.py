"""Keep the steps of a run and its seal from working at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from airflow.sdk.exceptions import AirflowFailException
from sqlalchemy import Engine

from include.orchestration.sandbox import refuse_sealed
from include.services.errors import ControlFailed
from include.state.locks import exclusive, share

SEAL = "the seal of this run"
SEAL_PATIENCE = timedelta(minutes=5)  # with another process that seals the same run


@contextmanager
def unsealed(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Refuse a sealed run, and keep it from being sealed until the block ends.

    Args:
        state: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        AirflowFailException: the run is sealed; no retry changes that.
    """
    with state.begin() as conn:
        share(conn, _lock(dag_id, run_id), SEAL, SEAL_PATIENCE)
        try:
            refuse_sealed(conn, dag_id, run_id)
        except ControlFailed as refusal:
            raise AirflowFailException(str(refusal)) from None
        yield


@contextmanager
def sealing(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Let no other process seal a run, and no step of it begin, until the block ends.

    Args:
        state: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ServiceError: another process seals the run; repeat it.
    """
    with exclusive(state, _lock(dag_id, run_id), SEAL, SEAL_PATIENCE):
        yield


def _lock(dag_id: str, run_id: str) -> str:
    return f"seal:{dag_id}/{run_id}"
