"""Keep steps of a run from working while the run is sealed.

Steps share a lock while they work; the seal needs it exclusively. The lock belongs to a database
session, so it ends with a worker that dies. A worker may lose the session and work on, so a step
checks again that its run is not sealed, before it commits its work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta

from airflow.sdk.exceptions import AirflowFailException
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.folder import bundle_path
from include.evidence.model import RunContext
from include.evidence.shelf import refuse_sealed
from include.evidence.signing import TrustedKeys
from include.evidence.unrecorded import search_unrecorded
from include.services.errors import ControlFailed, ServiceError
from include.state.locks import LockHeld, exclusive, share, shared
from include.workplace import Workplace

SEAL = "the seal of this run"
SEAL_PATIENCE = timedelta(minutes=5)  # for which a seal and a step wait for each other


class RunSealed(AirflowFailException):
    """A run is sealed and accepts no more work; Airflow does not retry the task."""


@dataclass
class _Work:
    """The step that is at work in this thread.

    Attributes:
        key: dag id and run id.
        lock: the connection whose session shares the lock; None once it is lost.
    """

    key: tuple[str, str]
    lock: Connection | None


_at_work: ContextVar[_Work | None] = ContextVar("at_work", default=None)


@contextmanager
def at_work(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Keep a run from being sealed while the block does the work of a step.

    Does not check whether the run is sealed already; `unsealed` does.

    Args:
        state: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ServiceError: another process seals the run; retry.
    """
    key = dag_id, run_id
    work = _at_work.get()
    if work is not None and work.key == key:
        yield
        return
    with shared(state, _lock(*key), SEAL, SEAL_PATIENCE) as lock:
        token = _at_work.set(_Work(key, lock))
        try:
            yield
        finally:
            _at_work.reset(token)


@contextmanager
def unsealed(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Refuse a sealed run, and keep an open run from being sealed while the block runs.

    Args:
        state: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        RunSealed: the run is sealed.
    """
    key = dag_id, run_id
    work = _at_work.get()
    if work is not None and work.key == key and _is_unsealed(work):
        yield  # another session would wait behind a seal that waits for this step
        return
    with state.begin() as conn:
        share(conn, _lock(*key), SEAL, SEAL_PATIENCE)
        try:
            refuse_sealed(conn, *key)
        except ControlFailed as refusal:
            if work is None or work.key != key:
                raise RunSealed(str(refusal)) from None
            raise RunSealed(
                "This run was sealed while this step was still at work, so no evidence shows what "
                "the step did. Check what it changed. Start a new run of the workflow; it does "
                "what this run lacks."
            ) from None
        yield


def refuse_unrecorded(live: Workplace, run: RunContext) -> None:
    """Refuse a sealed run that the ledger lacks, as after an older state database was restored.

    Args:
        live: the live workplace, with the state database and the evidence store.
        run: the run.

    Raises:
        RunSealed: the run's folder holds a signed bundle.
        StoreError: the evidence store cannot be read; retry.
    """
    bundle = bundle_path(run.dag_id, run.run_id, run.started_at)
    store, keys = live.store("evidence_store"), TrustedKeys(live.trusted)
    with live.state.connect() as conn:
        sealed = search_unrecorded(store, conn, keys, [f"{bundle}/"], most_forged=None).bundles
    if sealed:
        raise RunSealed(
            f"This run is sealed: its bundle {bundle} is in the evidence store, and the evidence "
            "ledger lost its row. Run `./parcelseal recover-ledger`; then start a new run of the "
            "workflow."
        )


def _is_unsealed(work: _Work) -> bool:
    """Return whether the lock is still held, which keeps the run from being sealed.

    Raises:
        RunSealed: the run was sealed before the step began.
    """
    if work.lock is None:
        return False
    try:
        refuse_sealed(work.lock, *work.key)
    except ControlFailed as refusal:
        raise RunSealed(str(refusal)) from None
    except SQLAlchemyError:
        work.lock = None
    return work.lock is not None


@contextmanager
def sealing(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Lock a run against its steps and other seals while the block runs.

    Args:
        state: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ServiceError: a step is still at work, or another process seals the run; retry.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(state, _lock(dag_id, run_id), SEAL, SEAL_PATIENCE))
        except LockHeld:
            raise ServiceError(
                "A step of this run is still at work, or another process seals the run.",
                "The seal is retried. If Airflow lost contact with the worker, end its process.",
            ) from None
        yield


def _lock(dag_id: str, run_id: str) -> str:
    return f"seal:{dag_id}/{run_id}"
