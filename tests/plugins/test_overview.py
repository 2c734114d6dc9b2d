"""The overview of a past day, its pictures, and the page of a control."""

from __future__ import annotations

import re
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from include.evidence.compliance_history import end_of_day
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.orchestration.access.permissions import Page
from include.orchestration.access.roles import all_roles
from tests.plugins.browsing import CONTROL_PAGE, PAST_DAY
from tests.plugins.company import NOW, PACK, PAST, Company
from tests.plugins.pages_server import PagesServer
from tests.plugins.test_pages import OFFICER, ParsedPage

pytestmark = pytest.mark.airflow
ZONE = PACK.calendar.zone
STRIP = "This page shows the end of {day}."
COUNTS = re.compile(
    r"(\d+) of (\d+) controls passed; (\d+) need attention, (\d+) failed, (\d+) have no evidence"
)


def figures(page: str) -> dict[str, int]:
    """Return the numbers of the controls by outcome that a page states."""
    match = COUNTS.search(ParsedPage(page).text)
    assert match is not None
    names = ("passed", "total", "attention", "failed", "never")
    return dict(zip(names, map(int, match.groups()), strict=True))


def expected(day: date) -> dict[str, int]:
    """Return the numbers for a past day, computed from the list of sealed bundles."""
    moment = end_of_day(day, ZONE)
    begins = min(NOW - timedelta(weeks=weeks) for _name, weeks, _outcome in PAST)
    counts = {"passed": 0, "total": len(PACK.controls), "attention": 0, "failed": 0, "never": 0}
    for control in PACK.controls:
        span = control.cadence.span
        sealed = [
            (NOW - timedelta(weeks=weeks), outcome)
            for name, weeks, outcome in PAST
            if name == control.workflow and NOW - timedelta(weeks=weeks) <= moment
        ]
        if not sealed:
            counts["failed" if begins + span < moment else "never"] += 1
            continue
        at, outcome = max(sealed, key=lambda bundle: bundle[0])
        share = control.indicator.target.startswith(">=")
        met = (outcome is Outcome.FAIL) if share else (outcome is not Outcome.FAIL)
        grace = min(span / 12, timedelta(days=1))
        if moment > at + 2 * span or not met:
            counts["failed"] += 1
        elif moment > at + span + grace:
            counts["attention"] += 1
        else:
            counts["passed"] += 1
    return counts


@pytest.mark.parametrize("weeks", [31, 30, 15, 9, 8, 6, 1])
def test_overview_of_a_past_day_counts_only_evidence_sealed_by_then(
    pages_server: PagesServer, weeks: int
) -> None:
    day = (NOW - timedelta(weeks=weeks)).astimezone(ZONE).date()
    page = pages_server.get(OFFICER, f"/?asof={day}").text
    assert STRIP.format(day=day) in ParsedPage(page).text
    assert "Open incident" not in page
    assert "Due in the next 90 days" not in page
    assert "Your required actions:" not in page
    if weeks == 31:
        assert figures(page)["never"] == len(PACK.controls)
        assert "No evidence had been sealed by the end of this day." in page
    else:
        assert figures(page) == expected(day)


def test_overview_of_today_is_the_same_with_and_without_its_date(pages_server: PagesServer) -> None:
    today = pages_server.get(OFFICER, f"/?asof={NOW.astimezone(ZONE).date()}").text
    assert "This page shows the end of" not in today
    assert figures(today) == figures(pages_server.get(OFFICER, "/").text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2026-13-01", "is not a date"),
        ("20260101", "is not a date"),
        ("yesterday", "is not a date"),
        ("<b>", "is not a date"),
        ("9999-12-31", "is in the future"),
        ("1969-12-31", "is too early"),
        (str((NOW + timedelta(days=2)).date()), "is in the future"),
    ],
)
@pytest.mark.parametrize("path", ["/", CONTROL_PAGE])
def test_page_with_invalid_day_states_the_reason(
    pages_server: PagesServer, value: str, words: str, path: str
) -> None:
    got = pages_server.get(OFFICER, f"{path}?asof={value}")
    assert got.status_code == 400
    assert words in ParsedPage(got.text).text
    assert "<b>" not in got.text


