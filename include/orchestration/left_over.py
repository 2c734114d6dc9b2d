"""Seal runs of `./parcelseal run` that a signal or a crash ended before their seal.

A process holds a lock on a file during its run. The operating system releases the lock when the
process ends, so a run in state "running" whose file is not locked has no process any more. The
state database has the records of its steps; only its seal is missing.
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
    """Lock the file of a run while the block runs, to mark that the run has a process.

    Args:
        dag_id: the workflow.
        logical_date: of the run.
    """
    path = _lock_file(dag_id, logical_date)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def seal_left_over(dag: Any, announce: Callable[[str], None]) -> None:
    """Seal each run of a workflow whose process has ended.

    The next start retries a run that cannot be sealed now. A run that another process seals is
    left to it.

    Args:
        dag: Airflow's object of the workflow.
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
    """Run the task `seal` of a run, and mark each unfinished task as failed.

    Args:
        dag: Airflow's object of the workflow.
        logical_date: of the run.

    Returns:
        The id of the run, or None if there is no such run or its seal failed.
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
    """Return whether the run that this process seals ended before its other tasks."""
    return _is_interrupted.get()


def _session() -> Any:
    """Return a session of Airflow's database that its runner does not close."""
    from airflow.utils.session import create_session

    return create_session(scoped=False)


def _locked_tasks(session: Any, dag_id: str, run_id: str) -> list[Any]:
    """Return the task instances of a run, locked until the session ends.

    Airflow's API, in another thread of this process, may still store the end of the interrupted
    attempt, with a new primary key for the retry. The lock waits for it.
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
    """Return the logical dates of the runs of `./parcelseal run` that did not end, by run id.

    If the environment names another Airflow's database, it also has the runs of its scheduler.
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
    """Lock the file of a run while the block runs; yield False if a process has the lock."""
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
