"""People of the sample company who use Airflow's REST API while runs are in other processes."""

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
from include.service_container import ROOT, Services

READY = 120  # seconds


@contextmanager
def api_server(
    services: Services, environment: Mapping[str, str], people: Sequence[str]
) -> Iterator[People]:
    """Start `airflow api-server` for in-process runs, with a login for each person."""
    log_ins = {user: secrets.token_urlsafe(12) for user in (ADMIN, *people)}
    port = local_airflow.free_port()
    settings = local_airflow.settings(LocalProfile(services.home), ROOT, AIRFLOW_RUNS, port, people)
    passwords = Path(settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords.write_text(json.dumps(log_ins))
    url = settings["AIRFLOW__API__BASE_URL"]
    log = services.home / "logs" / "api-server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server", "--apps", "core"],
            env={**settings, **environment},
            cwd=services.home,
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
    """The logins of all people.

    Attributes:
        url: address of Airflow's API server.
        log_ins: passwords by user id.
    """

    url: str
    log_ins: Mapping[str, str]
    _logged_in: dict[str, AirflowApi] = field(default_factory=dict)

    def api(self, user: str = ADMIN) -> AirflowApi:
        """Return a client of the REST API with the login of a person."""
        if user not in self._logged_in:
            self._logged_in[user] = AirflowApi.login(self.url, user, self.log_ins[user])
        return self._logged_in[user]

    def answer(
        self, user: str, action: Mapping[str, Any], option: str, entered: Mapping[str, Any]
    ) -> int:
        """Answer a required action as a person, and return the HTTP status."""
        api = self.api(user)
        form = {name: parameter["value"] for name, parameter in action["params"].items()}
        return api.session.patch(
            f"{api.url}/api/v2/{path_of(action)}/hitlDetails",
            json={"chosen_options": [option], "params_input": form | dict(entered)},
            timeout=60,
        ).status_code

    def required_actions(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the required actions of all runs of a workflow that wait for an answer."""
        path = f"dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false&limit=1000"
        details = self.api().call("GET", path)["hitl_details"]
        return [
            detail for detail in details if detail["task_instance"]["state"] == "awaiting_input"
        ]


def path_of(action: Mapping[str, Any]) -> str:
    """Return the path of a required action's task in the REST API."""
    task = action["task_instance"]
    return (
        f"dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}/taskInstances/"
        f"{task['task_id']}/{task['map_index']}"
    )
