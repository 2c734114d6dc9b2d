"""A running Airflow for tests that use its REST API and its pages in a browser."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from include import registry
from include.cli.answers import people as sample_people
from include.cli.report import RunResult, result_of
from include.cli.stack import local_stack
from include.composition import build_services
from include.evidence.verify import verify_all
from include.local import airflow as local_airflow
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi
from include.local.profile import AIRFLOW, LocalProfile
from include.policy import SHIPPED
from include.service_container import ROOT, Services
from include.state.connect import engine

QUIET_HOUR = 22  # hour that is far from every schedule, so that no workflow starts by itself
RUN_TIMEOUT = 240  # seconds
LOOK_EVERY = 1.0  # seconds; each poll takes about 40 ms of the API server's CPU
RUNS = "dags/{}/dagRuns"
# `include.documents` imports the function from `include.reports.render` later.
INCIDENTS_HAVE_PDF = """
from include.reports import render
usual_reason = render.pdf_unavailable_reason
def reason():
    from airflow.sdk import get_current_context
    incident = get_current_context()["dag_run"].dag_id == "respond_to_incident"
    return usual_reason() if incident else "Left out, to save time."
render.pdf_unavailable_reason = reason
"""


@dataclass
class Running:
    """A running Airflow, and the services that its tasks use."""

    services: Services
    airflow: Standalone

    def courier(self) -> psycopg.Connection[Any]:
        return psycopg.connect(LocalProfile(self.services.home).owner_conninfo("courier"))

    def customers(self) -> int:
        with self.courier() as conn:
            (count,) = conn.execute("SELECT count(*) FROM customer").fetchone() or (0,)
        return int(count)

    def ended(
        self, api: AirflowApi, dag_id: str, run_id: str, seconds: float = RUN_TIMEOUT
    ) -> RunResult:
        """Wait for the end of a run, and return its sealed result."""
        states = {"queued", "running"}
        until(lambda: api.state(dag_id, run_id) not in states, f"{dag_id} ends", seconds)
        state = api.state(dag_id, run_id)
        return result_of(self.services, dag_id, run_id, state, str(self.airflow.log))

    def verified(self) -> bool:
        with self.services.state.connect() as conn:
            verification = verify_all(
                self.services.store("evidence_store"), conn, self.services.trusted
            )
        return verification.verified


def until(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(LOOK_EVERY)


def path_of(task: dict[str, Any]) -> str:
    """Return the path of a task instance in the REST API."""
    return (
        f"{RUNS.format(task['dag_id'])}/{quote(task['dag_run_id'], safe='')}/taskInstances/"
        f"{task['task_id']}/{task['map_index']}"
    )


def patch(
    api: AirflowApi,
    path: str,
    option: str = "Approve",
    form: dict[str, Any] | None = None,
    **entered: str,
) -> int:
    """Answer a required action over REST as Airflow's page does, and return the HTTP status.

    Args:
        api: REST API with the login of the person who answers.
        path: path of the task instance.
        option: the chosen option.
        form: values of the form that is answered; None for the values that Airflow shows at
            present.
        entered: changed values of the form, by field.
    """
    address = f"{api.url}/api/v2/{path}/hitlDetails"
    if form is None:
        parameters = api.session.get(address, timeout=60).json().get("params") or {}
        form = {name: field["value"] for name, field in parameters.items()}
    answer = api.session.patch(
        address,
        json={
            "chosen_options": [option],
            "params_input": form | {"reason": "seen"} | entered,
        },
        timeout=60,
    )
    return answer.status_code


@contextmanager
def running_airflow(customers: int, more_people: Sequence[str]) -> Iterator[Running]:
    """Start Airflow in a new home folder, as `up` does, with the settings of these tests only.

    Args:
        customers: number of customers of the sample.
        more_people: user ids of people who may log in besides the sample's reviewers.
    """
    home = Path(tempfile.mkdtemp(prefix="parcelseal-ui-"))
    home.chmod(0o755)
    services = build_services(home, home / "policy", lambda _: None)
    shutil.copytree(SHIPPED, services.policy)
    ahead = (QUIET_HOUR - services.clock.now().hour + 36) % 24 - 12
    with (services.policy / "disposition.yaml").open("a", encoding="utf-8") as file:
        # Otherwise a small sample stays below the circuit breaker.
        file.write("limit: {records: 10}\n")
    # The approval takes longer than this time limit.
    limits = "workflows: {enforce_retention: {time_limit: PT1S}}\n"
    (services.policy / "operations.yaml").write_text(limits)
    (services.policy / "calendar.yaml").write_text(f"timezone: Etc/GMT{-ahead:+d}\n")
    settings = home / "airflow" / "config"
    settings.mkdir(parents=True)
    (settings / "airflow_local_settings.py").write_text(INCIDENTS_HAVE_PDF)
    airflow: Standalone | None = None
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AIRFLOW_", "PARCELSEAL_")):
                patch.delenv(name)
        patch.setenv("PARCELSEAL_POLICY", str(services.policy))
        patch.setenv("PYTHONPATH", str(ROOT))
        # DAG files do not change during the tests, so frequent parsing would waste CPU time.
        patch.setenv("AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", "600")
        try:
            with local_stack(services, customers=customers, always=True):
                try:
                    running = Running(services, airflow := _start(services, more_people))
                    airflow.wait_until_ready()
                    _pause(airflow.api(), "expire_grants")  # no workflow starts by itself
                    yield running
                finally:
                    if airflow:
                        airflow.stop()
        finally:
            LocalProfile(services.home).postgres.stop()
            with suppress(Exception):
                engine(services.database("state_db").conninfo()).dispose()
            shutil.rmtree(home, ignore_errors=True)


def _pause(api: AirflowApi, dag_id: str) -> None:
    """Pause a workflow that runs every hour."""
    api.scheduled_workflows(len(registry.WORKFLOWS))
    api.call("PATCH", f"dags/{dag_id}", {"is_paused": True})


def _start(services: Services, more_people: Sequence[str]) -> Standalone:
    people = [*sample_people(services), *more_people]
    port = local_airflow.free_port()
    settings = local_airflow.settings(LocalProfile(services.home), ROOT, AIRFLOW, port, people)
    return Standalone.start(LocalProfile(services.home), ROOT, settings)
