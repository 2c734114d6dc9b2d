"""Airflow's API for triggers refuses wrong parameters before a run exists."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import Browser, expect

from include.services.clock import SystemClock
from tests.plugins.pages_server import PagesServer
from tests.reports.test_browser import CHROMIUM
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
RUNS = "api/v2/dags/enforce_retention/dagRuns"
IN_TWO_DAYS = f"{SystemClock().now().date() + timedelta(days=2)}"


@pytest.mark.parametrize("as_of", ["tomorrow", "2026-02-30", "2026-01-31T03:30:00", IN_TWO_DAYS])
def test_trigger_request_with_invalid_as_of_date_gets_status_400_or_422_and_creates_no_run(
    pages_server: PagesServer, as_of: str
) -> None:
    session, url = pages_server.airflow.session(ADMIN), f"{pages_server.airflow.url}/{RUNS}"
    before = session.get(url, timeout=120).json()["total_entries"]
    body = {"logical_date": None, "conf": {"as_of": as_of}}
    answer = session.post(url, json=body, timeout=120)
    assert answer.status_code in {400, 422}, answer.text
    assert session.get(url, timeout=120).json()["total_entries"] == before


def test_trigger_request_with_as_of_date_in_the_past_creates_a_run(
    pages_server: PagesServer,
) -> None:
    url = f"{pages_server.airflow.url}/{RUNS}"
    body = {"logical_date": None, "conf": {"as_of": "2026-01-31"}}
    answer = pages_server.airflow.session(ADMIN).post(url, json=body, timeout=120)
    assert answer.ok, answer.text
    run_id = answer.json()["dag_run_id"]
    assert pages_server.airflow.session(ADMIN).delete(f"{url}/{run_id}", timeout=120).ok


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("backup_offsite", {"databases": ["nope"]}),
        ("drill_restore", {"choose": "oldest"}),
        ("check_quality", {"full": "perhaps"}),
        ("sample_audit", {"quarter": "2099Q1"}),
        ("conclude_audit", {"quarter": "2099Q1"}),
        ("respond_to_incident", {"type": "flood", "what": "Water."}),
        (
            "respond_to_incident",
            {"type": "lost_device", "what": "x", "aware_at": "2099-01-01T00:00Z"},
        ),
        ("update_incident", {"incident": "INC-2026-0001", "words": "x", "entry": 0}),
        ("update_incident", {"incident": "the first one", "words": "x"}),
    ],
)
def test_trigger_request_with_a_wrong_value_creates_no_run_of_any_workflow(
    pages_server: PagesServer, dag_id: str, conf: dict[str, object]
) -> None:
    session = pages_server.airflow.session(ADMIN)
    url = f"{pages_server.airflow.url}/api/v2/dags/{dag_id}/dagRuns"
    before = session.get(url, timeout=120).json()["total_entries"]
    answer = session.post(url, json={"logical_date": None, "conf": conf}, timeout=120)
    assert answer.status_code in {400, 422}, answer.text
    assert session.get(url, timeout=120).json()["total_entries"] == before


def test_trigger_request_of_a_drill_may_omit_type_and_description(
    pages_server: PagesServer,
) -> None:
    session = pages_server.airflow.session(ADMIN)
    url = f"{pages_server.airflow.url}/api/v2/dags/respond_to_incident/dagRuns"
    body = {"logical_date": None, "conf": {"tabletop": "scanner_lost"}}
    answer = session.post(url, json=body, timeout=120)
    assert answer.ok, answer.text
    assert session.delete(f"{url}/{answer.json()['dag_run_id']}", timeout=120).ok


@pytest.mark.chromium
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium")
def test_page_requires_a_type_and_a_description_before_an_incident_can_be_triggered(
    pages_server: PagesServer, browser: Browser
) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, locale="en")
    with context:
        page = context.new_page()
        context.add_cookies([
            {"name": name, "value": value, "url": pages_server.airflow.url}
            for name, value in pages_server.airflow.cookies(ADMIN).items()
        ])  # fmt: skip
        page.goto(f"{pages_server.airflow.url}/dags/respond_to_incident")
        page.get_by_role("button", name="Trigger Dag").click()
        form = page.get_by_role("dialog")
        trigger = form.get_by_role("button", name="Trigger", exact=True)
        expect(trigger).to_be_disabled()
        form.get_by_role("button", name="1. Incident").click()
        type_field = form.locator("#element_type [role=combobox]")
        expect(type_field).to_be_visible()
        expect(trigger).to_be_disabled()
        form.locator("[name=element_what]").fill("A scanner was left in a taxi.")
        expect(trigger).to_be_disabled()
        type_field.click()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(trigger).to_be_enabled()
