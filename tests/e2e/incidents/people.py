"""The people of the sample company at Airflow's REST API, while runs are led in other processes."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from include.local import airflow as local_airflow
from include.local.airflow import ADMIN, stop_tree
from include.local.airflow_api import AirflowApi
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.workplace import ROOT, Workplace

READY = 120  # seconds


@contextmanager
def api_server(
    place: Workplace, environment: Mapping[str, str], people: Sequence[str]
) -> Iterator[People]:
    """Start `airflow api-server` on the database of in-process runs; these people may log in."""
    log_ins = {one: secrets.token_urlsafe(12) for one in (ADMIN, *people)}
    port = local_airflow.free_port()
    settings = local_airflow.settings(LocalProfile(place.home), ROOT, AIRFLOW_RUNS, port, people)
    passwords = Path(settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords.write_text(json.dumps(log_ins))
    url = settings["AIRFLOW__API__BASE_URL"]
    log = place.home / "logs" / "api-server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server", "--apps", "core"],
            env={**settings, **environment},
            cwd=place.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(url, process, log)
        yield People(url, log_ins)
    finally:
        stop_tree(process.pid)
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY
    while process.poll() is None and time.monotonic() < end:
        try:
            if requests.get(f"{url}/api/v2/version", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text()[-2_000:])


@dataclass
class People:
    """Everybody's log-in.

    Attributes:
        url: of Airflow.
        log_ins: passwords by user id.
    """

    url: str
    log_ins: Mapping[str, str]
    _logged_in: dict[str, AirflowApi] = field(default_factory=dict)

    def api(self, user: str = ADMIN) -> AirflowApi:
        """The API as that person."""
        if user not in self._logged_in:
            self._logged_in[user] = AirflowApi.login(self.url, user, self.log_ins[user])
        return self._logged_in[user]

    def answer(
        self, user: str, question: Mapping[str, Any], option: str, entered: Mapping[str, Any]
    ) -> int:
        """Answer as that person; what Airflow said."""
        api = self.api(user)
        form = {name: one["value"] for name, one in question["params"].items()}
        return api.session.patch(
            f"{api.url}/api/v2/{path_of(question)}/hitlDetails",
            json={"chosen_options": [option], "params_input": form | dict(entered)},
            timeout=60,
        ).status_code

    def questions(self, dag_id: str) -> list[dict[str, Any]]:
        """What waits, of all runs of a workflow."""
        path = f"dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false&limit=1000"
        found = self.api().call("GET", path)["hitl_details"]
        return [one for one in found if one["task_instance"]["state"] == "awaiting_input"]


def path_of(question: Mapping[str, Any]) -> str:
    """The address of a question's task in the API."""
    task = question["task_instance"]
    return (
        f"dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}/taskInstances/"
        f"{task['task_id']}/{task['map_index']}"
    )
