"""A client for the parts of Airflow's REST API that the command line uses."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from include.services.errors import ServiceError

TIMEOUT = 60.0  # seconds for a response; Airflow on a busy machine sometimes takes longer
RETRIES = 5  # retries of a request that only reads
BACKOFF = 0.5  # seconds; doubled before each further retry


@dataclass
class AirflowApi:
    """A session with Airflow's REST API.

    Attributes:
        url: address of the API server.
        session: HTTP session with the user's token.
        log: path of Airflow's log, to be named in error messages; empty if there is no log.
    """

    url: str
    session: requests.Session
    log: str = ""

    @classmethod
    def login(cls, url: str, user: str, password: str, log: str = "") -> AirflowApi:
        """Log in as a user, and return the client.

        Args:
            url: address of the API server.
            user: user name.
            password: password of the user.
            log: path of Airflow's log, to be named in error messages; empty if there is no log.

        Raises:
            ServiceError: Airflow does not answer, or refused the log-in.
        """
        session = _session(url)
        body = {"username": user, "password": password}
        try:
            response = session.post(f"{url}/auth/token", json=body, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise _no_answer(error, log) from None
        if not response.ok:
            raise ServiceError(f"Airflow refused the log-in of {user} ({response.status_code}).")
        session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
        return cls(url, session, log)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call the API and return the JSON object of the response.

        Args:
            method: HTTP method.
            path: path of the request, relative to ``/api/v2/``.
            body: JSON object of the request; None for a request without a body.

        Raises:
            ServiceError: Airflow does not answer, or answered with an error.
        """
        try:
            response = self.session.request(
                method, f"{self.url}/api/v2/{path}", json=body, timeout=TIMEOUT
            )
        except requests.RequestException as error:
            raise _no_answer(error, self.log) from None
        if not response.ok:
            raise ServiceError(
                f"Airflow's API answered {response.status_code} to {method} {path}: "
                f"{response.text[:200]}."
            )
        content: dict[str, Any] = response.json()
        return content

    def scheduled_workflows(self, expected_dags: int, seconds: float = 90) -> list[str]:
        """Wait until Airflow has parsed a number of DAGs; return the ids of DAGs with a schedule.

        Args:
            expected_dags: number of DAGs to wait for, including DAGs without a schedule.
            seconds: longest wait in seconds. After this time, the result contains only ids of DAGs
                that were parsed until then.
        """
        end = time.monotonic() + seconds
        while True:
            dags = self.call("GET", "dags?limit=100&exclude_stale=true")["dags"]
            if len(dags) >= expected_dags or time.monotonic() > end:
                return sorted(dag["dag_id"] for dag in dags if dag["timetable_summary"])
            time.sleep(1)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a run of a workflow, and return the run's id.

        Args:
            dag_id: id of the workflow.
            conf: parameters of the run; None for the default values.
        """
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.call("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state: ``queued``, ``running``, ``success`` or ``failed``.

        Args:
            dag_id: id of the workflow.
            run_id: id of the run.
        """
        run = self.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")
        return str(run["state"])

    def required_actions(self, dag_id: str) -> list[RequiredAction]:
        """Return the unanswered required actions of all runs of a workflow."""
        path = f"dags/{dag_id}/dagRuns/~/hitlDetails"
        items = self.call("GET", f"{path}?response_received=false&limit=1000")["hitl_details"]
        return [
            RequiredAction(
                run_id=item["task_instance"]["dag_run_id"],
                task_id=item["task_instance"]["task_id"],
                map_index=item["task_instance"]["map_index"],
                options=list(item["options"]),
                assigned=[person["id"] for person in item.get("assigned_users") or []],
                form={name: field["value"] for name, field in (item.get("params") or {}).items()},
            )
            for item in items
            if item["task_instance"]["state"] == "awaiting_input"
        ]

    def answer(
        self, dag_id: str, action: RequiredAction, option: str, values: Mapping[str, Any]
    ) -> None:
        """Answer a required action as the logged-in person.

        Like Airflow's web page, the call sends every field of the form. The workflow requires one
        of these fields: a fingerprint of the content that the form shows to the person.

        Args:
            dag_id: id of the workflow.
            action: the required action.
            option: the chosen option.
            values: the entered values, by name of the form field.

        Raises:
            ServiceError: Airflow does not answer, or refused the answer.
        """
        path = (
            f"dags/{dag_id}/dagRuns/{quote(action.run_id, safe='')}/taskInstances/"
            f"{quote(action.task_id, safe='')}/{action.map_index}/hitlDetails"
        )
        form = {**action.form, **values}
        self.call("PATCH", path, {"chosen_options": [option], "params_input": form})


def _session(url: str) -> requests.Session:
    """Return an HTTP session that repeats GET requests and log-ins after a failure.

    A failure is a timeout or a broken response. Other requests are repeated only if no connection
    was established: otherwise Airflow may have received the request already.
    """
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it logs each retry
    session = requests.Session()
    for prefix, methods in (("", ("GET",)), ("/auth/token", ("POST",))):
        retry = Retry(
            total=RETRIES,
            connect=RETRIES,
            read=RETRIES,
            backoff_factor=BACKOFF,
            allowed_methods=methods,
        )
        session.mount(f"{url}{prefix}", HTTPAdapter(max_retries=retry))
    return session


def _no_answer(error: requests.RequestException, log: str) -> ServiceError:
    return ServiceError(
        f"Airflow's API does not answer: {type(error).__name__}.",
        f"The machine is busy{f'; see {log}' if log else ''}. Run `up` again.",
    )


@dataclass(frozen=True)
class RequiredAction:
    """A human task that waits for an answer.

    Attributes:
        run_id: id of the run.
        task_id: id of the task.
        map_index: index of a mapped task; -1 for a task that is not mapped.
        options: options from which the answering person chooses.
        assigned: ids of the users who may answer.
        form: current values of the form's fields, by name.
    """

    run_id: str
    task_id: str
    map_index: int
    options: list[str]
    assigned: list[str]
    form: Mapping[str, Any] = field(default_factory=dict)
