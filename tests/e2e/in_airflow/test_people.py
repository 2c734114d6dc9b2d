"""Tests of answers to reviews in a running Airflow, over REST and in a browser, by several users.

One run of `review_intake` requests a review of the sample's four batches. The first is answered
over REST, and the second and third in the browser. An administrator who is not a reviewer marks the
fourth as done.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Browser, expect

from include.cli.answers import PATIENCE
from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from tests.e2e.browsing import (
    LONGEST_WAIT,
    compliance_pages,
    logged_in,
    open_form,
    open_request,
    press,
    start,
)
from tests.e2e.in_airflow.conftest import ENTERER, OTHER_REVIEWER, REST, REVIEWER
from tests.e2e.running import RUNS, Running, patch, path_of, until
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]

LEFT = "E00031"  # a reviewer who leaves the company
BROWSER, TURNED_DOWN, MARKED = "IN-000004", "IN-000005", "IN-000006"
WORDS = "Phones of another country 电话有误"


@dataclass(frozen=True)
class ReviewRun:
    """A run of `review_intake` with its required actions by batch."""

    run_id: str
    details: dict[str, dict[str, Any]]
    customers: int  # number before the first answer
    since: float  # time of the monotonic clock

    def take_time(self) -> None:
        """Wait as long as a person needs for an answer; see PATIENCE in include/cli/answers.py."""
        time.sleep(max(0.0, self.since + PATIENCE - time.monotonic()))

    def path(self, batch: str) -> str:
        """Return the path of a batch's review task in the REST API."""
        return path_of(self.details[batch]["task_instance"])


@pytest.fixture(scope="module")
def review_run(running: Running, api: AirflowApi) -> ReviewRun:
    """A run that was triggered over REST and whose four required actions wait for answers."""
    customers = running.customers()
    run_id = api.trigger("review_intake")
    until(lambda: len(api.required_actions("review_intake")) == 4, "four requests wait")
    since = time.monotonic()
    result = api.call("GET", f"{RUNS.format('review_intake')}/~/hitlDetails")["hitl_details"]
    details = {re.findall(r"IN-\d+", detail["subject"])[0]: detail for detail in result}
    assert set(details) == {REST, BROWSER, TURNED_DOWN, MARKED}
    return ReviewRun(run_id, details, customers, since)


def state(api: AirflowApi, review_run: ReviewRun, batch: str) -> str:
    return str(api.call("GET", review_run.path(batch))["state"])


def response(api: AirflowApi, review_run: ReviewRun, batch: str) -> dict[str, Any]:
    return api.call("GET", f"{review_run.path(batch)}/hitlDetails")


def test_check_quality_run_started_over_rest_api_is_sealed(
    running: Running, api: AirflowApi, review_run: ReviewRun
) -> None:
    """The run fails because of deliberate defects in the sample, while the reviews still wait."""
    run_id = api.trigger("check_quality", {"databases": ["courier"], "full": True})
    run_result = running.ended(api, "check_quality", run_id)
    assert (run_result.state, run_result.outcome) == ("failed", "fail")
    assert run_result.bundle
    assert running.verified()
    refused = api.session.post(
        f"{api.url}/api/v2/{RUNS.format('check_quality')}",
        json={"logical_date": None, "conf": {"databases": ["nobodys"]}},
        timeout=60,
    )
    assert refused.status_code == 400
    assert "nobodys" in refused.text


def test_rest_api_rejects_answers_of_unassigned_users_and_every_second_answer(
    running: Running, api: AirflowApi, review_run: ReviewRun, over_rest: dict[str, Any]
) -> None:
    """The administrator, unassigned users and a reviewer who entered a record are refused."""
    assert over_rest == {
        "without log-in": 401,
        ADMIN: 403,
        ENTERER: 403,
        OTHER_REVIEWER: 403,
        "afterwards": ("awaiting_input", False),
        REVIEWER: 200,
        "again": 409,
    }
    assert response(api, review_run, REST)["responded_by_user"]["id"] == REVIEWER
    assigned = {user["id"] for user in review_run.details[REST]["assigned_users"]}
    assert REVIEWER in assigned
    assert OTHER_REVIEWER not in assigned
    assert OTHER_REVIEWER in {user["id"] for user in review_run.details[BROWSER]["assigned_users"]}


