"""The pages as people use them: real Chromium, a real API server, every role by FAB's own form.

TEST_SCREENSHOTS names a folder for pictures of them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from include.orchestration.access.roles import DEPARTMENT
from tests.e2e.browsing import compliance_pages, press
from tests.plugins.browsing import (
    OFFICER,
    PATHS,
    People,
    Visit,
    ask,
    may_open,
    picture,
)
from tests.plugins.company import HOSTILE_FILE
from tests.reports.test_browser import CHROMIUM
from tests.support.fab import role_names

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]
LOGGED_OUT = "You are not logged in"


def menu(page: Page) -> Locator:
    return page.locator("header nav").get_by_role("link")


def walk(visit: Visit, headings: list[str], language: str) -> None:
    """Press every entry of the navigation, which has these and no others."""
    assert menu(visit.page).all_inner_texts() == headings
    for heading in headings:
        menu(visit.page).get_by_text(heading, exact=True).click()
        visit.see(heading, language)


DEPARTMENTS = [one for one in role_names() if one.startswith(DEPARTMENT)]
# Readers of departments differ in what stands on their pages alone, as test_matrix.py sees.
WALKING = [one for one in role_names() if one not in DEPARTMENTS[1:]]


@pytest.mark.parametrize("role", WALKING)
def test_each_role_walks_its_pages_in_both_languages(people: People, role: str) -> None:
    """By the navigation and by the switch; a page that is not theirs says so."""
    own = [one for one in PATHS if one in may_open(role)]
    english, chinese = [PATHS[one][1] for one in own], [PATHS[one][2] for one in own]
    with people.visit(role) as visit:
        visit.open("/")  # where Airflow's navigation leads; not everybody has an overview
        visit.see(english[0], "en")
        walk(visit, english, "en")
        visit.page.get_by_role("link", name="中文").click()
        visit.see(chinese[-1], "zh-CN")
        walk(visit, chinese, "zh-CN")
        visit.expected = 403
        refused = [PATHS[one][0] for one in PATHS if one not in own and PATHS[one][0] != "/"]
        if refused:  # one; the others answer the same, as test_matrix.py sees
            visit.expected = 403
            assert visit.open(refused[0]).status == 403
            visit.see("您无权查看", "zh-CN")
            visit.page.get_by_role("link", name="返回首页").click()
            visit.see(chinese[0], "zh-CN")


@pytest.fixture(scope="module")
def inside(people: People) -> Iterator[tuple[Page, FrameLocator]]:
    """Airflow's own page, where the navigation entry was pressed, and our pages in it."""
    with people.visit(OFFICER) as visit:
        visit.page.goto(people.shown.airflow.url)
        yield visit.page, compliance_pages(visit.page, "Overview")


def test_the_pages_are_an_entry_of_airflows_navigation(inside: tuple[Page, FrameLocator]) -> None:
    """There they open inside Airflow, and follow its choice of light or dark."""
    page, pages = inside
    for _path, heading, _chinese in PATHS.values():
        pages.locator("header nav").get_by_role("link", name=heading).click()
        expect(pages.get_by_role("heading", level=1)).to_have_text(heading)
    picture(page, "in-airflow")
    page.get_by_role("button", name="User").click()
    page.get_by_text("Appearance").hover()
    page.get_by_text("Dark Mode").click()
    pages.locator("header nav").get_by_role("link", name="Evidence").click()
    expect(pages.get_by_role("heading", level=1)).to_have_text("Evidence")
    expect(pages.locator("html")).to_have_attribute("data-theme", "dark")
    picture(page, "in-airflow-dark")


def test_in_airflow_reports_open_in_tabs_of_their_own(
    people: People, inside: tuple[Page, FrameLocator]
) -> None:
    """A browser refuses a PDF inside Airflow's frame, and a report has no navigation."""
    page, pages = inside
    number = people.shown.company.newest("backup_offsite").seq
    pages.locator("header nav").get_by_role("link", name="Evidence").click()
    pages.locator(f'a[href="/compliance/evidence/{number}"]').click()
    with page.context.expect_page() as report:
        pages.get_by_role("link", name="English (HTML)").click()
    expect(report.value.get_by_role("heading", level=1)).to_have_text("Off-site backup")
    report.value.close()
    with page.context.expect_page() as opened:
        pages.get_by_role("link", name="中文 (PDF)").click()
    tab = opened.value
    tab.wait_for_load_state()
    assert tab.url.endswith(f"/evidence/{number}/files/report.zh-CN.pdf")
    assert tab.evaluate("document.contentType") == "application/pdf"
    tab.close()
    expect(pages.get_by_role("heading", level=1)).to_contain_text("Off-site backup")


