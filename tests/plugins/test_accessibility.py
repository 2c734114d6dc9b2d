"""Accessibility of the pages: keyboard, screen reader, dark mode, phone, print, and no scripts.

The tests save screenshots in the folder TEST_SCREENSHOTS, if that variable is set.
"""

from __future__ import annotations

import io
import unicodedata
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import DEFAULT_OPTIONS, Axe
from playwright.sync_api import Page, expect
from pypdf import PdfReader

from tests.plugins.browsing import EVERY_PAGE, OFFICER, PATHS, PHONE, People, named, picture
from tests.reports.test_browser import CHROMIUM

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install -y chromium"),
]
LANGUAGES = ("en", "zh-CN")
BRIGHT, DARK = "rgb(255, 255, 255)", "rgb(18, 22, 28)"
PAPER = {"width": 718, "height": 1000}  # A4 at 96 dots per inch, without margins
TALLEST = 400  # pixels of a table's row on a phone: a column of single letters is taller
BACKGROUND = "getComputedStyle(document.documentElement).backgroundColor"
ROWS = "[...document.querySelectorAll('tr')].map(one => one.offsetHeight)"
FOCUSED = """() => {
    const one = document.activeElement, style = getComputedStyle(one);
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    return [one.getAttribute('name') || one.textContent.trim(), seen];
}"""


COLOURS = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}


