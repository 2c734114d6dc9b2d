"""A running Airflow, over REST and in a real browser: who may answer, who may not, what counts.

One run of `review_intake` asks about the sample's four batches. The first is answered over REST,
the second and third in the browser, the fourth is marked as done by somebody who was not asked.
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
    open_question,
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

LEFT = "E00031"  # a reviewer who leaves
BROWSER, TURNED_DOWN, MARKED = "IN-000004", "IN-000005", "IN-000006"
WORDS = "Phones of another country 电话有误"


@dataclass(frozen=True)
class Asked:
    """The questions of one review run, by batch."""

    run_id: str
    details: dict[str, dict[str, Any]]
    customers: int  # before anybody answered
    since: float  # by the monotonic clock

    def take_time(self) -> None:
        """Answer no sooner than people do: see PATIENCE in include/cli/answers.py."""
        time.sleep(max(0.0, self.since + PATIENCE - time.monotonic()))

    def path(self, batch: str) -> str:
        """Return the address of a batch's step in the REST API."""
        return path_of(self.details[batch]["task_instance"])


@pytest.fixture(scope="module")
def asked(running: Running, api: AirflowApi) -> Asked:
    """A review started over REST, whose four questions wait for people."""
    customers = running.customers()
    run_id = api.trigger("review_intake")
    until(lambda: len(api.questions("review_intake")) == 4, "four questions wait")
    since = time.monotonic()
    found = api.call("GET", f"{RUNS.format('review_intake')}/~/hitlDetails")["hitl_details"]
    details = {re.findall(r"IN-\d+", one["subject"])[0]: one for one in found}
    assert set(details) == {REST, BROWSER, TURNED_DOWN, MARKED}
    return Asked(run_id, details, customers, since)


def state(api: AirflowApi, asked: Asked, batch: str) -> str:
    return str(api.call("GET", asked.path(batch))["state"])


def response(api: AirflowApi, asked: Asked, batch: str) -> dict[str, Any]:
    return api.call("GET", f"{asked.path(batch)}/hitlDetails")


def test_check_quality_over_rest(running: Running, api: AirflowApi, asked: Asked) -> None:
    """With parameters; red as the sample is, and sealed. It does not wait behind the review."""
    run_id = api.trigger("check_quality", {"databases": ["courier"], "full": True})
    done = running.ended(api, "check_quality", run_id)
    assert (done.state, done.outcome) == ("failed", "fail")
    assert done.bundle
    assert running.verified()
    refused = api.session.post(
        f"{api.url}/api/v2/{RUNS.format('check_quality')}",
        json={"logical_date": None, "conf": {"databases": ["nobodys"]}},
        timeout=60,
    )
    assert refused.status_code == 400
    assert "nobodys" in refused.text


def test_only_who_is_asked_may_answer_over_rest_and_once(
    running: Running, api: AirflowApi, asked: Asked, over_rest: dict[str, Any]
) -> None:
    """Neither the administrator, nor who has no part in it, nor a reviewer who entered a record."""
    assert over_rest == {
        "without log-in": 401,
        ADMIN: 403,
        ENTERER: 403,
        OTHER_REVIEWER: 403,
        "afterwards": ("awaiting_input", False),
        REVIEWER: 200,
        "again": 409,
    }
    assert response(api, asked, REST)["responded_by_user"]["id"] == REVIEWER
    assigned = {one["id"] for one in asked.details[REST]["assigned_users"]}
    assert REVIEWER in assigned
    assert OTHER_REVIEWER not in assigned
    assert OTHER_REVIEWER in {one["id"] for one in asked.details[BROWSER]["assigned_users"]}


@pytest.fixture(scope="module")
def over_rest(running: Running, api: AirflowApi, asked: Asked) -> dict[str, Any]:
    """What Airflow said to everybody who answered about the first batch."""
    asked.take_time()
    said: dict[str, Any] = {}
    anybody = AirflowApi(api.url, requests.Session())
    said["without log-in"] = patch(anybody, asked.path(REST))
    for user in (ADMIN, ENTERER, OTHER_REVIEWER):
        said[user] = patch(running.airflow.api_as(user), asked.path(REST))
    said["afterwards"] = (
        state(api, asked, REST),
        response(api, asked, REST)["response_received"],
    )
    reviewer = running.airflow.api_as(REVIEWER)
    said[REVIEWER] = patch(reviewer, asked.path(REST))
    said["again"] = patch(reviewer, asked.path(REST))
    return said


