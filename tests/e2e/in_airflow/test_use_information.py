"""A request for customer information over REST: the entitled people decide, others are refused."""

from __future__ import annotations

import csv
import email
import io
import time
from dataclasses import dataclass
from typing import Any

import pytest
import pyzipper
import requests

from include.cli.answers import PATIENCE
from include.disclosure.opening import open_extract
from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from include.services.errors import UsageError
from tests.e2e.running import Running, patch, path_of, until

pytestmark = pytest.mark.airflow

REQUESTER = "E00011"  # head of a branch; such people can log in to the local Airflow
SUPERVISOR = "E00001"
SECOND = "E00007"  # head of compliance
OTHER = "E00003"
FORM = {
    "action": "request",
    "purpose": "delivery",
    "collection": "courier.customer",
    "fields": ["courier.customer.customer_id", "courier.customer.name", "courier.customer.phone"],
    "unmasked": ["courier.customer.phone"],
    "code_column": "courier.customer.status",
    "codes": ["dormant"],
    "days": 2,
    "case": "CS-2026-17",
    "form": "zip",
}


@dataclass(frozen=True)
class UseRun:
    """A run of `use_information` after its end.

    Attributes:
        run_id: id of the run.
        answers: HTTP status of each answer, by task and person.
    """

    run_id: str
    answers: dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def use_run(running: Running, api: AirflowApi) -> UseRun:
    """A run that was triggered and answered over REST by people of the sample."""
    run_id = running.airflow.api_as(REQUESTER).trigger("use_information", FORM)
    answers: dict[tuple[str, str], int] = {}
    for task, person in (("approve", SUPERVISOR), ("approve_second", SECOND)):
        path = _waiting(api, run_id, task)
        time.sleep(PATIENCE)  # people need longer; see include/cli/answers.py
        answers[task, "nobody"] = patch(AirflowApi(api.url, requests.Session()), path)
        for other in (REQUESTER, OTHER, ADMIN):
            answers[task, other] = patch(running.airflow.api_as(other), path)
        answers[task, person] = patch(running.airflow.api_as(person), path)
    return UseRun(run_id, answers)


def _waiting(api: AirflowApi, run_id: str, task: str) -> str:
    """Return the path of a human task of a run as soon as it waits for an answer."""
    waiting: list[dict[str, Any]] = []

    def waits() -> bool:
        path = "dags/use_information/dagRuns/~/hitlDetails?response_received=false"
        details = api.call("GET", path)["hitl_details"]
        instances = [detail["task_instance"] for detail in details]
        waiting[:] = [
            instance
            for instance in instances
            if (instance["dag_run_id"], instance["task_id"]) == (run_id, task)
            and instance["state"] == "awaiting_input"
        ]
        return bool(waiting)

    until(waits, f"{task} waits")
    return path_of(waiting[0])


def test_rest_api_accepts_answers_of_supervisor_and_second_approver_only(use_run: UseRun) -> None:
    for task, person in (("approve", SUPERVISOR), ("approve_second", SECOND)):
        assert use_run.answers[task, person] == 200
        assert use_run.answers[task, "nobody"] == 401
        for other in (REQUESTER, OTHER, ADMIN):
            assert use_run.answers[task, other] == 403


def test_extract_contains_exactly_the_approved_records_and_columns(
    running: Running, api: AirflowApi, use_run: UseRun
) -> None:
    ended = running.ended(api, "use_information", use_run.run_id)
    assert (ended.state, ended.error) == ("success", None)
    services, number = running.services, 1
    with pytest.raises(UsageError):
        open_extract(
            services.state, services.store("extract_store"), services.clock, number,
            person=SUPERVISOR, channel="command",
        )  # fmt: skip
    opened = open_extract(
        services.state, services.store("extract_store"), services.clock, number, person=REQUESTER,
        channel="command",
    )  # fmt: skip
    with pyzipper.AESZipFile(io.BytesIO(b"".join(opened.pieces))) as archive:
        with pytest.raises(RuntimeError):
            archive.read(f"extract-{number}.csv")
        archive.setpassword(_mailed_password(running).encode())
        text = archive.read(f"extract-{number}.csv").decode("utf-8-sig")
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["customer_id", "name", "phone"]
    with running.courier() as conn:
        expected = conn.execute(
            "SELECT customer_id::text, left(name, 1) || '**', coalesce(phone, '') FROM customer "
            "WHERE status = 'dormant' ORDER BY customer.customer_id"
        ).fetchall()
    assert [tuple(row) for row in rows] == expected
    assert expected


def _mailed_password(running: Running) -> str:
    """Return the password in the newest mail to the requester."""
    for path in sorted((running.services.home / "mail").glob("*.eml"), reverse=True):
        message = email.message_from_bytes(path.read_bytes())
        for part in message.walk():
            payload = part.get_payload(decode=True)
            if part.get_content_type() == "text/plain" and isinstance(payload, bytes):
                text = payload.decode()
                if "request 1 " in text and "Password: " in text:
                    return text.partition("Password: ")[2].split()[0]
    raise AssertionError("no mail with a password")


def test_logs_and_xcoms_contain_no_value_of_a_customer(
    running: Running, api: AirflowApi, use_run: UseRun
) -> None:
    with running.courier() as conn:
        phones = [
            row[0]
            for row in conn.execute("SELECT phone FROM customer WHERE status = 'dormant'")
            if row[0]
        ]
    base = f"dags/use_information/dagRuns/{use_run.run_id}/taskInstances"
    for task in ("check", "deliver", "verify", "send"):
        log = api.session.get(f"{api.url}/api/v2/{base}/{task}/logs/1", timeout=60).text
        xcoms = api.session.get(f"{api.url}/api/v2/{base}/{task}/xcomEntries", timeout=60).text
        assert not [phone for phone in phones if phone in log or phone in xcoms]