def violations(page: Page, options: dict[str, Any] | None = None) -> list[str]:
    """Return the serious and critical accessibility violations that axe-core finds on a page."""
    script = Axe().run(page, options=options or DEFAULT_OPTIONS)
    found: list[dict[str, Any]] = script.response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def listed_outcomes(page: Page) -> set[str]:
    """Return the outcomes that occur in the list of bundles on the page."""
    return {text.strip() for text in page.locator("tbody .outcome").all_inner_texts()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_have_no_serious_axe_violation(people: People, language: str) -> None:
    """The pages are checked in light and in dark mode."""
    with people.visit(OFFICER, language, expected=404) as visit:
        for path in EVERY_PAGE:
            visit.open(path)
            assert visit.page.locator("html").get_attribute("lang") == language
            picture(visit.page, f"{named(path)}.{language}.light")
            assert violations(visit.page) == [], path
            visit.page.emulate_media(color_scheme="dark")  # changes only colours
            assert visit.page.evaluate(BACKGROUND) == DARK
            picture(visit.page, f"{named(path)}.{language}.dark")
            assert violations(visit.page, COLOURS) == [], path
            visit.page.emulate_media(color_scheme="light")


def test_axe_check_detects_missing_labels_and_low_contrast(people: People) -> None:
    """The test proves that the check with axe-core can fail."""
    with people.visit(OFFICER) as visit:
        visit.open("/evidence")
        visit.page.evaluate(
            "document.querySelectorAll('label').forEach(one => one.replaceWith(one.lastChild))"
        )
        assert any(violation.startswith("select-name") for violation in violations(visit.page))
        visit.open("/holds")
        visit.page.evaluate("document.querySelector('main').style.color = '#ccc'")
        assert any(violation.startswith("color-contrast") for violation in violations(visit.page))


def test_pages_are_usable_by_keyboard(people: People) -> None:
    with people.visit(OFFICER) as visit:
        keys = visit.page.keyboard
        visit.open("/evidence")
        keys.press("Tab")
        expect(visit.page.get_by_role("link", name="Skip to the content")).to_be_in_viewport(
            ratio=1
        )
        keys.press("Enter")
        keys.press("Tab")
        assert visit.page.evaluate(FOCUSED) == ["workflow", True]
        visit.open("/evidence")
        order = []
        while "All bundles" not in order:
            keys.press("Tab")
            name, visited = visit.page.evaluate(FOCUSED)
            assert visited, f"nobody sees that the focus is on {name}"
            if name not in order:  # a date has three fields with one name
                order.append(name)
            assert len(order) < 30
        navigation = [heading for _path, heading, _chinese in PATHS.values()]
        form = ["workflow", "clause", "outcome", "since", "until", "order", "Show", "All bundles"]
        assert order == ["Skip to the content", *navigation, "中文", *form]


def test_enter_key_submits_the_filter_of_the_evidence_page(people: People) -> None:
    with people.visit(OFFICER) as visit:
        visit.open("/evidence")
        keys = visit.page.keyboard
        visit.page.get_by_label("Outcome").focus()
        keys.type("Failed")
        keys.press("Tab")
        with visit.page.expect_navigation():
            keys.press("Enter")
        assert "outcome=fail" in visit.page.url
        assert listed_outcomes(visit.page) == {"Failed"}


def test_pages_are_usable_without_javascript(people: People) -> None:
    with people.visit(OFFICER, expected=404, java_script_enabled=False) as visit:
        for path in EVERY_PAGE:
            visit.open(path)
            expect(visit.page.locator("main")).to_be_visible()
        visit.open("/evidence")
        visit.page.get_by_role("link", name="中文").click()
        visit.page.get_by_label("结果").select_option("fail")
        visit.page.get_by_role("button", name="查看").click()
        visit.see("证据", "zh-CN")
        assert listed_outcomes(visit.page) == {"未通过"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_fit_the_screen_width_of_a_phone(people: People, language: str) -> None:
    """Only tables may be wider than the screen and scroll horizontally."""
    with people.visit(OFFICER, language, expected=404, viewport=PHONE) as visit:
        for path in EVERY_PAGE:
            visit.open(path)
            picture(visit.page, f"{named(path)}.{language}.phone")
            assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
            assert max(visit.page.evaluate(ROWS), default=0) <= TALLEST, path
        visit.open("/evidence")
        region = visit.page.get_by_role("region")
        region.focus()
        visit.page.keyboard.press("End")
        visit.page.keyboard.press("ArrowRight")
        expect(region).to_be_focused()
        scrolled = "document.querySelector('.scroll').scrollLeft > 0"
        for _moment in range(100):  # wait_for_function needs eval, which the pages refuse
            if visit.page.evaluate(scrolled):
                break
            visit.page.wait_for_timeout(50)
        assert visit.page.evaluate(scrolled)


def test_printed_pages_show_all_table_rows_and_no_navigation(people: People) -> None:
    with people.visit(OFFICER, color_scheme="dark", viewport=PAPER) as visit:
        for path, heading, last in (
            ("/", "Overview", "Newest runs"),
            ("/evidence", "Evidence", "Number"),
            ("/findings", "Findings and actions", "Responsible"),
        ):
            visit.page.emulate_media(media="print")
            visit.open(path)
            expect(visit.page.locator("header")).to_be_hidden()
            expect(visit.page.locator("table")).to_contain_text(last)
            right = "document.querySelector('table').getBoundingClientRect().right"
            assert visit.page.evaluate(right) <= PAPER["width"], path
            picture(visit.page, f"{heading}.paper")
            printed = visit.page.pdf(format="A4", margin=dict.fromkeys(("left", "right"), "1cm"))
            texts = [page.extract_text().split() for page in PdfReader(io.BytesIO(printed)).pages]
            text = unicodedata.normalize(
                "NFKC", " ".join(fragment for page in texts for fragment in page)
            )  # ligatures as letters
            assert heading in text
            assert last in text
            assert "Restore points" not in text


def test_pages_use_the_theme_of_airflow_or_of_the_operating_system(people: People) -> None:
    with people.visit(OFFICER, expected=404) as visit:
        visit.open("/holds")
        for theme, system, background in (
            (None, "dark", DARK),
            (None, "light", BRIGHT),
            ("dark", "light", DARK),
            ("light", "dark", BRIGHT),
            ("system", "dark", DARK),
        ):
            visit.page.emulate_media(color_scheme=system)
            if theme is not None:
                visit.page.evaluate(f"localStorage.setItem('theme', '{theme}')")
            for path in ("/holds", "/nowhere"):
                visit.open(path)
                assert visit.page.evaluate(BACKGROUND) == background, (path, theme, system)