def test_overview_shows_open_incident_only_to_readers_of_the_workflow(
    pages_server: PagesServer,
) -> None:
    shown = 0
    for role in all_roles(PACK):
        if Page.OVERVIEW not in role.pages:
            continue
        page = ParsedPage(pages_server.get(role.name, "/").text).text
        is_reader = "respond_to_incident" in role.reads
        assert (f"Open incident INC-{NOW.year}-0001" in page) is is_reader, role.name
        shown += is_reader
    assert shown


def test_overview_states_why_each_control_did_not_pass(pages_server: PagesServer) -> None:
    page = pages_server.get(OFFICER, "/").text
    text = ParsedPage(page).text
    assert "quality expectations that the records do not meet: 3; required: exactly 0" in text
    assert f'href="/compliance{CONTROL_PAGE}"' in page
    assert "Findings of the newest run of" in text
    counts = figures(page)
    items = re.findall(r'<li><svg class="icon (fail|attention)"', page.partition("shortfalls")[2])
    assert items.count("fail") >= counts["failed"]


def test_overview_draws_all_pictures_with_titles_and_stays_below_200_kib(
    pages_server: PagesServer,
) -> None:
    for language in ("en", "zh-CN"):
        page = pages_server.get(OFFICER, "/", language).text
        assert len(page.encode()) < 200 * 1024
        for name in ("shares", "weeks", "quarters", "open-findings"):
            assert f'<title id="{name}-title">' in page, name
            assert f'<desc id="{name}-desc">' in page, name
        assert "style=" not in page


def test_calendar_lists_holds_findings_and_incidents(pages_server: PagesServer) -> None:
    text = ParsedPage(pages_server.get(OFFICER, "/").text).text
    calendar = text.partition("Due in the next 90 days")[2].partition("Controls by clause")[0]
    for words in ("new evidence for", "corrective actions for 1", "review of 1 legal holds"):
        assert words in calendar, words
    assert f"INC-{NOW.year}-0001: " in calendar
    assert re.search(r"overdue, \d{4}-\d\d-\d\d: corrective actions for", calendar)
    assert (NOW.date() + timedelta(days=20)).isoformat() in calendar


def test_page_of_a_control_shows_definition_history_and_bundles(pages_server: PagesServer) -> None:
    page = pages_server.get(OFFICER, CONTROL_PAGE).text
    text = ParsedPage(page).text
    for words in ("Failing since", "exactly 0", "Required by", "Changes of the outcome"):
        assert words in text, words
    rows = [row for row in pages_server.company.rows() if row.dag_id == "check_quality"]
    for row in rows:
        assert f'href="/compliance/evidence/{row.seq}"' in page
    for name in ("outcomes", "values"):
        assert f'<title id="{name}-title">' in page, name


def test_page_of_a_control_with_one_result_has_no_chart(pages_server: PagesServer) -> None:
    page = pages_server.get(OFFICER, "/controls/audit.sampled").text
    assert "values-title" not in page
    assert "outcomes-title" not in page


@pytest.mark.parametrize("name", ["no.such", "%3Cscript%3E", "..%2f..", "a" * 101])
def test_page_of_an_unknown_control_does_not_exist(pages_server: PagesServer, name: str) -> None:
    assert pages_server.get(OFFICER, f"/controls/{name}").status_code in (400, 404)


def test_controls_that_left_the_policy_pack_are_named_for_past_days(pages_company: Company) -> None:
    from plugins.compliance_ui.overview import _removed_controls
    from plugins.compliance_ui.shown_day import ShownDay

    class Reader:
        def readable(self, dags: Any) -> frozenset[str]:
            return frozenset(dags)

    controls = [control for control in PACK.controls if control.id != "collect.accuracy"]
    services = cast(Any, SimpleNamespace(pack=SimpleNamespace(controls=controls)))
    shown = ShownDay(PAST_DAY, end_of_day(PAST_DAY, ZONE), is_past=True)
    with pages_company.state.connect() as conn:
        removed = _removed_controls(services, conn, cast(Any, Reader()), shown)
    assert [(item.id, item.clause) for item in removed] == [("collect.accuracy", "4.1")]
    newest: LedgerRow = removed[0].row
    assert newest.sealed_at <= shown.moment
    assert newest.dag_id == "check_quality"
