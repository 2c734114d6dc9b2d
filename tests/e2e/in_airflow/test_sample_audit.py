"""Tests of an audit by samples in a running Airflow: the random seed over REST and in the browser.

The first seed is refused, because it was published before the commitment. The second seed is
entered in the browser, where the page shows why another seed is requested.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Browser, expect

from include.cli.answers import PATIENCE
from include.cli.report import RunResult
from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from include.sampling import issue
from include.sampling.workpapers import form
from include.services.clock import SystemClock
from tests.e2e.browsing import logged_in, press
from tests.e2e.in_airflow.conftest import ENTERER, REVIEWER
from tests.e2e.running import RUNS, Running, patch, path_of, until
from tests.reports.test_browser import CHROMIUM
from tests.sampling.workpapers.support import PEOPLE, edited, fill

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]

DAG = "sample_audit"
SEED, SOURCE = "3127.44", "sse.com.cn, 上证指数"


def answer(api: AirflowApi, path: str, published: str) -> int:
    """Enter a seed over REST, and return the HTTP status."""
    fields = {"seed": "2718.28", "source": SOURCE, "published_at": published}
    return patch(api, path, "Enter", **fields)


def details(api: AirflowApi, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the required actions of a run, by task id."""
    path = f"{RUNS.format(DAG)}/{quote(run_id, safe='')}/hitlDetails"
    return {
        detail["task_instance"]["task_id"]: detail
        for detail in api.call("GET", path)["hitl_details"]
    }


def waits(api: AirflowApi, task: str) -> bool:
    """Return whether only the given task waits for an answer."""
    return [action.task_id for action in api.required_actions(DAG)] == [task]


def asked_again(api: AirflowApi, run_id: str) -> bool:
    """Return whether the task `seed` waits for an answer to its second request."""
    return waits(api, "seed") and "another random seed" in details(api, run_id)["seed"]["subject"]


@dataclass(frozen=True)
class Entered:
    """A run whose first seed was refused, and whose second seed was entered in the browser.

    Attributes:
        statuses: HTTP status of each user's answer over REST.
        auditor: user id of the auditor who entered both seeds.
        page_text: text of the page that requested the second seed.
        first: the first request.
        pressed: HTTP statuses of the answer in the browser and of a later answer over REST.
        run_result: result of the run.
    """

    statuses: dict[str, int]
    auditor: str
    page_text: str
    first: dict[str, Any]
    pressed: tuple[int, int]
    run_result: RunResult


@pytest.fixture(scope="module")
def entered(running: Running, api: AirflowApi, browser: Browser) -> Entered:
    """The run, triggered over REST unless the schedule has already triggered it."""
    begun = api.call("GET", RUNS.format(DAG))["dag_runs"]
    run_id = begun[0]["dag_run_id"] if begun else api.trigger(DAG)
    until(lambda: waits(api, "seed"), "the seed is asked for", 120)
    since = time.monotonic()
    first = details(api, run_id)["seed"]
    path = path_of(first["task_instance"])
    auditor = str(first["assigned_users"][0]["id"])
    early = (running.services.clock.now() - timedelta(hours=1)).isoformat()
    time.sleep(max(0.0, since + PATIENCE - time.monotonic()))
    statuses = {"without log-in": answer(AirflowApi(api.url, requests.Session()), path, early)}
    for user in (ADMIN, ENTERER, REVIEWER, auditor):
        statuses[user] = answer(running.airflow.api_as(user), path, early)
    until(lambda: asked_again(api, run_id), "the seed is asked for again")
    time.sleep(PATIENCE)
    with logged_in(browser, running.airflow, auditor) as page:
        page.get_by_role("button", name="Browse").click()
        page.get_by_role("menuitem", name="Required Actions").click()
        page.get_by_role("link", name=re.compile("Enter another random seed")).click()
        expect(page.get_by_role("button", name="Enter")).to_be_visible()
        page_text = page.locator("body").inner_text()
        page.locator("input[name=element_seed]").fill(SEED)
        page.locator("input[name=element_source]").fill(SOURCE)
        page.locator("input[name=element_published_at]").fill(SystemClock().now().isoformat())
        status = press(page, "Enter")
    again = path_of(details(api, run_id)["seed"]["task_instance"])
    pressed = (status, answer(running.airflow.api_as(auditor), again, early))
    return Entered(statuses, auditor, page_text, first, pressed, running.ended(api, DAG, run_id))


def sealed(run_result: RunResult) -> dict[str, Any]:
    """Return the sealed result of a run."""
    result = json.loads((Path(str(run_result.bundle)) / "result.json").read_text())
    assert isinstance(result, dict)
    return result


