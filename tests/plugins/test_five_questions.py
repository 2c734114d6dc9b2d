"""A compliance officer finds five answers with at most three clicks from the overview."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from plugins.compliance_ui.shown_day import last_quarter
from tests.plugins.browsing import OFFICER, People, picture
from tests.plugins.company import NOW

pytestmark = pytest.mark.airflow
MOST_CLICKS = 3
QUARTER = last_quarter(NOW.date())


class Clicks:
    """Clicks on a page, and counts the clicks."""

    def __init__(self) -> None:
        self.count = 0

    def on(self, target: Locator) -> None:
        """Click on the first element that a locator matches."""
        self.count += 1
        target.first.click()


def compliant_today(page: Page, clicks: Clicks, folder: Path) -> None:
    expect(page.get_by_role("status").first).to_contain_text("controls passed")


def what_is_not_and_why(page: Page, clicks: Clicks, folder: Path) -> None:
    reasons = page.locator(".shortfalls li")
    assert reasons.count() > 0
    clicks.on(reasons.get_by_role("link", name=re.compile("^Evidence")))
    expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile("."))
    expect(page.locator("#findings")).to_have_count(1)


def who_must_do_what_by_when(page: Page, clicks: Clicks, folder: Path) -> None:
    clicks.on(page.get_by_role("link", name="Findings and actions", exact=True))
    head = page.locator("table thead")
    for column in ("Item", "Responsible", "Due", "State"):
        expect(head).to_contain_text(column)
    expect(page.locator("tbody tr").first).to_contain_text("overdue")


def how_was_last_quarter(page: Page, clicks: Clicks, folder: Path) -> None:
    clicks.on(page.get_by_role("link", name="Overview at the end of the last quarter"))
    expect(page.locator("main")).to_contain_text(f"This page shows the end of {QUARTER[1]}.")
    expect(page.get_by_role("status").first).to_be_visible()


def prove_a_clause_to_an_inspector(page: Page, clicks: Clicks, folder: Path) -> None:
    clicks.on(page.get_by_role("link", name="Inspection pack for an inspector"))
    clicks.on(page.get_by_role("checkbox", name=re.compile(r"^5\.3")))
    for label, day in (("First day", QUARTER[0]), ("Last day", QUARTER[1])):
        expect(page.get_by_label(label)).to_have_value(day.isoformat())
    with page.expect_download() as download:
        clicks.on(page.get_by_role("button", name="Download the inspection pack"))
    pack = folder / "pack.zip"
    download.value.save_as(pack)
    with zipfile.ZipFile(pack) as archive:
        assert any(name.endswith("verify.html") for name in archive.namelist())


@pytest.mark.parametrize(
    "answer",
    [
        compliant_today,
        what_is_not_and_why,
        who_must_do_what_by_when,
        how_was_last_quarter,
        prove_a_clause_to_an_inspector,
    ],
)
def test_question_is_answered_with_at_most_three_clicks_from_the_overview(
    people: People, tmp_path: Path, answer: Callable[[Page, Clicks, Path], None]
) -> None:
    with people.visit(OFFICER) as visit:
        visit.open("/")
        clicks = Clicks()
        answer(visit.page, clicks, tmp_path)
        assert clicks.count <= MOST_CLICKS
        picture(visit.page, f"question-{answer.__name__}")


@pytest.mark.parametrize(
    ("today", "quarter"),
    [
        (date(2026, 1, 1), (date(2025, 10, 1), date(2025, 12, 31))),
        (date(2026, 3, 31), (date(2025, 10, 1), date(2025, 12, 31))),
        (date(2026, 12, 1), (date(2026, 7, 1), date(2026, 9, 30))),
        (date(2024, 6, 30), (date(2024, 1, 1), date(2024, 3, 31))),
    ],
)
def test_last_quarter_is_the_complete_quarter_before_the_day(
    today: date, quarter: tuple[date, date]
) -> None:
    assert last_quarter(today) == quarter
