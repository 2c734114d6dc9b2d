"""A whole Airflow for tests that use it as people do, over REST and in the browser."""

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

from include.cli.answers import people as sample_people
from include.cli.report import RunResult, result_of
from include.cli.stack import local_stack
from include.composition import new_workplace
from include.evidence.verify import verify_all
from include.local import airflow as local_airflow
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi
from include.local.profile import AIRFLOW, LocalProfile
from include.policy import SHIPPED
from include.state.connect import engine
from include.workplace import ROOT, Workplace

QUIET_HOUR = 22  # so far from every schedule that no workflow begins by itself
RUN_TIMEOUT = 240  # seconds
LOOK_EVERY = 1.0  # seconds; each look costs the API server some 40 ms of CPU
RUNS = "dags/{}/dagRuns"
# Documents take the function from `include.reports.render` when they are imported, which is later.
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
    """A running Airflow and the workplace that its tasks work with."""

    place: Workplace
    airflow: Standalone

    def courier(self) -> psycopg.Connection[Any]:
        return psycopg.connect(LocalProfile(self.place.home).owner_conninfo("courier"))

    def customers(self) -> int:
        with self.courier() as conn:
            (count,) = conn.execute("SELECT count(*) FROM customer").fetchone() or (0,)
        return int(count)

    def ended(
        self, api: AirflowApi, dag_id: str, run_id: str, seconds: float = RUN_TIMEOUT
    ) -> RunResult:
        """Wait for a run and read what it sealed."""
        states = {"queued", "running"}
        until(lambda: api.state(dag_id, run_id) not in states, f"{dag_id} ends", seconds)
        state = api.state(dag_id, run_id)
        return result_of(self.place, dag_id, run_id, state, str(self.airflow.log))

    def verified(self) -> bool:
        with self.place.state.connect() as conn:
            found = verify_all(self.place.store("evidence_store"), conn, self.place.trusted)
        return found.verified


def until(true: Callable[[], bool], what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(LOOK_EVERY)


def path_of(task: dict[str, Any]) -> str:
    """Return the address of a task in the REST API."""
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
    """Answer over REST, as Airflow's page does, and return the status.

    Args:
        api: as who answers.
        path: of the task.
        option: that is chosen.
        form: what stood in the form that was answered; that of now where none is given.
        entered: what is changed in it.
    """
    address = f"{api.url}/api/v2/{path}/hitlDetails"
    if form is None:
        shown = api.session.get(address, timeout=60).json().get("params") or {}
        form = {name: field["value"] for name, field in shown.items()}
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
    """Start Airflow on a home of its own, as `up` does, with nobody's settings but the test's.

    Args:
        customers: size of the sample.
        more_people: who may log in beside the sample's reviewers.
    """
    home = Path(tempfile.mkdtemp(prefix="parcelseal-ui-"))
    home.chmod(0o755)
    place = new_workplace(home, home / "policy", lambda _: None)
    shutil.copytree(SHIPPED, place.policy)
    ahead = (QUIET_HOUR - place.clock.now().hour + 36) % 24 - 12
    with (place.policy / "disposition.yaml").open("a", encoding="utf-8") as file:
        file.write("limit: {records: 10}\n")  # so small a sample would trip no breaker
    # A person approves it, which takes longer.
    limits = "workflows: {enforce_retention: {time_limit: PT1S}}\n"
    (place.policy / "operations.yaml").write_text(limits)
    (place.policy / "calendar.yaml").write_text(f"timezone: Etc/GMT{-ahead:+d}\n")
    settings = home / "airflow" / "config"
    settings.mkdir(parents=True)
    (settings / "airflow_local_settings.py").write_text(INCIDENTS_HAVE_PDF)
    airflow: Standalone | None = None
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AIRFLOW_", "PARCELSEAL_")):
                patch.delenv(name)
        patch.setenv("PARCELSEAL_POLICY", str(place.policy))
        patch.setenv("PYTHONPATH", str(ROOT))
        # No DAG file changes meanwhile; to parse all of them every minute costs much.
        patch.setenv("AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", "600")
        try:
            with local_stack(place, customers=customers, always=True):
                try:
                    made = Running(place, airflow := _start(place, more_people))
                    airflow.wait_until_ready()
                    yield made
                finally:
                    if airflow:
                        airflow.stop()
        finally:
            LocalProfile(place.home).postgres.stop()
            with suppress(Exception):
                engine(place.database("state_db").conninfo()).dispose()
            shutil.rmtree(home, ignore_errors=True)


def _start(place: Workplace, more_people: Sequence[str]) -> Standalone:
    people = [*sample_people(place), *more_people]
    port = local_airflow.free_port()
    settings = local_airflow.settings(LocalProfile(place.home), ROOT, AIRFLOW, port, people)
    return Standalone.start(LocalProfile(place.home), ROOT, settings)
