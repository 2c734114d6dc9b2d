"""The few calls of Airflow's REST API that the command line needs."""

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

TIMEOUT = 60.0  # seconds for one answer; Airflow on a busy machine takes longer at times
RETRIES = 5  # of a request that only reads
BACKOFF = 0.5  # seconds; doubled before each further retry


@dataclass
class AirflowApi:
    """The few calls of Airflow's REST API that the command line needs.

    Attributes:
        log: where Airflow writes its output, for the advice in errors; may be empty.
    """

    url: str
    session: requests.Session
    log: str = ""

    @classmethod
    def login(cls, url: str, user: str, password: str, log: str = "") -> AirflowApi:
        """Return a session as that user; raises ServiceError."""
        session = _session(url)
        body = {"username": user, "password": password}
        try:
            answer = session.post(f"{url}/auth/token", json=body, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise _no_answer(error, log) from None
        if not answer.ok:
            raise ServiceError(f"Airflow refused the log-in of {user} ({answer.status_code}).")
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return cls(url, session, log)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call the API and return its JSON; raises ServiceError."""
        try:
            answer = self.session.request(
                method, f"{self.url}/api/v2/{path}", json=body, timeout=TIMEOUT
            )
        except requests.RequestException as error:
            raise _no_answer(error, self.log) from None
        if not answer.ok:
            raise ServiceError(
                f"Airflow's API answered {answer.status_code} to {method} {path}: "
                f"{answer.text[:200]}."
            )
        found: dict[str, Any] = answer.json()
        return found

    def scheduled_workflows(self, wanted: int, seconds: float = 90) -> list[str]:
        """Return the ids of all scheduled DAGs, once as many as wanted were parsed."""
        end = time.monotonic() + seconds
        while True:
            found = self.call("GET", "dags?limit=100&exclude_stale=true")["dags"]
            if len(found) >= wanted or time.monotonic() > end:
                return sorted(dag["dag_id"] for dag in found if dag["timetable_summary"])
            time.sleep(1)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.call("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state: ``queued``, ``running``, ``success`` or ``failed``."""
        found = self.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")
        return str(found["state"])

    def questions(self, dag_id: str) -> list[Question]:
        """Return the human steps of a workflow, in any of its runs, that wait for an answer."""
        path = f"dags/{dag_id}/dagRuns/~/hitlDetails"
        found = self.call("GET", f"{path}?response_received=false&limit=1000")["hitl_details"]
        return [
            Question(
                run_id=one["task_instance"]["dag_run_id"],
                task_id=one["task_instance"]["task_id"],
                map_index=one["task_instance"]["map_index"],
                options=list(one["options"]),
                assigned=[person["id"] for person in one.get("assigned_users") or []],
                form={name: field["value"] for name, field in (one.get("params") or {}).items()},
            )
            for one in found
            if one["task_instance"]["state"] == "awaiting_input"
        ]

    def answer(
        self, dag_id: str, question: Question, option: str, given: Mapping[str, Any]
    ) -> None:
        """Answer a human step as the person who is logged in; raises ServiceError.

        As on Airflow's page, every field of the form is sent: also the one that says which content
        the form showed, without which no answer counts.

        Args:
            dag_id: of the run.
            question: the step.
            option: one of the question's.
            given: what is entered, by field.
        """
        path = (
            f"dags/{dag_id}/dagRuns/{quote(question.run_id, safe='')}/taskInstances/"
            f"{quote(question.task_id, safe='')}/{question.map_index}/hitlDetails"
        )
        entered = {**question.form, **given}
        self.call("PATCH", path, {"chosen_options": [option], "params_input": entered})


def _session(url: str) -> requests.Session:
    """Return a session that repeats reads and log-ins after a late or broken answer.

    Other requests are repeated only if no connection was made: Airflow may have received them.
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
class Question:
    """A human step that waits.

    Attributes:
        map_index: of a mapped task, else -1.
        options: what may be chosen.
        assigned: user ids of those who may answer.
        form: what stands in its fields, by name.
    """

    run_id: str
    task_id: str
    map_index: int
    options: list[str]
    assigned: list[str]
    form: Mapping[str, Any] = field(default_factory=dict)
