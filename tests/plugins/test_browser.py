"""The compliance pages in Chromium with a running API server, for every role.

The tests save screenshots in the folder TEST_SCREENSHOTS, if that variable is set.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
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
from tests.plugins.company import HOSTILE_FILE, NOW
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
    """Open every page of the navigation, and assert that the navigation has no other entries."""
    assert menu(visit.page).all_inner_texts() == headings
    for heading in headings:
        menu(visit.page).get_by_text(heading, exact=True).click()
        visit.see(heading, language)


DEPARTMENTS = [name for name in role_names() if name.startswith(DEPARTMENT)]
# The roles of departments differ only in the content of pages, which test_matrix.py checks.
WALKING = [name for name in role_names() if name not in DEPARTMENTS[1:]]


@pytest.mark.parametrize("role", WALKING)
def test_user_of_each_role_can_open_only_permitted_pages_in_both_languages(
    people: People, role: str
) -> None:
    """A page that the role may not open shows an error page with status 403."""
    pages = [path for path in PATHS if path in may_open(role)]
    english, chinese = [PATHS[page][1] for page in pages], [PATHS[page][2] for page in pages]
    with people.visit(role) as visit:
        visit.open("/")  # Airflow's navigation links here; some roles have no overview
        visit.see(english[0], "en")
        walk(visit, english, "en")
        visit.page.get_by_role("link", name="中文").click()
        visit.see(chinese[-1], "zh-CN")
        walk(visit, chinese, "zh-CN")
        visit.expected = 403
        refused = [PATHS[path][0] for path in PATHS if path not in pages and PATHS[path][0] != "/"]
        if refused:  # a single refused page; test_matrix.py covers the others
            visit.expected = 403
            assert visit.open(refused[0]).status == 403
            visit.see("您无权查看", "zh-CN")
            visit.page.get_by_role("link", name="返回首页").click()
            visit.see(chinese[0], "zh-CN")


@pytest.fixture(scope="module")
def inside(people: People) -> Iterator[tuple[Page, FrameLocator]]:
    """Open the compliance pages in Airflow's frame. Return Airflow's page and the frame."""
    with people.visit(OFFICER) as visit:
        visit.page.goto(people.pages_server.airflow.url)
        yield visit.page, compliance_pages(visit.page, "Overview")


def test_pages_open_inside_airflow_and_become_dark_if_airflow_is_in_dark_mode(
    inside: tuple[Page, FrameLocator],
) -> None:
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


def test_link_to_a_report_opens_a_new_tab_if_the_page_is_inside_airflow(
    people: People, inside: tuple[Page, FrameLocator]
) -> None:
    """Browsers refuse to show a PDF file inside Airflow's sandboxed frame."""
    page, pages = inside
    number = people.pages_server.company.newest("backup_offsite").seq
    pages.locator("header nav").get_by_role("link", name="Evidence").click()
    pages.locator(f'a[href="/compliance/evidence/{number}"]').click()
    with page.context.expect_page() as report:
        pages.get_by_role("link", name="English (HTML)").click()
    expect(report.value.get_by_role("heading", level=1)).to_have_text("Off-site backup")
    report.value.close()
    with page.context.expect_page() as tab_info:
        pages.get_by_role("link", name="中文（PDF）").click()
    tab = tab_info.value
    tab.wait_for_load_state()
    assert tab.url.endswith(f"/evidence/{number}/files/report.zh-CN.pdf")
    assert tab.evaluate("document.contentType") == "application/pdf"
    tab.close()
    expect(pages.get_by_role("heading", level=1)).to_contain_text("Off-site backup")