def test_only_an_auditor_can_enter_the_random_seed_and_a_second_answer_gets_status_409(
    entered: Entered,
) -> None:
    """The administrator and users with other roles are refused."""
    assert entered.statuses == {
        "without log-in": 401,
        ADMIN: 403,
        ENTERER: 403,
        REVIEWER: 403,
        entered.auditor: 200,
    }
    assert entered.pressed == (200, 409)


def test_form_asks_for_another_random_seed_if_the_seed_was_published_before_the_commitment(
    entered: Entered,
) -> None:
    """The second form shows the reason of the refusal in both languages."""
    for words in ("was published before the commitment was sealed", "种子"):
        assert words in entered.page_text
    assert "was refused" in entered.page_text
    assert "未予采用" in entered.page_text
    assert "was refused" not in entered.first["body"]


def test_random_seed_form_shows_the_digest_of_the_sampling_commitment_in_both_languages(
    entered: Entered,
) -> None:
    """The form shows the commitment's SHA-256, rates and sizes in both languages.

    Airflow renders the form's Markdown.
    """
    content = (Path(str(entered.run_result.bundle)) / "commitment.json").read_bytes()

    assert entered.page_text.count(hashlib.sha256(content).hexdigest()) == 2
    for words in (
        "Accesses to customer records",
        "客户信息查阅记录",
        "SSE Composite",
        "上证综合指数",
    ):
        assert words in entered.page_text
    for mark in ("###", "---", "| "):
        assert mark not in entered.page_text


def test_evidence_bundle_contains_the_random_seed_that_the_auditor_entered_in_the_browser(
    running: Running, entered: Entered
) -> None:
    """The bundle names the auditor.

    Because of the refused seed, the outcome is "needs attention".
    """
    assert (entered.run_result.state, entered.run_result.outcome) == ("success", "attention")
    seed = json.loads((Path(str(entered.run_result.bundle)) / "seed.json").read_text())
    assert (seed["seed"], seed["source"], seed["entered_by"]) == (SEED, SOURCE, entered.auditor)
    codes = [finding["code"] for finding in sealed(entered.run_result)["findings"]]
    assert "sampling.seeds_refused" in codes
    assert running.verified()


@pytest.fixture(scope="module")
def afterwards(running: Running, api: AirflowApi, entered: Entered) -> dict[str, RunResult]:
    """The results of a second run of `sample_audit`, and of `conclude_audit` at the same time."""
    quarter = json.loads((Path(str(entered.run_result.bundle)) / "commitment.json").read_text())[
        "audit"
    ]
    with running.services.state.begin() as conn:
        (papers,) = issue.all_issued(conn, quarter)
        book = (Path(str(entered.run_result.bundle)) / "workpapers.xlsx").read_bytes()
        now = running.services.clock.now()
        zone = running.services.pack.calendar.zone
        people = PEOPLE | {form.PERFORMED_ON: now.astimezone(zone).date()}
        filled = edited(book, lambda workbook: fill(workbook, papers.workpapers, people=people))
        issue.hand_in(conn, filled, "workpapers.xlsx", by=entered.auditor, at=now)
    runs = {name: api.trigger(name, {"quarter": quarter}) for name in (DAG, "conclude_audit")}
    return {name: running.ended(api, name, run_id) for name, run_id in runs.items()}


def test_second_audit_run_for_a_quarter_asks_for_no_seed(
    api: AirflowApi, afterwards: dict[str, RunResult]
) -> None:
    """The second run succeeds, draws no sample, and names the run that drew one."""
    run_result = afterwards[DAG]
    assert (run_result.state, run_result.outcome) == ("success", "attention")
    assert details(api, str(run_result.run_id)) == {}
    codes = {finding["code"] for finding in sealed(run_result)["findings"]}
    assert "sampling.drawn_before" in codes
    assert not (Path(str(run_result.bundle)) / "seed.json").exists()


def test_conclude_audit_run_started_over_rest_api_is_sealed(
    running: Running, afterwards: dict[str, RunResult]
) -> None:
    """Every population of the quarter is evaluated with the submitted workpapers."""
    run_result = afterwards["conclude_audit"]
    assert (run_result.state, run_result.outcome) == ("success", "pass")
    (step,) = [step["data"] for step in sealed(run_result)["steps"] if step["step"] == "evaluate"]
    assert {verdict["decision"] for verdict in step["verdicts"]} == {"accepted"}
    assert running.verified()
