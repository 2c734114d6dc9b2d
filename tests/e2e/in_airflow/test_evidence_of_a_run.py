"""The log of the task `gate`, and the links from Airflow's pages to the evidence of a run."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from include.cli.report import RunResult
from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from tests.e2e.browsing import logged_in
from tests.e2e.running import RUNS, Running
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]
DAG = "check_quality"


@pytest.fixture(scope="module")
def failed(running: Running, api: AirflowApi) -> RunResult:
    """A quality check that fails, because the sample has deliberate violations."""
    return running.ended(api, DAG, api.trigger(DAG))


def gate(api: AirflowApi, run: RunResult) -> str:
    """Return the path of the run's task instance `gate` in the REST API."""
    return f"{RUNS.format(DAG)}/{quote(str(run.run_id), safe='')}/taskInstances/gate"


def test_log_of_gate_has_every_finding_and_the_page_of_the_bundle_but_no_traceback(
    running: Running, api: AirflowApi, failed: RunResult
) -> None:
    assert (failed.state, failed.outcome) == ("failed", "fail")
    task = api.call("GET", gate(api, failed))
    assert (task["state"], task["try_number"]) == ("failed", 1)
    lines: list[Any] = api.call("GET", f"{gate(api, failed)}/logs/1?full_content=true")["content"]
    log = json.dumps(lines, ensure_ascii=False)
    assert "Traceback" not in log
    assert not any(isinstance(line, dict) and line.get("error_detail") for line in lines)
    events = [str(line.get("event", "")) for line in lines if isinstance(line, dict)]
    findings = [event for event in events if " Action: " in event]
    assert len(findings) == failed.findings > 0
    assert all("\n" not in event for event in findings)
    (address,) = [event for event in events if event.startswith("Evidence: ")]
    page = address.removeprefix("Evidence: ")
    assert page.startswith(f"{running.airflow.url}/compliance/evidence/")
    assert events.index(address) > events.index(findings[-1])


def test_button_on_the_task_and_tab_on_the_run_show_the_page_of_the_bundle(
    running: Running, browser: Browser, failed: RunResult
) -> None:
    with logged_in(browser, running.airflow, ADMIN) as page:
        run = f"{running.airflow.url}/dags/{DAG}/runs/{quote(str(failed.run_id), safe='')}"
        page.goto(f"{run}/tasks/gate")
        page.get_by_role("link", name="Details", exact=True).click()
        page.get_by_role("link", name="Evidence", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Quality")
        expect(page.locator("body")).to_contain_text("Verified just now")
        page.goto(run)
        page.get_by_role("link", name="Evidence", exact=True).click()
        expect(page.frame_locator("iframe").locator("body")).to_contain_text("Verified just now")