def test_a_report_is_read_and_taken_away_as_it_was_sealed(people: People) -> None:
    """In both languages, and all files of the bundle in one: byte for byte."""
    row = people.shown.company.newest("backup_offsite")
    folder = people.shown.company.root / "evidence" / row.bundle
    with people.visit(OFFICER) as visit:
        page = visit.page
        visit.open("/evidence?workflow=backup_offsite&outcome=pass")
        page.get_by_role("link", name="Off-site backup", exact=True).click()
        visit.see("Off-site backup Pass", "en")
        for link, language, title in (("English", "en", "Off-site"), ("中文", "zh-CN", "异地备份")):
            name = f"report.{language}.html"
            with page.expect_response(f"**/files/{name}") as shown:
                page.get_by_role("link", name=f"{link} (HTML)").click()
            assert shown.value.body() == (folder / name).read_bytes()
            visit.see(title, language)
            page.go_back()
            with page.expect_download() as taken:
                page.get_by_role("link", name=f"Download {name}", exact=True).click()
            assert taken.value.suggested_filename == name
            assert Path(taken.value.path()).read_bytes() == (folder / name).read_bytes()
        with page.expect_download() as packed:
            page.get_by_role("link", name="All files in one (ZIP)").click()
        whole = zipfile.ZipFile(io.BytesIO(Path(packed.value.path()).read_bytes()))
    sealed = {f"{row.bundle}/{one.name}": one.read_bytes() for one in folder.iterdir()}
    assert {name: whole.read(name) for name in whole.namelist()} == sealed


def test_a_hostile_file_of_a_bundle_runs_nothing(people: People) -> None:
    """Opened from the page of its bundle, which shows its name as it is."""
    number = people.shown.company.newest("backup_offsite").seq
    with people.visit(OFFICER) as visit:
        visit.open(f"/evidence/{number}")
        visit.page.get_by_role("link", name=HOSTILE_FILE, exact=True).click()
        visit.page.wait_for_url("**/files/**")
        assert "<script>alert(1)</script>" in visit.page.content()
        refused = [one for one in visit.complaints if "'script-src'" in one or "sandboxed" in one]
        assert refused, "the browser should have said that it ran nothing"
        assert visit.complaints == refused
        visit.complaints.clear()


def test_a_question_is_answered_where_the_page_leads(people: People) -> None:
    """Out of the frame to Airflow's own form, and back: then nothing waits."""
    subject = ask(people.shown, "On Call", "answered")
    with people.visit("On Call") as visit:
        page = visit.page
        page.goto(f"{people.shown.airflow.url}/plugin/compliance/compliance/waiting")
        pages = page.frame_locator("iframe")
        expect(pages.get_by_text("Questions that wait for your answer: 1.")).to_be_visible()
        picture(page, "waiting-in-airflow")
        pages.get_by_role("link", name=subject.replace("\u202e", "\\u202e"), exact=True).click()
        expect(page.get_by_role("button", name="general")).to_be_visible()
        assert len(page.frames) == 1
        assert press(page, "general") == 200
        pages = compliance_pages(page, "Waiting for you")
        expect(pages.get_by_text("Nothing waits for you.")).to_be_visible()


def test_a_session_that_ends_is_said_to_have_ended(people: People) -> None:
    """On the next page; the link leads the whole window to the log-in, not the frame."""
    with people.visit(OFFICER, expected=401) as visit:
        page = visit.page
        page.goto(f"{people.shown.airflow.url}/plugin/compliance/compliance/clocks")
        pages = page.frame_locator("iframe")
        expect(pages.get_by_role("heading", level=1)).to_have_text("Clocks")
        page.context.clear_cookies()
        pages.locator("header nav").get_by_role("link", name="Holds").click()
        expect(pages.get_by_role("heading", level=1)).to_have_text(LOGGED_OUT)
        picture(page, "session-ended")
        pages.get_by_role("link", name="Log in to Airflow").click()
        expect(page.locator("input[name=password]")).to_be_visible()
        assert page.frames == [page.main_frame]
        assert "/auth/login" in page.url
        visit.open("/evidence")
        visit.see(LOGGED_OUT, "en")