def test_check_quality_from_the_trigger_form(
    running: Running, api: AirflowApi, browser: Browser
) -> None:
    """The form offers the mapped databases and explains itself; what is chosen is what runs."""
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
        page.goto("about:blank")  # Airflow's page would draw the run's progress all the while
        done = running.ended(api, "check_quality", run["dag_run_id"])
        assert (done.state, done.outcome) == ("failed", "fail")
        assert done.bundle
        page.goto(f"{running.airflow.url}/dags/check_quality/runs/{quote(run['dag_run_id'])}")
        expect(page.get_by_text("Failed").first).to_be_visible()


@pytest.fixture(scope="module")
def refused(running: Running, api: AirflowApi, asked: Asked, browser: Browser) -> tuple[int, str]:
    """Somebody with the reviewers' role who entered the batch tries to approve it."""
    asked.take_time()
    with logged_in(browser, running.airflow, ENTERER) as page:
        open_question(page, BROWSER)
        status = press(page, "Approve")
        expect(page.get_by_text("Access Denied")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="Approve")).to_be_enabled()
    return status, state(api, asked, BROWSER)


def test_in_the_browser_who_is_not_asked_is_told_so_and_nothing_happens(
    api: AirflowApi, asked: Asked, refused: tuple[int, str]
) -> None:
    """They may read the question, which names those who may answer."""
    assert refused == (403, "awaiting_input")
    assert f"Only {REVIEWER}," in asked.details[BROWSER]["body"]


@pytest.fixture(scope="module")
def in_browser(
    running: Running, api: AirflowApi, asked: Asked, browser: Browser, refused: tuple[int, str]
) -> tuple[str, set[str]]:
    """The reviewer approves a batch and turns another down; what the form showed, and still waits.

    The compliance page lists what waits, and leads to Airflow's form.
    """
    del refused  # comes first: the same question
    with logged_in(browser, running.airflow, REVIEWER) as page:
        pages = compliance_pages(page, "Waiting for you")
        pages.get_by_role("link", name=re.compile(BROWSER)).click()
        expect(page.get_by_role("button", name="Approve")).to_be_visible()
        shown = page.locator("body").inner_text()
        assert press(page, "Approve") == 200
        page.reload()
        expect(page.get_by_text(re.compile(f"Response received at .* {REVIEWER}"))).to_be_visible()
        open_question(page, TURNED_DOWN)
        expect(page.get_by_text("Reason / 理由")).to_be_visible()
        page.locator("input[name=element_reason]").fill(WORDS)
        assert press(page, "Reject") == 200
        waiting = compliance_pages(page, "Waiting for you").locator("tbody").all_inner_texts()
    return shown, set(re.findall(r"IN-\d+", " ".join(waiting)))


def test_what_was_answered_waits_on_the_compliance_page_no_more(
    in_browser: tuple[str, set[str]],
) -> None:
    """The others of the run wait on."""
    assert not {BROWSER, TURNED_DOWN} & in_browser[1]
    assert MARKED in in_browser[1]