@pytest.fixture(scope="module")
def over_rest(running: Running, api: AirflowApi, review_run: ReviewRun) -> dict[str, Any]:
    """The HTTP status of each user's answer about the first batch."""
    review_run.take_time()
    responses: dict[str, Any] = {}
    anybody = AirflowApi(api.url, requests.Session())
    responses["without log-in"] = patch(anybody, review_run.path(REST))
    for user in (ADMIN, ENTERER, OTHER_REVIEWER):
        responses[user] = patch(running.airflow.api_as(user), review_run.path(REST))
    responses["afterwards"] = (
        state(api, review_run, REST),
        response(api, review_run, REST)["response_received"],
    )
    reviewer = running.airflow.api_as(REVIEWER)
    responses[REVIEWER] = patch(reviewer, review_run.path(REST))
    responses["again"] = patch(reviewer, review_run.path(REST))
    return responses


def test_check_quality_run_started_with_trigger_form_is_sealed(
    running: Running, api: AirflowApi, browser: Browser
) -> None:
    """The form explains its fields and offers the mapped databases.

    The run uses the entered values.
    """
    with logged_in(browser, running.airflow, ADMIN) as page:
        form = open_form(page, "Quality check")
        expect(form).to_contain_text("Names from the data map; empty means all of them.")
        expect(form).to_contain_text("Examine all records")
        form.get_by_role("combobox").press("ArrowDown")
        page.get_by_role("option", name="courier").click()
        form.locator("label:has(input[name=element_full])").click()
        run = start(page, form, f"/{RUNS.format('check_quality')}")
        assert run["conf"] == {"databases": ["courier"], "full": True}
        assert run["triggering_user_name"] == ADMIN
        page.goto("about:blank")  # otherwise Airflow's page would keep drawing the run's progress
        run_result = running.ended(api, "check_quality", run["dag_run_id"])
        assert (run_result.state, run_result.outcome) == ("failed", "fail")
        assert run_result.bundle
        page.goto(f"{running.airflow.url}/dags/check_quality/runs/{quote(run['dag_run_id'])}")
        expect(page.get_by_text("Failed").first).to_be_visible()


@pytest.fixture(scope="module")
def refused(
    running: Running, api: AirflowApi, review_run: ReviewRun, browser: Browser
) -> tuple[int, str]:
    """The HTTP status and the task's state after a reviewer tried to approve their own batch."""
    review_run.take_time()
    with logged_in(browser, running.airflow, ENTERER) as page:
        open_request(page, BROWSER)
        status = press(page, "Approve")
        expect(page.get_by_text("Access Denied")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="Approve")).to_be_enabled()
    return status, state(api, review_run, BROWSER)


def test_answer_of_unassigned_user_in_the_browser_is_rejected_with_status_403(
    api: AirflowApi, review_run: ReviewRun, refused: tuple[int, str]
) -> None:
    """The user may read the form, which names the assigned reviewers."""
    assert refused == (403, "awaiting_input")
    assert f"Only {REVIEWER}," in review_run.details[BROWSER]["body"]


@pytest.fixture(scope="module")
def in_browser(
    running: Running,
    api: AirflowApi,
    review_run: ReviewRun,
    browser: Browser,
    refused: tuple[int, str],
) -> tuple[str, set[str]]:
    """The text of a review form, and the batches that still wait after a reviewer decided two.

    The reviewer opens the form through the compliance page that lists required actions.
    """
    del refused  # must run before, because it uses the same required action
    with logged_in(browser, running.airflow, REVIEWER) as page:
        pages = compliance_pages(page, "Your required actions")
        pages.get_by_role("link", name=re.compile(BROWSER)).click()
        expect(page.get_by_role("button", name="Approve")).to_be_visible()
        page_text = page.locator("body").inner_text()
        assert press(page, "Approve") == 200
        page.reload()
        expect(page.get_by_text(re.compile(f"Response received at .* {REVIEWER}"))).to_be_visible()
        open_request(page, TURNED_DOWN)
        expect(page.get_by_text("Reason / 理由")).to_be_visible()
        page.locator("input[name=element_reason]").fill(WORDS)
        assert press(page, "Reject") == 200
        waiting = compliance_pages(page, "Your required actions").locator("tbody").all_inner_texts()
    return page_text, set(re.findall(r"IN-\d+", " ".join(waiting)))


