"""Tests that HTML pages of documents are self-contained, escaped and accessible."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from include.documents.html import render_html
from include.messages import verbatim
from include.reports.i18n import language_tag
from tests.documents import sample


class _Page(HTMLParser):
    """The tags and the visible words of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module", params=["en", "zh_CN"])
def locale(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def page(locale: str) -> str:
    return render_html(sample.report(), locale, sample.ZONE)


@pytest.fixture(scope="module")
def hostile(locale: str) -> str:
    return render_html(sample.hostile(), locale, sample.ZONE)


def test_html_page_shows_value_of_every_entry(locale: str, page: str):
    rows = dict(re.findall(r"<tr[^>]*><th scope=\"row\">(.*?)</th><td>(.*?)</td></tr>", page))
    text = {name: re.sub(r"<[^>]*>", " ", value).strip() for name, value in rows.items()}
    if locale == "en":
        assert text["Became aware"] == "2026-11-24 03:12 UTC+08:00"
        assert text["Data subjects affected"] == "1,204,331 people"
        assert text["Categories of information"].split("  ") == [
            "Names of recipients",
            "Telephone numbers",
            "Delivery addresses",
        ]
        assert text["Trend"] == "not stated"
    else:
        assert text["发现时间"] == "2026-11-24 03:12 UTC+08:00"
        assert text["受影响个人数量"] == "1,204,331 人"
        assert text["事件等级"] == "较大"
        assert text["发展态势"] == "未填写"


def test_html_page_marks_blank_required_entries(locale: str):
    first = sample.report().sections[0]
    form = first.blocks[0].model_copy(update={"entries": (sample.entry("Cause", "原因", "-"),)})
    section = first.model_copy(update={"blocks": (form,)})
    html = render_html(
        sample.report().model_copy(update={"sections": (section,)}), locale, sample.ZONE
    )
    assert re.search(r'<span class="absent lacking">(MISSING|缺失)', html)


def test_html_page_has_warning_above_text_and_in_page_margins(locale: str, page: str):
    warning = {"en": "DRILL - not a real incident", "zh_CN": "演练 - 并非真实事件"}[locale]
    assert f'<p class="marked" role="note">{warning}</p>' in page
    margin = re.search(r'@top-center \{\s+content: "([^"]*)"', page)
    assert margin
    shown = re.sub(r"\\([0-9a-f]+) ", lambda element: chr(int(element[1], 16)), margin[1])
    assert shown == warning
    plain = render_html(sample.report(warning=None), locale, sample.ZONE)
    assert 'class="marked"' not in plain
    assert not re.search(r"@top-center \{\s+content: \"", plain)


def test_html_page_loads_no_scripts_images_or_external_stylesheets(page: str, hostile: str):
    for html in (page, hostile):
        texts = _Page(html)
        assert not texts.all("script")
        assert not texts.all("img")
        assert [row["href"] for row in texts.all("link")] == ["data:,"]
        assert not [element for _tag, element in texts.tags if "style" in element]
        style = html.partition("<style>")[2].partition("</style>")[0]
        assert not re.search(r"url\(|@import", style)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        (policy,) = [m["content"] for m in texts.all("meta") if "http-equiv" in m]
        assert policy
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")


def test_html_page_escapes_markup_in_texts(hostile: str):
    texts = _Page(hostile)
    assert not [name for _tag, element in texts.tags for name in element if name.startswith("on")]
    assert hostile.count("&lt;script&gt;") > 15
    assert hostile.count("</style>") == 1
    assert not set("\u202e\u2066\x00\x01\x1f\ud800\ufffe\r") & set(hostile)
    assert "".join(texts.words).count("W") > 50_000 - 1
    hostile.encode()


def test_warning_text_with_style_end_tag_adds_no_script_to_html_page():
    marked = verbatim('"; } body { display: none } </style><script>alert(1)</script>')
    html = render_html(sample.report(warning=marked), "en", sample.ZONE)
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "display: none" not in style
    assert not _Page(html).all("script")


def test_html_page_has_language_heading_and_table_markup_for_screen_readers(locale: str, page: str):
    texts = _Page(page)
    assert texts.all("html") == [{"lang": language_tag(locale)}]
    assert len(texts.all("main")) == len(texts.all("header")) == len(texts.all("h1")) == 1
    assert len(texts.all("h2")) == 4
    assert all(row.get("scope") in ("row", "col") for row in texts.all("th"))
    assert len(texts.all("caption")) == 1
    ids = [element["id"] for _tag, element in texts.tags if "id" in element]
    assert len(ids) == len(set(ids))
    for _tag, element in texts.tags:
        assert (element.get("aria-labelledby") or ids[0]) in ids


def test_html_page_has_note_for_empty_table_and_for_omitted_rows(locale: str):
    first = sample.report().sections[3]
    table = first.blocks[0]
    assert table.kind == "table"
    tables = [table.model_copy(update={"rows": rows}) for rows in ([], table.rows * 300)]
    section = first.model_copy(update={"blocks": tuple(tables)})
    html = render_html(
        sample.report().model_copy(update={"sections": (section,)}), locale, sample.ZONE
    )
    assert {"en": "This table has no entries.", "zh_CN": "没有记录。"}[locale] in html
    assert html.count("1,204,331") == 250
    assert re.search("first 500 of 600 rows|600.*500", html)
