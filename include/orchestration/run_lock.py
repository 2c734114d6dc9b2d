"""Lock a run so that none of its steps works while the task `seal` seals the run.

Each step holds a shared lock while it works. The task `seal` takes the lock exclusively. The lock
belongs to a database session, so the database server releases it when a worker dies. A worker may
also lose its session and continue to work. So a step checks again that its run is not sealed before
it commits its work.
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

from include.evidence.bundle_reader import refuse_sealed
from include.evidence.folder import bundle_path
from include.evidence.model import RunContext
from include.evidence.signing import TrustedKeys
from include.evidence.unrecorded import search_unrecorded
from include.service_container import Services
from include.services.errors import ControlFailed, ServiceError
from include.state.locks import (
    LockHeld,
    hold_exclusive_lock,
    hold_shared_lock,
    share_lock_in_transaction,
)

SEAL = "the seal of this run"
SEAL_PATIENCE = timedelta(minutes=5)  # longest wait of a seal for a step, or of a step for a seal


class RunSealed(AirflowFailException):
    """Raised when a task would work in a run that is already sealed.

    Airflow does not retry the task.
    """


@dataclass
class _WorkingStep:
    """The step that this thread executes, and its shared lock.

    Attributes:
        key: DAG id and run id.
        lock: database connection whose session holds the shared lock; None after the connection was
            lost.
    """

    key: tuple[str, str]
    lock: Connection | None


_at_work: ContextVar[_WorkingStep | None] = ContextVar("at_work", default=None)


@contextmanager
def at_work(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Prevent the seal of a run while the block executes a step of the run.

    This function does not check whether the run is already sealed; `unsealed` does that.

    Args:
        state: the live state database.
        dag_id: DAG id of the workflow.
        run_id: Airflow's id of the run.

    Raises:
        ServiceError: another process is sealing the run. The task can be retried.
    """
    key = dag_id, run_id
    work = _at_work.get()
    if work is not None and work.key == key:
        yield
        return
    with hold_shared_lock(state, _lock(*key), SEAL, SEAL_PATIENCE) as lock:
        token = _at_work.set(_WorkingStep(key, lock))
        try:
            yield
        finally:
            _at_work.reset(token)


@contextmanager
def unsealed(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Raise RunSealed if a run is sealed; otherwise prevent its seal while the block executes.

    Args:
        state: the live state database.
        dag_id: DAG id of the workflow.
        run_id: Airflow's id of the run.

    Raises:
        RunSealed: the run is sealed.
    """
    key = dag_id, run_id
    work = _at_work.get()
    if work is not None and work.key == key and _is_unsealed(work):
        yield  # another session would wait behind a seal that waits for this step
        return
    with state.begin() as conn:
        share_lock_in_transaction(conn, _lock(*key), SEAL, SEAL_PATIENCE)
        try:
            refuse_sealed(conn, *key)
        except ControlFailed as refusal:
            if work is None or work.key != key:
                raise RunSealed(str(refusal)) from None
            raise RunSealed(
                "This run was sealed while this step was still at work, so no evidence shows what "
                "the step did. Check what it changed. Start a new run of the workflow; it "
                "completes the remaining work."
            ) from None
        yield


def refuse_unrecorded(live: Services, run: RunContext) -> None:
    """Raise RunSealed if a run is sealed but has no row in the evidence ledger.

    The ledger loses the row of a run if an older state database is restored.

    Args:
        live: the live services, with the state database and the evidence store.
        run: ids and start of the run.

    Raises:
        RunSealed: the run's folder in the evidence store contains a signed bundle.
        StoreError: the evidence store cannot be read. The task can be retried.
    """
    bundle = bundle_path(run.dag_id, run.run_id, run.started_at)
    store, keys = live.store("evidence_store"), TrustedKeys(live.trusted)
    with live.state.connect() as conn:
        sealed = search_unrecorded(store, conn, keys, [f"{bundle}/"], object_limit=None).bundles
    if sealed:
        raise RunSealed(
            f"This run is sealed: its bundle {bundle} is in the evidence store, and the evidence "
            "ledger lost its row. Run `./parcelseal recover-ledger`; then start a new run of the "
            "workflow."
        )


def _is_unsealed(working_step: _WorkingStep) -> bool:
    """Return whether the step still holds the shared lock, which prevents the seal of its run.

    If the result is False, the lock was lost, and the run may be sealed at any time.

    Raises:
        RunSealed: the run was sealed before the step took the lock.
    """
    if working_step.lock is None:
        return False
    try:
        refuse_sealed(working_step.lock, *working_step.key)
    except ControlFailed as refusal:
        raise RunSealed(str(refusal)) from None
    except SQLAlchemyError:
        working_step.lock = None
    return working_step.lock is not None


@contextmanager
def sealing(state: Engine, dag_id: str, run_id: str) -> Iterator[None]:
    """Lock a run exclusively while the block seals it. No step of the run can work meanwhile.

    Other attempts to seal the run have to wait as well.

    Args:
        state: the live state database.
        dag_id: DAG id of the workflow.
        run_id: Airflow's id of the run.

    Raises:
        ServiceError: a step of the run still works, or another process is sealing the run. The task
            can be retried.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(
                hold_exclusive_lock(state, _lock(dag_id, run_id), SEAL, SEAL_PATIENCE)
            )
        except LockHeld:
            raise ServiceError(
                "A step of this run is still at work, or another process seals the run.",
                "The seal is retried. If Airflow lost contact with the worker, end its process.",
            ) from None
        yield


def _lock(dag_id: str, run_id: str) -> str:
    return f"seal:{dag_id}/{run_id}"
