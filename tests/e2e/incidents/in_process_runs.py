"""Run incidents in separate processes, as `./parcelseal run` does, while people answer over REST.

``python -m tests.e2e.incidents.in_process_runs FOLDER`` reads a list of incidents as JSON. Airflow
and the workflow are imported once, and each incident runs in a forked process, because the imports
take longer than most steps of an incident.
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
from include.cli.stack import command_services
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.service_container import ROOT
from tests.e2e.forked import ALL, child, preload
from tests.support.without_pdf import without_pdf

DAG = "respond_to_incident"
HASTY = timedelta(seconds=3)  # response timeout of the step that nobody answers
FAILED = "incident-{}.failed"
LOOK_EVERY = 0.5  # seconds
WATCH_EVERY = timedelta(seconds=10)


def main(folder: Path, incidents: list[dict[str, Any]]) -> dict[str, Any]:
    """Run all incidents, and return the result of each: name -> state and run id.

    Args:
        folder: folder for the logs and results.
        incidents: incidents as JSON objects, each with a name.
    """
    os.environ.update(
        local_airflow.settings(LocalProfile(command_services().home), ROOT, AIRFLOW_RUNS, None)
    )
    dags = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    with output_to(folder / "incidents.log"):
        prepared_runs = {incident["name"]: _prepared(dags, incident) for incident in incidents}
        preload(ALL)
        _register_workflows(folder)
        with without_pdf():  # the incident in the complete Airflow tests PDF files
            children = {
                _forked(folder, name, incident): name for name, incident in prepared_runs.items()
            }
        _act_as_scheduler(folder, children)
    return {
        name: json.loads((folder / f"incident-{name}.json").read_text()) for name in prepared_runs
    }


def _prepared(dags: Path, incident: dict[str, Any]) -> Any:
    """Return a prepared run whose human steps wait for answers, as in a running Airflow."""
    from include.orchestration import human_step, run_watch
    from include.orchestration.human_step import human_steps, options
    from include.orchestration.in_process_run import _find, prepare

    human_step.RESCHEDULE_DELAY = timedelta(0)  # no scheduler monitors workers here
    run_watch.IN_PROCESS_INTERVAL = WATCH_EVERY
    steps = human_steps(_find(dags, DAG))
    automatic_answers = [f"{name}={options(task)[0]}" for name, task in steps.items()]
    run = prepare(dags, DAG, incident["conf"], automatic_answers)
    for task in human_steps(run.dag).values():
        settings = getattr(task, "partial_kwargs", None) or task.__dict__
        settings |= {"auto_answer": None, "can_ask_again": True}  # as in a running Airflow
    if name := incident.get("hasty"):
        _hasty(run.dag.task_dict[name])
    return run


def _hasty(step: Any) -> None:
    """Shorten the response timeout of a step's first request. Later requests wait as usual."""
    usual_timeout, ask = step.response_timeout, step.ask

    def ask_with_timeout(part: str) -> Any:
        step.response_timeout = usual_timeout  # for the next request
        return ask(part)

    step.response_timeout, step.ask = HASTY, ask_with_timeout


def _register_workflows(folder: Path) -> None:
    """Register the workflows in Airflow's database once, because parallel runs would collide."""
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


def _forked(folder: Path, name: str, prepared: Any) -> int:
    def run() -> None:
        began = time.process_time()
        ended = prepared.run()
        result = {"run_id": ended.run_id, "state": ended.state, "cpu": time.process_time() - began}
        (folder / f"incident-{name}.json").write_text(json.dumps(result))

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


def _act_as_scheduler(folder: Path, children: dict[int, str]) -> None:
    """Handle answers and timeouts as Airflow's scheduler does, until all children have ended.

    Args:
        folder: folder that contains the error text of a child that failed.
        children: process id -> name of the incident that runs in the process.
    """
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
    """Resume tasks whose answer arrived while the runner was deferring them."""
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