def test_downloaded_report_and_files_in_zip_equal_the_files_in_the_evidence_store(
    people: People,
) -> None:
    row = people.pages_server.company.newest("backup_offsite")
    folder = people.pages_server.company.root / "evidence" / row.bundle
    with people.visit(OFFICER) as visit:
        page = visit.page
        visit.open("/evidence?workflow=backup_offsite&outcome=pass")
        page.get_by_role("link", name="Off-site backup", exact=True).click()
        visit.see("Off-site backup Passed", "en")
        for link, language, title in (
            ("English (HTML)", "en", "Off-site"),
            ("中文（HTML）", "zh-CN", "异地备份"),
        ):
            name = f"report.{language}.html"
            with page.expect_response(f"**/files/{name}") as response:
                page.get_by_role("link", name=link).click()
            assert response.value.body() == (folder / name).read_bytes()
            visit.see(title, language)
            page.go_back()
            with page.expect_download() as download:
                page.get_by_role("link", name=f"Download {name}", exact=True).click()
            assert download.value.suggested_filename == name
            assert Path(download.value.path()).read_bytes() == (folder / name).read_bytes()
        with page.expect_download() as packed:
            page.get_by_role("link", name="All files in one (ZIP)").click()
        archive = zipfile.ZipFile(io.BytesIO(Path(packed.value.path()).read_bytes()))
    sealed = {f"{row.bundle}/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert {name: archive.read(name) for name in archive.namelist()} == sealed


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_officer_downloads_an_inspection_pack_that_its_own_page_accepts(
    people: People, tmp_path: Path, language: str
) -> None:
    """The page verify.html is opened from the disk.

    It says that the pack lacks the row of a workflow that Airflow does not know any more.
    """
    link, title, button = {
        "en": ("Inspection pack for an inspector", "Inspection pack", "Download"),
        "zh-CN": ("生成检查资料包", "检查资料包", "下载检查资料包"),
    }[language]
    with people.visit(OFFICER, language) as visit:
        page = visit.page
        visit.open("/evidence?clause=5.3")
        page.get_by_role("link", name=link).click()
        visit.see(title, language)
        assert page.locator("input[name=clause]:checked").get_attribute("value") == "5.3"
        page.locator("input[name=first_day]").fill(str(NOW.date() - timedelta(days=2)))
        page.locator("input[name=last_day]").fill(str(NOW.date() + timedelta(days=1)))
        picture(page, f"inspection-pack-{language}")
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        pack = tmp_path / download.value.suggested_filename
        download.value.save_as(pack)
    assert pack.name.startswith("inspection-pack-5.3-")
    with zipfile.ZipFile(pack) as archive:
        archive.extract("verify.html", tmp_path)
    context = people.browser.new_context(locale=language, offline=True)
    with context:
        verifier = context.new_page()
        verifier.goto((tmp_path / "verify.html").as_uri())
        verifier.locator("#archive").set_input_files(pack)
        expect(verifier.locator("#result")).to_have_attribute("data-verdict", "care")


def test_browser_runs_no_script_from_a_file_of_an_evidence_bundle(people: People) -> None:
    number = people.pages_server.company.newest("backup_offsite").seq
    with people.visit(OFFICER) as visit:
        visit.open(f"/evidence/{number}")
        visit.page.get_by_role("link", name=HOSTILE_FILE, exact=True).click()
        visit.page.wait_for_url("**/files/**")
        assert "<script>alert(1)</script>" in visit.page.content()
        refused = [
            complaint
            for complaint in visit.complaints
            if "'script-src'" in complaint or "sandboxed" in complaint
        ]
        assert refused, "the browser should have said that it ran nothing"
        assert visit.complaints == refused
        visit.complaints.clear()


def test_link_of_a_required_action_opens_the_answer_form_of_airflow(people: People) -> None:
    """After the answer, the page shows that no required action is open."""
    subject = ask(people.pages_server, "On Call", "answered")
    with people.visit("On Call") as visit:
        page = visit.page
        page.goto(f"{people.pages_server.airflow.url}/plugin/compliance/compliance/waiting")
        pages = page.frame_locator("iframe")
        expect(pages.get_by_text("Your required actions: 1.")).to_be_visible()
        picture(page, "waiting-in-airflow")
        pages.get_by_role("link", name=subject.replace("\u202e", "\\u202e"), exact=True).click()
        expect(page.get_by_role("button", name="general")).to_be_visible()
        assert len(page.frames) == 1
        assert press(page, "general") == 200
        pages = compliance_pages(page, "Your required actions")
        expect(pages.get_by_text("You have no required actions.")).to_be_visible()


def test_login_link_opens_the_login_page_in_the_whole_window_after_the_session_expired(
    people: People,
) -> None:
    """The frame shows an error page.

    The link of the error page must not open the login in the frame.
    """
    with people.visit(OFFICER, expected=401) as visit:
        page = visit.page
        page.goto(f"{people.pages_server.airflow.url}/plugin/compliance/compliance/clocks")
        pages = page.frame_locator("iframe")
        expect(pages.get_by_role("heading", level=1)).to_have_text("Time limits")
        page.context.clear_cookies()
        pages.locator("header nav").get_by_role("link", name="Legal holds").click()
        expect(pages.get_by_role("heading", level=1)).to_have_text(LOGGED_OUT)
        picture(page, "session-ended")
        pages.get_by_role("link", name="Log in to Airflow").click()
        expect(page.locator("input[name=password]")).to_be_visible()
        assert page.frames == [page.main_frame]
        assert "/auth/login" in page.url
        visit.open("/evidence")
        visit.see(LOGGED_OUT, "en")
