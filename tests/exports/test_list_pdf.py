"""PDF files of lists: letterhead, page numbers, repeated headings, limits, escaped texts."""

from __future__ import annotations

import io
import re

import pytest
from pypdf import PdfReader

from include.exports import pdf
from include.exports.pdf import render_list_html, render_list_pdf
from include.services.errors import UsageError
from tests.exports.sample import ZONE, listing


def page_texts(content: bytes) -> list[str]:
    """Return the text of each page without spaces."""
    pages = PdfReader(io.BytesIO(content)).pages
    return [re.sub(r"\s+", "", page.extract_text()) for page in pages]


@pytest.mark.pdf
@pytest.mark.parametrize(
    ("locale", "company", "number", "label"),
    [
        ("en", "SampleCourierCo.", "Page{}of{}", "Folderofthebundle"),
        ("zh_CN", "示例快递有限公司", "第{}页，共{}页", "证据包路径"),
    ],
)
def test_each_page_has_company_period_page_number_and_headings(
    locale: str, company: str, number: str, label: str
) -> None:
    pages = page_texts(render_list_pdf(listing(range(80), 80), locale, ZONE))
    assert len(pages) >= 2
    for page_number, text in enumerate(pages, 1):
        assert company in text
        assert "2026-09-30" in text
        assert number.format(page_number, len(pages)) in text
        assert label in text
    assert "backup_offsite/2026/11/79" in pages[-1]


@pytest.mark.pdf
def test_pages_are_in_landscape_format() -> None:
    box = PdfReader(io.BytesIO(render_list_pdf(listing(range(2), 2), "en", ZONE))).pages[0].mediabox
    assert box.width > box.height


def test_truncated_list_has_warning_above_the_table() -> None:
    html = render_list_html(listing(range(30), 5_000), "en", ZONE, limit=10)
    assert "INCOMPLETE: this file has the first 10 of 5,000 rows." in html
    assert html.count("<tr>") == 11
    assert "INCOMPLETE" not in render_list_html(listing(range(10), 10), "en", ZONE, limit=10)


@pytest.mark.parametrize("locale", ["en", "zh_CN"])
def test_texts_with_markup_are_escaped(locale: str) -> None:
    html = render_list_html(listing(range(6), 6), locale, ZONE)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "\u202e" not in html
    assert "\x00" not in html


def test_empty_list_states_that_it_has_no_entries() -> None:
    assert "This table has no entries." in render_list_html(listing([], 0), "en", ZONE)


def test_list_of_a_pack_without_a_company_has_no_letterhead() -> None:
    html = render_list_html(listing([], 0, company=False), "en", ZONE)
    assert 'class="letterhead"' not in html
    assert "Sample Courier" not in html


def test_usage_error_names_the_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "pdf_unavailable_reason", lambda: "Pango is not installed.")
    with pytest.raises(UsageError, match="cannot make PDF files") as caught:
        render_list_pdf(listing([], 0), "en", ZONE)
    assert caught.value.action == "Pango is not installed."
