"""A deletion larger than usual, started by a form and let go on by who may approve it."""

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
from tests.e2e.browsing import logged_in, open_form, open_question, press, start
from tests.e2e.in_airflow.conftest import REVIEWER
from tests.e2e.running import RUNS, Running, patch, path_of, until
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]

APPROVER = "E00007"  # of the retention schedule


@pytest.fixture(scope="module")
def retention(running: Running, api: AirflowApi, browser: Browser) -> dict[str, Any]:
    """A retention run that the administrator starts by its form and an approver lets go on."""
    with logged_in(browser, running.airflow, ADMIN) as page:
        form = open_form(page, "Deletion on time")
        expect(form).to_contain_text("empty means today")
        run = start(page, form, f"/{RUNS.format('enforce_retention')}")
    until(lambda: len(api.questions("enforce_retention")) == 1, "the question waits")
    since = time.monotonic()
    (detail,) = api.call("GET", f"{RUNS.format('enforce_retention')}/~/hitlDetails")["hitl_details"]
    path = path_of(detail["task_instance"])
    time.sleep(max(0.0, since + PATIENCE - time.monotonic()))
    with logged_in(browser, running.airflow, APPROVER) as page:
        open_question(page, "wait for your approval")
        shown = page.locator("body").inner_text()
        said = {user: patch(running.airflow.api_as(user), path) for user in (ADMIN, REVIEWER)}
        said["waits"] = api.call("GET", path)["state"] == "awaiting_input"
        said[APPROVER] = press(page, "Approve")
        said["again"] = patch(running.airflow.api_as(APPROVER), path)
    done = running.ended(api, "enforce_retention", run["dag_run_id"])
    return {"run": run, "shown": shown, "said": said, "detail": detail, "done": done}


def test_a_plan_larger_than_usual_waits_for_who_may_approve_it(retention: dict[str, Any]) -> None:
    """Not for the administrator, who started it, nor for somebody with another task; and once."""
    assert retention["run"]["triggering_user_name"] == ADMIN
    assert retention["said"] == {
        ADMIN: 403,
        REVIEWER: 403,
        "waits": True,
        APPROVER: 200,
        "again": 409,
    }
    for words in ("Electronic waybills", "电子运单", "SHA-256", "more than 10 records"):
        assert words in retention["shown"]
    assert "###" not in retention["shown"]


def test_what_was_approved_in_airflow_is_gone_and_the_evidence_says_by_whom(
    running: Running, retention: dict[str, Any]
) -> None:
    """Bound to the plan whose hash the question showed."""
    done = retention["done"]
    assert done.state == "success"
    found = json.loads((Path(str(done.bundle)) / "result.json").read_text())
    (approval,) = found["approvals"]
    assert (approval["decision"], approval["decided_by"]) == ("Approve", APPROVER)
    assert approval["sha256"] in retention["detail"]["body"]
    with running.courier() as conn:
        query = "SELECT count(*) FROM waybill WHERE created_at < now() - interval '2 years 1 day'"
        assert conn.execute(query).fetchone() == (0,)


def test_a_run_beyond_its_time_limit_is_reported_to_the_owner_once(
    running: Running, retention: dict[str, Any]
) -> None:
    """Airflow's deadline alert queues the notification and sends it, while the run waits."""

    def notices() -> list[tuple[str, str]]:
        with running.place.state.connect() as conn:
            query = "SELECT recipient, state FROM notice WHERE kind = 'runs.late' AND key = %(key)s"
            key = {"key": f"enforce_retention/{retention['run']['dag_run_id']}"}
            return [tuple(row) for row in conn.exec_driver_sql(query, key)]

    until(lambda: notices() == [("role:information_management", "sent")], "the notice is sent")


def test_a_retention_run_over_rest_wants_a_day_as_text(api: AirflowApi) -> None:
    """What is no text is refused before anything is planned."""
    refused = api.session.post(
        f"{api.url}/api/v2/{RUNS.format('enforce_retention')}",
        json={"logical_date": None, "conf": {"as_of": 20261125}},
        timeout=60,
    )
    assert refused.status_code == 400
