"""A document as a page: self-contained, escaped, and to be walked by a screen reader."""

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
    """Collects tags and what can be read."""

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


def test_every_field_stands_beside_its_label(locale: str, page: str):
    """In the reader's language, times with their offset."""
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


def test_what_is_missing_is_seen_at_once(locale: str):
    """The draft is shown to the one who has to fill it in."""
    first = sample.report().sections[0]
    form = first.blocks[0].model_copy(update={"entries": (sample.entry("Cause", "原因", "-"),)})
    section = first.model_copy(update={"blocks": (form,)})
    html = render_html(
        sample.report().model_copy(update={"sections": (section,)}), locale, sample.ZONE
    )
    assert re.search(r'<span class="absent lacking">(MISSING|缺失)', html)


def test_the_warning_opens_the_page_and_stands_in_the_margin_of_each(locale: str, page: str):
    """And nothing of it is there where the document is none of a drill."""
    warning = {"en": "DRILL - not a real incident", "zh_CN": "演练 - 并非真实事件"}[locale]
    assert f'<p class="marked" role="note">{warning}</p>' in page
    margin = re.search(r'@top-center \{\s+content: "([^"]*)"', page)
    assert margin
    shown = re.sub(r"\\([0-9a-f]+) ", lambda one: chr(int(one[1], 16)), margin[1])
    assert shown == warning
    plain = render_html(sample.report(marked=None), locale, sample.ZONE)
    assert 'class="marked"' not in plain
    assert not re.search(r"@top-center \{\s+content: \"", plain)


def test_nothing_is_loaded_and_only_this_style_sheet_is_allowed(page: str, hostile: str):
    """It opens in ten years on a machine without network."""
    for html in (page, hostile):
        found = _Page(html)
        assert not found.all("script")
        assert not found.all("img")
        assert [one["href"] for one in found.all("link")] == ["data:,"]
        assert not [one for _tag, one in found.tags if "style" in one]
        style = html.partition("<style>")[2].partition("</style>")[0]
        assert not re.search(r"url\(|@import", style)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
        assert policy
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")


def test_hostile_texts_stay_texts(hostile: str):
    """Markup, templates, the end of a style sheet, what turns text around."""
    found = _Page(hostile)
    assert not [name for _tag, one in found.tags for name in one if name.startswith("on")]
    assert hostile.count("&lt;script&gt;") > 15
    assert hostile.count("</style>") == 1
    assert not set("\u202e\u2066\x00\x01\x1f\ud800\ufffe\r") & set(hostile)
    assert "".join(found.words).count("W") > 50_000 - 1
    hostile.encode()


def test_a_warning_cannot_end_the_style_sheet():
    """It is written into it, for the margins."""
    marked = verbatim('"; } body { display: none } </style><script>alert(1)</script>')
    html = render_html(sample.report(marked=marked), "en", sample.ZONE)
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "display: none" not in style
    assert not _Page(html).all("script")


def test_the_page_can_be_walked_by_a_screen_reader(locale: str, page: str):
    """Language, landmarks, headings, captions, scopes, unique ids."""
    found = _Page(page)
    assert found.all("html") == [{"lang": language_tag(locale)}]
    assert len(found.all("main")) == len(found.all("header")) == len(found.all("h1")) == 1
    assert len(found.all("h2")) == 4
    assert all(one.get("scope") in ("row", "col") for one in found.all("th"))
    assert len(found.all("caption")) == 1
    ids = [one["id"] for _tag, one in found.tags if "id" in one]
    assert len(ids) == len(set(ids))
    for _tag, one in found.tags:
        assert (one.get("aria-labelledby") or ids[0]) in ids


def test_a_table_without_rows_says_so_and_a_long_one_is_cut_aloud(locale: str):
    """Never an empty frame, never a page that nobody can open."""
    first = sample.report().sections[3]
    table = first.blocks[0]
    assert table.kind == "table"
    tables = [table.model_copy(update={"rows": rows}) for rows in ([], table.rows * 300)]
    section = first.model_copy(update={"blocks": tuple(tables)})
    html = render_html(
        sample.report().model_copy(update={"sections": (section,)}), locale, sample.ZONE
    )
    assert {"en": "No rows.", "zh_CN": "无数据。"}[locale] in html
    assert html.count("1,204,331") == 250
    assert re.search("first 500 of 600 rows|600.*500", html)
