"""Leads incidents in processes, as `./parcelseal run` does; people answer over REST.

``python -m tests.e2e.incidents.inprocess FOLDER`` reads a list as JSON. Airflow and workflow are
imported once, then forked: importing costs more than most of an incident's steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from include.cli.console import output_to
from include.cli.stack import workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.workplace import ROOT
from tests.e2e.forked import ALL, child, preload
from tests.support.without_pdf import without_pdf

DAG = "respond_to_incident"
HASTY = timedelta(seconds=3)  # waits the step that nobody answers
FAILED = "incident-{}.failed"
LOOK_EVERY = 0.5  # seconds
WATCH_EVERY = timedelta(seconds=10)


def main(folder: Path, wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """Lead them all; state and run by name."""
    os.environ.update(
        local_airflow.settings(LocalProfile(workplace().home), ROOT, AIRFLOW_RUNS, None)
    )
    dags = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    with output_to(folder / "incidents.log"):
        ready = {one["name"]: _prepared(dags, one) for one in wanted}
        preload(ALL)
        _known(folder)
        with without_pdf():  # the incident in the whole Airflow makes them
            children = {_forked(folder, name, one): name for name, one in ready.items()}
        _meanwhile(folder, children)
    return {name: json.loads((folder / f"incident-{name}.json").read_text()) for name in ready}


def _prepared(dags: Path, wanted: dict[str, Any]) -> Any:
    """A run whose steps wait for people, as in a running Airflow."""
    from include.orchestration import human, watching
    from include.orchestration.human import human_steps, options
    from include.orchestration.inprocess import _find, prepare

    human.AGAIN_AFTER = timedelta(0)  # no scheduler looks at workers here
    watching.IN_PROCESS = WATCH_EVERY
    steps = human_steps(_find(dags, DAG))
    nobodys = [f"{name}={options(task)[0]}" for name, task in steps.items()]
    made = prepare(dags, DAG, wanted["conf"], nobodys)
    for task in human_steps(made.dag).values():
        settings = getattr(task, "partial_kwargs", None) or task.__dict__
        settings |= {"answer_ahead": None, "asks_again": True}  # as where people are
    if name := wanted.get("hasty"):
        _hasty(made.dag.task_dict[name])
    return made


def _hasty(step: Any) -> None:
    """Let a step wait for seconds only when it asks first."""
    usual, ask = step.response_timeout, step.ask

    def asks(part: str) -> Any:
        step.response_timeout = usual  # of the next time
        return ask(part)

    step.response_timeout, step.ask = HASTY, asks


def _known(folder: Path) -> None:
    """Let Airflow write down the workflows once: every run does, and all at once they collide."""
    os.waitpid(_in_a_child(folder, "known", _sync), 0)


def _sync() -> None:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        sync_bag_to_db(bag, bundle.name, bundle.version)


def _forked(folder: Path, name: str, ready: Any) -> int:
    def run() -> None:
        began = time.process_time()
        done = ready.run()
        told = {"run_id": done.run_id, "state": done.state, "cpu": time.process_time() - began}
        (folder / f"incident-{name}.json").write_text(json.dumps(told))

    return _in_a_child(folder, name, run)


def _in_a_child(folder: Path, name: str, do: Callable[[], None]) -> int:
    def logged() -> None:
        with output_to(folder / f"incident-{name}.log"):
            try:
                do()
            except BaseException:
                (folder / FAILED.format(name)).write_text(traceback.format_exc())
                raise

    return child(logged)


def _meanwhile(folder: Path, children: dict[int, str]) -> None:
    """Do a scheduler's work for questions that wait, until all children have ended."""
    from airflow import settings
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    settings.configure_orm()
    scheduler = SchedulerJobRunner(Job())
    failed = []
    left = dict(children)
    while left:
        for pid in list(left):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended and status:
                failed.append(left[pid])
            if ended:
                del left[pid]
        scheduler.check_awaiting_input_timeouts()
        _wake_answered()
        time.sleep(LOOK_EVERY)
    assert not failed, [(folder / FAILED.format(name)).read_text() for name in failed]


def _wake_answered() -> None:
    """Wake a task whose answer came while the runner was still parking it, over which it wrote."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = (
        select(TaskInstance, HITLDetail)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(TaskInstance.state == "awaiting_input", HITLDetail.responded_at.is_not(None))
    )
    with create_session() as session:
        for task, detail in session.execute(query).all():
            event = TriggerEvent(detail.as_resume_event_payload())  # type: ignore[no-untyped-call]
            handle_event_submit(event, task_instance=task, session=session)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), json.load(sys.stdin))))
