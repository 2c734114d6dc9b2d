"""An audit by samples in a running Airflow: the seed over REST and in the browser.

The first seed is refused, since it was known before the commitment; the second is entered in the
browser, where the page says why it is asked for again.
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
    """Enter a seed over REST and return the status."""
    given = {"seed": "2718.28", "source": SOURCE, "published_at": published}
    return patch(api, path, "Enter", **given)


def details(api: AirflowApi, run_id: str) -> dict[str, dict[str, Any]]:
    """The questions of a run by task."""
    path = f"{RUNS.format(DAG)}/{quote(run_id, safe='')}/hitlDetails"
    return {one["task_instance"]["task_id"]: one for one in api.call("GET", path)["hitl_details"]}


def waits(api: AirflowApi, task: str) -> bool:
    """Whether a task waits for an answer."""
    return [one.task_id for one in api.questions(DAG)] == [task]


def asked_again(api: AirflowApi, run_id: str) -> bool:
    """Whether the task waits for an answer to another question than its first."""
    return waits(api, "seed") and "another seed" in details(api, run_id)["seed"]["subject"]


@dataclass(frozen=True)
class Entered:
    """A run whose seed was refused once and entered in the browser then.

    Attributes:
        said: what Airflow answered over REST, by who tried.
        auditor: who answered both times.
        shown: text of the page on which the seed was asked for again.
        first: the first question.
        pressed: what Airflow answered to the browser, and to a second answer over REST.
        done: the run's end.
    """

    said: dict[str, int]
    auditor: str
    shown: str
    first: dict[str, Any]
    pressed: tuple[int, int]
    done: RunResult


@pytest.fixture(scope="module")
def entered(running: Running, api: AirflowApi, browser: Browser) -> Entered:
    """The run, begun over REST; at the right time of the year the schedule has begun it before."""
    begun = api.call("GET", RUNS.format(DAG))["dag_runs"]
    run_id = begun[0]["dag_run_id"] if begun else api.trigger(DAG)
    until(lambda: waits(api, "seed"), "the seed is asked for", 120)
    since = time.monotonic()
    first = details(api, run_id)["seed"]
    path = path_of(first["task_instance"])
    auditor = str(first["assigned_users"][0]["id"])
    early = (running.place.clock.now() - timedelta(hours=1)).isoformat()
    time.sleep(max(0.0, since + PATIENCE - time.monotonic()))
    said = {"without log-in": answer(AirflowApi(api.url, requests.Session()), path, early)}
    for user in (ADMIN, ENTERER, REVIEWER, auditor):
        said[user] = answer(running.airflow.api_as(user), path, early)
    until(lambda: asked_again(api, run_id), "the seed is asked for again")
    time.sleep(PATIENCE)
    with logged_in(browser, running.airflow, auditor) as page:
        page.get_by_role("button", name="Browse").click()
        page.get_by_role("menuitem", name="Required Actions").click()
        page.get_by_role("link", name=re.compile("enter another seed")).click()
        expect(page.get_by_role("button", name="Enter")).to_be_visible()
        shown = page.locator("body").inner_text()
        page.locator("input[name=element_seed]").fill(SEED)
        page.locator("input[name=element_source]").fill(SOURCE)
        page.locator("input[name=element_published_at]").fill(SystemClock().now().isoformat())
        status = press(page, "Enter")
    again = path_of(details(api, run_id)["seed"]["task_instance"])
    pressed = (status, answer(running.airflow.api_as(auditor), again, early))
    return Entered(said, auditor, shown, first, pressed, running.ended(api, DAG, run_id))


def sealed(done: RunResult) -> dict[str, Any]:
    """What a run sealed."""
    found = json.loads((Path(str(done.bundle)) / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def test_only_an_auditor_may_enter_the_seed_and_once(entered: Entered) -> None:
    """Neither the administrator nor people with other tasks."""
    assert entered.said == {
        "without log-in": 401,
        ADMIN: 403,
        ENTERER: 403,
        REVIEWER: 403,
        entered.auditor: 200,
    }
    assert entered.pressed == (200, 409)


def test_a_seed_that_was_known_before_the_commitment_is_asked_for_again(entered: Entered) -> None:
    """The page says why, in both languages; the first one did not."""
    for words in ("was known before the commitment was sealed", "种子"):
        assert words in entered.shown
    assert "was refused" in entered.shown
    assert "未被接受" in entered.shown
    assert "was refused" not in entered.first["body"]


def test_the_auditor_sees_the_commitment_before_the_seed(entered: Entered) -> None:
    """Its SHA-256 in both languages, rates and sizes; as a page and not as Markdown."""
    content = (Path(str(entered.done.bundle)) / "commitment.json").read_bytes()

    assert entered.shown.count(hashlib.sha256(content).hexdigest()) == 2
    for words in (
        "Openings of customer records",
        "客户信息查阅记录",
        "SSE Composite",
        "上证综合指数",
    ):
        assert words in entered.shown
    for mark in ("###", "---", "| "):
        assert mark not in entered.shown


def test_what_the_auditor_entered_in_the_browser_draws(running: Running, entered: Entered) -> None:
    """Sealed with who entered it; the refused seed turns the run to attention, not to red."""
    assert (entered.done.state, entered.done.outcome) == ("success", "attention")
    seed = json.loads((Path(str(entered.done.bundle)) / "seed.json").read_text())
    assert (seed["seed"], seed["source"], seed["entered_by"]) == (SEED, SOURCE, entered.auditor)
    codes = [one["code"] for one in sealed(entered.done)["findings"]]
    assert "sampling.seeds_refused" in codes
    assert running.verified()


@pytest.fixture(scope="module")
def afterwards(running: Running, api: AirflowApi, entered: Entered) -> dict[str, RunResult]:
    """A second draw of the quarter, and the conclusion on its workpapers, side by side."""
    quarter = json.loads((Path(str(entered.done.bundle)) / "commitment.json").read_text())["audit"]
    with running.place.state.begin() as conn:
        (papers,) = issue.all_issued(conn, quarter)
        book = (Path(str(entered.done.bundle)) / "workpapers.xlsx").read_bytes()
        now = running.place.clock.now()
        zone = running.place.pack.calendar.zone
        people = PEOPLE | {form.PERFORMED_ON: now.astimezone(zone).date()}
        filled = edited(book, lambda made: fill(made, papers.workpapers, people=people))
        issue.hand_in(conn, filled, "workpapers.xlsx", by=entered.auditor, at=now)
    runs = {name: api.trigger(name, {"quarter": quarter}) for name in (DAG, "conclude_audit")}
    return {name: running.ended(api, name, run_id) for name, run_id in runs.items()}


def test_a_second_run_for_the_quarter_asks_nobody(
    api: AirflowApi, afterwards: dict[str, RunResult]
) -> None:
    """It is not red, draws nothing, and names the run whose samples stand."""
    done = afterwards[DAG]
    assert (done.state, done.outcome) == ("success", "attention")
    assert details(api, str(done.run_id)) == {}
    codes = {one["code"] for one in sealed(done)["findings"]}
    assert "sampling.drawn_before" in codes
    assert not (Path(str(done.bundle)) / "seed.json").exists()


def test_a_conclusion_over_rest_is_sealed(
    running: Running, afterwards: dict[str, RunResult]
) -> None:
    """Every population of the quarter is judged on the workpapers that were handed in."""
    done = afterwards["conclude_audit"]
    assert (done.state, done.outcome) == ("success", "pass")
    (step,) = [one["data"] for one in sealed(done)["steps"] if one["step"] == "evaluate"]
    assert {one["decision"] for one in step["verdicts"]} == {"accepted"}
    assert running.verified()
