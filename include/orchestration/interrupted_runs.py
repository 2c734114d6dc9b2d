"""Seal runs of `./parcelseal run` that a signal or a crash ended before they were sealed.

The process of a run holds a lock on the lock file of the run. The operating system releases the
lock when the process ends. So if a run has the state "running" and its lock file is not locked, its
process has ended. The step records of such a run are in the state database; only its seal is
missing.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

SEAL = "seal"  # task id, in every workflow
_is_interrupted = ContextVar("is_interrupted", default=False)
_FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}

log = logging.getLogger(__name__)


@contextmanager
def locked_run(dag_id: str, logical_date: datetime) -> Iterator[None]:
    """Hold the lock on the lock file of a run while the block executes.

    Other processes can see from the lock that the process of the run has not ended.

    Args:
        dag_id: DAG id of the workflow.
        logical_date: logical date of the run.
    """
    path = _lock_file(dag_id, logical_date)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def seal_interrupted_runs(dag: Any, announce: Callable[[str], None]) -> None:
    """Seal each in-process run of a workflow that has not finished and whose process has ended.

    If a run cannot be sealed now, the next start of the workflow tries again. A run that another
    process is sealing is skipped.

    Args:
        dag: Airflow's DAG of the workflow.
        announce: prints a line on the terminal.
    """
    for run_id, logical_date in _running(dag.dag_id).items():
        with _claimed(dag.dag_id, logical_date) as is_left_over:
            # Another process may have sealed it before the claim.
            if is_left_over and run_id in _running(dag.dag_id):
                announce(f"sealing the interrupted run {run_id} of {dag.dag_id}")
                if not seal_run_now(dag, logical_date):
                    announce(f"{run_id} could not be sealed; the next start tries again")


def seal_run_now(dag: Any, logical_date: datetime) -> str | None:
    """Mark the unfinished tasks of a run as failed, and execute its task `seal`.

    Args:
        dag: Airflow's DAG of the workflow.
        logical_date: logical date of the run.

    Returns:
        The id of the run, or None if the run does not exist or its seal failed.
    """
    from airflow import settings
    from airflow.sdk.definitions.dag import _run_task

    if settings.Session is not None:
        settings.Session.remove()  # an interrupted transaction of the runner may lock the run
    with _session() as session:
        run = _find(session, dag.dag_id, logical_date)
        if run is None:
            return None
        run_id = str(run.run_id)
        for task in _locked_tasks(session, dag.dag_id, run_id):
            if task.task_id == SEAL and task.state != "success":
                task.try_number += 1
                task.state = "scheduled"
            elif task.state not in _FINISHED:
                task.state = "failed"
    with _session() as session:
        seal = _seal_of(session, dag.dag_id, run_id)
        session.expunge_all()
    if seal.state != "success":
        reset = _is_interrupted.set(True)
        try:
            _run_task(ti=seal, task=dag.task_dict[SEAL])
        finally:
            _is_interrupted.reset(reset)
    with _session() as session:
        if _seal_of(session, dag.dag_id, run_id).state != "success":
            return None
        _find(session, dag.dag_id, logical_date).set_state("failed")
    return run_id


def is_interrupted() -> bool:
    """Return whether this process is now sealing a run that was interrupted."""
    return _is_interrupted.get()


def _session() -> Any:
    """Return a session on Airflow's database that Airflow's in-process runner does not close."""
    from airflow.utils.session import create_session

    return create_session(scoped=False)


def _locked_tasks(session: Any, dag_id: str, run_id: str) -> list[Any]:
    """Return the task instances of a run, and lock their rows until the session ends.

    Another thread of this process serves Airflow's API. That thread may still be storing that the
    interrupted attempt has ended. If Airflow retries the task, the thread also gives the row a new
    primary key. The query therefore waits until the transaction of that thread ends.
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    query = select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    return list(session.scalars(query.with_for_update(of=TaskInstance)))


def _seal_of(session: Any, dag_id: str, run_id: str) -> Any:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    return session.scalar(
        select(TaskInstance).where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.run_id == run_id,
            TaskInstance.task_id == SEAL,
        )
    )


def _running(dag_id: str) -> dict[str, datetime]:
    """Return the runs of `./parcelseal run` that have not ended: run id -> logical date.

    Runs that a scheduler started are left out. The database contains them if the environment names
    the database of another Airflow installation.
    """
    from airflow.models.dagrun import DagRun
    from airflow.utils.types import DagRunTriggeredByType
    from sqlalchemy import select

    query = select(DagRun.run_id, DagRun.logical_date).where(
        DagRun.dag_id == dag_id,
        DagRun.state == "running",
        DagRun.triggered_by == DagRunTriggeredByType.TEST,
    )
    with _session() as session:
        rows = session.execute(query.order_by(DagRun.logical_date)).all()
    return {row.run_id: row.logical_date for row in rows}


def _find(session: Any, dag_id: str, logical_date: datetime) -> Any:
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    return session.scalar(
        select(DagRun).where(DagRun.dag_id == dag_id, DagRun.logical_date == logical_date)
    )


@contextmanager
def _claimed(dag_id: str, logical_date: datetime) -> Iterator[bool]:
    """Try to lock the lock file of a run for the duration of a ``with`` block.

    Yields True if the lock was obtained, and False if another process holds it. If it was obtained,
    the lock file is deleted at the end of the block.
    """
    path = _lock_file(dag_id, logical_date)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _lock_file(dag_id: str, logical_date: datetime) -> Path:
    folder = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "running"
    return folder / f"{dag_id}-{logical_date:%Y%m%dT%H%M%S.%f}.lock"