def test_compliance_page_shows_only_incoming_batches_that_nobody_has_answered(
    in_browser: tuple[str, set[str]],
) -> None:
    """The other batches of the run still wait."""
    assert not {BROWSER, TURNED_DOWN} & in_browser[1]
    assert MARKED in in_browser[1]


def test_review_form_shows_record_counts_quality_expectations_and_a_masked_sample(
    running: Running, review_run: ReviewRun, in_browser: tuple[str, set[str]]
) -> None:
    """The form has both languages, and Airflow renders its Markdown."""
    for words in (
        "30 records, entered by E00002",
        "共 30 条记录，录入人：E00002",
        "The phone number is a mobile number",
        "录入信息的联系电话为有效的手机号码",
        "Masked sample",
        "5 of 30 records",
        "脱敏样本",
        "＊＊＊＊",
    ):
        assert words in in_browser[0]
    for mark in ("###", "---", "| "):
        assert mark not in in_browser[0]
    with running.courier() as conn:
        values = conn.execute(
            "SELECT v FROM intake_record, unnest(ARRAY[name, phone, id_number, email, street]) "
            "AS v WHERE batch_id = %s AND length(v) > 1",
            [BROWSER],
        ).fetchall()
    assert {value for (value,) in values if value in in_browser[0]} == set()


@pytest.fixture(scope="module")
def reassigned(running: Running, api: AirflowApi, review_run: ReviewRun) -> dict[str, Any]:
    """The fourth required action after a reviewer left the company and the task was cleared."""
    with running.courier() as conn:
        conn.execute("UPDATE employee SET left_on = current_date WHERE number = %s", [LEFT])
    task = review_run.details[MARKED]["task_instance"]
    body = {
        "dag_run_id": review_run.run_id,
        "task_ids": [[task["task_id"], task["map_index"]]],
        "dry_run": False,
        "only_failed": False,
    }
    api.call("POST", "dags/review_intake/clearTaskInstances", body)

    def waits() -> bool:
        result = api.call("GET", review_run.path(MARKED))
        return (result["state"], result["try_number"]) == ("awaiting_input", 2)

    until(waits, "the step asks again")
    return response(api, review_run, MARKED)


def test_cleared_review_task_is_assigned_only_to_current_reviewers(
    running: Running, review_run: ReviewRun, reassigned: dict[str, Any]
) -> None:
    """Without ParcelSeal's code, Airflow would keep the old form and the old assignees."""
    before = {user["id"] for user in review_run.details[MARKED]["assigned_users"]}
    assert LEFT in before
    assert {user["id"] for user in reassigned["assigned_users"]} == before - {LEFT}
    assert (LEFT in review_run.details[MARKED]["body"], LEFT in reassigned["body"]) == (True, False)
    assert patch(running.airflow.api_as(LEFT), review_run.path(MARKED)) == 403
    first = f"{review_run.path(MARKED)}/hitlDetails/tries/1"
    kept = running.airflow.api().call("GET", first)
    assert kept["body"] == review_run.details[MARKED]["body"]  # the history keeps the first form


