"""Tests of a disposition above the circuit breaker in a running Airflow.

The run is triggered with the form and approved in the browser.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from include.cli.answers import PATIENCE
from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from tests.e2e.browsing import logged_in, open_form, open_request, press, start
from tests.e2e.in_airflow.conftest import REVIEWER
from tests.e2e.running import RUNS, Running, patch, path_of, until
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]

APPROVER = "E00007"  # owner of the retention schedule


@pytest.fixture(scope="module")
def retention(running: Running, api: AirflowApi, browser: Browser) -> dict[str, Any]:
    """A retention run that the administrator triggers with the form and an approver approves."""
    with logged_in(browser, running.airflow, ADMIN) as page:
        form = open_form(page, "Deletion on time")
        expect(form).to_contain_text("empty means today")
        run = start(page, form, f"/{RUNS.format('enforce_retention')}")
    until(lambda: len(api.required_actions("enforce_retention")) == 1, "the request waits")
    since = time.monotonic()
    (detail,) = api.call("GET", f"{RUNS.format('enforce_retention')}/~/hitlDetails")["hitl_details"]
    path = path_of(detail["task_instance"])
    time.sleep(max(0.0, since + PATIENCE - time.monotonic()))
    with logged_in(browser, running.airflow, APPROVER) as page:
        open_request(page, "requires approval")
        page_text = page.locator("body").inner_text()
        statuses = {user: patch(running.airflow.api_as(user), path) for user in (ADMIN, REVIEWER)}
        statuses["waits"] = api.call("GET", path)["state"] == "awaiting_input"
        statuses[APPROVER] = press(page, "Approve")
        statuses["again"] = patch(running.airflow.api_as(APPROVER), path)
    run_result = running.ended(api, "enforce_retention", run["dag_run_id"])
    return {
        "run": run,
        "page_text": page_text,
        "statuses": statuses,
        "detail": detail,
        "run_result": run_result,
    }


def test_disposition_plan_that_exceeds_the_record_limit_waits_for_an_approver(
    retention: dict[str, Any],
) -> None:
    """The triggering administrator, unassigned users and a second answer are refused."""
    assert retention["run"]["triggering_user_name"] == ADMIN
    assert retention["statuses"] == {
        ADMIN: 403,
        REVIEWER: 403,
        "waits": True,
        APPROVER: 200,
        "again": 409,
    }
    for words in ("Electronic waybills", "电子运单", "SHA-256", "more than 10 records"):
        assert words in retention["page_text"]
    assert "###" not in retention["page_text"]


def test_approved_records_are_deleted_and_evidence_contains_the_approver(
    running: Running, retention: dict[str, Any]
) -> None:
    """The approval records the hash of the plan that the form showed."""
    run_result = retention["run_result"]
    assert run_result.state == "success"
    result = json.loads((Path(str(run_result.bundle)) / "result.json").read_text())
    (approval,) = result["approvals"]
    assert (approval["decision"], approval["decided_by"]) == ("Approve", APPROVER)
    assert approval["sha256"] in retention["detail"]["body"]
    with running.courier() as conn:
        query = "SELECT count(*) FROM waybill WHERE created_at < now() - interval '2 years 1 day'"
        assert conn.execute(query).fetchone() == (0,)


def test_run_that_misses_its_time_limit_is_reported_to_the_owner_once(
    running: Running, retention: dict[str, Any]
) -> None:
    """Airflow's deadline alert queues and sends the notification while the run still waits."""

    def notices() -> list[tuple[str, str]]:
        with running.services.state.connect() as conn:
            query = (
                "SELECT recipient, state FROM notification"
                " WHERE kind = 'runs.late' AND key = %(key)s"
            )
            key = {"key": f"enforce_retention/{retention['run']['dag_run_id']}"}
            return [tuple(row) for row in conn.exec_driver_sql(query, key)]

    until(lambda: notices() == [("role:information_management", "sent")], "the notice is sent")


def test_rest_api_rejects_retention_run_with_status_400_if_parameter_as_of_is_not_a_string(
    api: AirflowApi,
) -> None:
    """Airflow refuses the run before anything is planned."""
    refused = api.session.post(
        f"{api.url}/api/v2/{RUNS.format('enforce_retention')}",
        json={"logical_date": None, "conf": {"as_of": 20261125}},
        timeout=60,
    )
    assert refused.status_code == 400