def test_in_the_browser_the_reviewer_sees_what_is_decided_on(
    running: Running, asked: Asked, in_browser: tuple[str, set[str]]
) -> None:
    """Counts, broken rules and a masked sample in both languages, as a page and not as Markdown."""
    for words in (
        "30 records, entered by E00002",
        "共 30 条记录，录入人：E00002",
        "The phone number is a mobile number",
        "录入信息中联系电话为有效的手机号码",
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
def anew(running: Running, api: AirflowApi, asked: Asked) -> dict[str, Any]:
    """The last question, cleared after one of its reviewers left the company."""
    with running.courier() as conn:
        conn.execute("UPDATE employee SET left_on = current_date WHERE number = %s", [LEFT])
    task = asked.details[MARKED]["task_instance"]
    body = {
        "dag_run_id": asked.run_id,
        "task_ids": [[task["task_id"], task["map_index"]]],
        "dry_run": False,
        "only_failed": False,
    }
    api.call("POST", "dags/review_intake/clearTaskInstances", body)

    def waits() -> bool:
        found = api.call("GET", asked.path(MARKED))
        return (found["state"], found["try_number"]) == ("awaiting_input", 2)

    until(waits, "the question is asked anew")
    return response(api, asked, MARKED)


def test_a_cleared_question_is_asked_anew_of_the_people_of_now(
    running: Running, asked: Asked, anew: dict[str, Any]
) -> None:
    """Airflow alone would show the question of before, to the people of before."""
    before = {one["id"] for one in asked.details[MARKED]["assigned_users"]}
    assert LEFT in before
    assert {one["id"] for one in anew["assigned_users"]} == before - {LEFT}
    assert (LEFT in asked.details[MARKED]["body"], LEFT in anew["body"]) == (True, False)
    assert patch(running.airflow.api_as(LEFT), asked.path(MARKED)) == 403
    first = f"{asked.path(MARKED)}/hitlDetails/tries/1"
    kept = running.airflow.api().call("GET", first)
    assert kept["body"] == asked.details[MARKED]["body"]  # as its history has it


@pytest.fixture(scope="module")
def sealed(
    running: Running,
    api: AirflowApi,
    asked: Asked,
    over_rest: dict[str, Any],
    in_browser: tuple[str, set[str]],
    anew: dict[str, Any],
) -> dict[str, Any]:
    """The run's evidence, after the administrator marked the last question as done."""
    del over_rest, in_browser, anew
    api.call("PATCH", asked.path(MARKED), {"new_state": "success"})
    done = running.ended(api, "review_intake", asked.run_id)
    assert (done.state, done.outcome) == ("success", "attention")
    assert running.verified()
    found = json.loads((Path(str(done.bundle)) / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def test_the_evidence_names_who_decided_on_what(asked: Asked, sealed: dict[str, Any]) -> None:
    """One approval for each answer that counted, and none of those whom Airflow refused."""
    approvals = {one["step"].rpartition("/")[2]: one for one in sealed["approvals"]}
    decisions = {batch: (one["decision"], one["decided_by"]) for batch, one in approvals.items()}
    assert decisions == {
        REST: ("Approve", REVIEWER),
        BROWSER: ("Approve", REVIEWER),
        TURNED_DOWN: ("Reject", REVIEWER),
    }
    assert len(sealed["approvals"]) == len(approvals)
    for batch, one in approvals.items():
        assert one["sha256"] in asked.details[batch]["body"]
    reasons = {
        one["part"].rpartition("/")[2]: one["data"].get("reason")
        for one in sealed["steps"]
        if one["step"] == "review"
    }
    assert reasons[TURNED_DOWN] == WORDS


def test_the_compliance_pages_have_the_new_bundle(
    running: Running, asked: Asked, browser: Browser, sealed: dict[str, Any]
) -> None:
    """Under Evidence, with the report that opens there."""
    token = str(running.airflow.api_as(REVIEWER).session.headers["Authorization"]).split()[1]
    with browser.new_context(locale="en") as context:
        context.set_default_timeout(LONGEST_WAIT)
        context.add_cookies([{"name": "_token", "value": token, "url": running.airflow.url}])
        page = context.new_page()
        page.goto(f"{running.airflow.url}/compliance/evidence?workflow=review_intake")
        row = page.get_by_role("row").filter(has_text=asked.run_id)
        expect(row).to_contain_text("Attention")
        row.get_by_role("link", name="Report").click()
        expect(page.locator("body")).to_contain_text(asked.run_id)
        assert page.url.endswith("/report")


def test_approved_batches_are_let_in_exactly_once(
    running: Running, asked: Asked, sealed: dict[str, Any]
) -> None:
    """Every record that breaks no rule of the two approved batches became one formal record."""
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
    assert running.customers() == asked.customers + 48


def test_a_question_marked_as_done_is_nobodys_answer(sealed: dict[str, Any]) -> None:
    """Airflow lets people who may edit runs do so; the batch waits on, and the report says so."""
    found = {
        one["code"] for one in sealed["findings"] if one["subject"].rpartition("/")[2] == MARKED
    }
    assert found == {"intake.waiting"}
    assert [
        (step["data"]["left"], step["data"]["promoted"])
        for step in sealed["steps"]
        if step["step"] == "settle" and step["part"].endswith(MARKED)
    ] == [(30, 0)]