@pytest.fixture(scope="module")
def sealed(
    running: Running,
    api: AirflowApi,
    review_run: ReviewRun,
    over_rest: dict[str, Any],
    in_browser: tuple[str, set[str]],
    reassigned: dict[str, Any],
) -> dict[str, Any]:
    """The sealed result of the run, after the administrator marked the last review as success."""
    del over_rest, in_browser, reassigned
    api.call("PATCH", review_run.path(MARKED), {"new_state": "success"})
    run_result = running.ended(api, "review_intake", review_run.run_id)
    assert (run_result.state, run_result.outcome) == ("success", "attention")
    assert running.verified()
    result = json.loads((Path(str(run_result.bundle)) / "result.json").read_text())
    assert isinstance(result, dict)
    return result


def test_evidence_contains_approver_and_content_digest_of_each_decision(
    review_run: ReviewRun, sealed: dict[str, Any]
) -> None:
    """Each accepted answer has an approval; refused users have none."""
    approvals = {approval["step"].rpartition("/")[2]: approval for approval in sealed["approvals"]}
    decisions = {
        batch: (detail["decision"], detail["decided_by"]) for batch, detail in approvals.items()
    }
    assert decisions == {
        REST: ("Approve", REVIEWER),
        BROWSER: ("Approve", REVIEWER),
        TURNED_DOWN: ("Reject", REVIEWER),
    }
    assert len(sealed["approvals"]) == len(approvals)
    for batch, detail in approvals.items():
        assert detail["sha256"] in review_run.details[batch]["body"]
    reasons = {
        step["part"].rpartition("/")[2]: step["data"].get("reason")
        for step in sealed["steps"]
        if step["step"] == "review"
    }
    assert reasons[TURNED_DOWN] == WORDS


def test_evidence_page_shows_the_bundle_of_the_run_with_a_link_to_its_report(
    running: Running, review_run: ReviewRun, browser: Browser, sealed: dict[str, Any]
) -> None:
    """The page Evidence lists the bundle and opens its report."""
    token = str(running.airflow.api_as(REVIEWER).session.headers["Authorization"]).split()[1]
    with browser.new_context(locale="en") as context:
        context.set_default_timeout(LONGEST_WAIT)
        context.add_cookies([{"name": "_token", "value": token, "url": running.airflow.url}])
        page = context.new_page()
        page.goto(f"{running.airflow.url}/compliance/evidence?workflow=review_intake")
        row = page.get_by_role("row").filter(has_text=review_run.run_id)
        expect(row).to_contain_text("Needs attention")
        row.get_by_role("link", name="Report").click()
        expect(page.locator("body")).to_contain_text(review_run.run_id)
        assert page.url.endswith("/report")


def test_each_valid_record_of_an_approved_batch_becomes_one_formal_record(
    running: Running, review_run: ReviewRun, sealed: dict[str, Any]
) -> None:
    """Only records that break no expectation become formal records."""
    with running.courier() as conn:
        states = conn.execute(
            "SELECT batch_id, i.status, count(*), count(DISTINCT c.customer_id) "
            "FROM intake_record i LEFT JOIN customer c USING (customer_id) "
            "WHERE batch_id >= %s GROUP BY 1, 2 ORDER BY 1, 2",
            [REST],
        ).fetchall()
    assert states == [
        (REST, "promoted", 24, 24),
        (REST, "rejected", 6, 0),
        (BROWSER, "promoted", 24, 24),
        (BROWSER, "rejected", 6, 0),
        (TURNED_DOWN, "rejected", 30, 0),
        (MARKED, "pending", 30, 0),
    ]
    assert running.customers() == review_run.customers + 48


def test_incoming_batch_stays_undecided_if_its_review_task_is_marked_as_success(
    sealed: dict[str, Any],
) -> None:
    """Airflow lets users who may edit runs mark a task as successful.

    The batch then stays undecided, and the report names it.
    """
    result = {
        finding["code"]
        for finding in sealed["findings"]
        if finding["subject"].rpartition("/")[2] == MARKED
    }
    assert result == {"intake.waiting"}
    assert [
        (step["data"]["left"], step["data"]["promoted"])
        for step in sealed["steps"]
        if step["step"] == "settle" and step["part"].endswith(MARKED)
    ] == [(30, 0)]
