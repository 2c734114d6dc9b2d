"""The pages for everybody: by keyboard, by ear, in the dark, on a phone, on paper, scriptless.

The pictures of every page, language and theme are kept as test_browser.py says.
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
    """Tell what axe-core calls serious or critical, with the element."""
    done = Axe().run(page, options=options or DEFAULT_OPTIONS)
    found: list[dict[str, Any]] = done.response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def outcomes(page: Page) -> set[str]:
    """Those of the list of bundles."""
    return {one.strip() for one in page.locator("tbody .outcome").all_inner_texts()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_shuts_anybody_out(people: People, language: str) -> None:
    """By axe-core, in light and in dark: every page, a bundle, an error, in their language."""
    with people.visit(OFFICER, language, expected=404) as visit:
        for path in EVERY_PAGE:
            visit.open(path)
            assert visit.page.locator("html").get_attribute("lang") == language
            picture(visit.page, f"{named(path)}.{language}.light")
            assert violations(visit.page) == [], path
            visit.page.emulate_media(color_scheme="dark")  # which changes colours and nothing else
            assert visit.page.evaluate(BACKGROUND) == DARK
            picture(visit.page, f"{named(path)}.{language}.dark")
            assert violations(visit.page, COLOURS) == [], path
            visit.page.emulate_media(color_scheme="light")


def test_the_check_sees_what_shuts_people_out(people: People) -> None:
    """Proves that the test above can fail: a page without labels, and one too pale to be read."""
    with people.visit(OFFICER) as visit:
        visit.open("/evidence")
        visit.page.evaluate(
            "document.querySelectorAll('label').forEach(one => one.replaceWith(one.lastChild))"
        )
        assert any(one.startswith("select-name") for one in violations(visit.page))
        visit.open("/holds")
        visit.page.evaluate("document.querySelector('main').style.color = '#ccc'")
        assert any(one.startswith("color-contrast") for one in violations(visit.page))


def test_the_keyboard_alone_is_enough(people: People) -> None:
    """A way past the navigation, everything in the order of the page, and in sight."""
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
            name, seen = visit.page.evaluate(FOCUSED)
            assert seen, f"nobody sees that the focus is on {name}"
            if name not in order:  # a date has a day, a month and a year
                order.append(name)
            assert len(order) < 30
        navigation = [heading for _path, heading, _chinese in PATHS.values()]
        form = ["workflow", "clause", "outcome", "since", "until", "order", "Show", "All bundles"]
        assert order == ["Skip to the content", *navigation, "中文", *form]


def test_the_filter_is_sent_by_enter(people: People) -> None:
    """An outcome chosen by its letter, and Enter in a field of the form."""
    with people.visit(OFFICER) as visit:
        visit.open("/evidence")
        keys = visit.page.keyboard
        visit.page.get_by_label("Outcome").focus()
        keys.type("Fail")
        keys.press("Tab")
        with visit.page.expect_navigation():
            keys.press("Enter")
        assert "outcome=fail" in visit.page.url
        assert outcomes(visit.page) == {"Fail"}


def test_no_page_needs_a_script(people: People) -> None:
    """Reading, switching the language, filtering."""
    with people.visit(OFFICER, expected=404, java_script_enabled=False) as visit:
        for path in EVERY_PAGE:
            visit.open(path)
            expect(visit.page.locator("main")).to_be_visible()
        visit.open("/evidence")
        visit.page.get_by_role("link", name="中文").click()
        visit.page.get_by_label("结果").select_option("fail")
        visit.page.get_by_role("button", name="查看").click()
        visit.see("证据", "zh-CN")
        assert outcomes(visit.page) == {"未通过"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phone_shows_every_page(people: People, language: str) -> None:
    """Nothing scrolls sideways but a table in its place, and no column is squeezed to letters."""
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
        for _moment in range(100):  # no wait_for_function: the pages let nobody evaluate texts
            if visit.page.evaluate(scrolled):
                break
            visit.page.wait_for_timeout(50)
        assert visit.page.evaluate(scrolled)


def test_paper_has_the_table_and_no_navigation(people: People) -> None:
    """Whole, whatever the screen's theme is."""
    with people.visit(OFFICER, color_scheme="dark", viewport=PAPER) as visit:
        for path, heading, last in (
            ("/", "Overview", "Newest runs"),
            ("/evidence", "Evidence", "Number"),
            ("/findings", "Findings and actions", "Cause and corrective action"),
        ):
            visit.page.emulate_media(media="print")
            visit.open(path)
            expect(visit.page.locator("header")).to_be_hidden()
            expect(visit.page.locator("table")).to_contain_text(last)
            right = "document.querySelector('table').getBoundingClientRect().right"
            assert visit.page.evaluate(right) <= PAPER["width"], path
            picture(visit.page, f"{heading}.paper")
            printed = visit.page.pdf(format="A4", margin=dict.fromkeys(("left", "right"), "1cm"))
            words = [one.extract_text().split() for one in PdfReader(io.BytesIO(printed)).pages]
            text = unicodedata.normalize(
                "NFKC", " ".join(one for page in words for one in page)
            )  # ligatures as letters
            assert heading in text
            assert last in text
            assert "Waiting for you" not in text


def test_a_page_is_as_dark_as_airflow(people: People) -> None:
    """By what was chosen in Airflow, else by the system; an error page too."""
    with people.visit(OFFICER, expected=404) as visit:
        visit.open("/holds")
        for chosen, system, background in (
            (None, "dark", DARK),
            (None, "light", BRIGHT),
            ("dark", "light", DARK),
            ("light", "dark", BRIGHT),
            ("system", "dark", DARK),
        ):
            visit.page.emulate_media(color_scheme=system)
            if chosen is not None:
                visit.page.evaluate(f"localStorage.setItem('theme', '{chosen}')")
            for path in ("/holds", "/nowhere"):
                visit.open(path)
                assert visit.page.evaluate(BACKGROUND) == background, (path, chosen, system)
