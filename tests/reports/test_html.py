"""The HTML report: self-contained, escaped, bilingual, accessible, the same every time."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from pydantic import ValidationError

from include.evidence.folder import check_commands
from include.evidence.model import ControlState, Finding, Outcome
from include.messages import _
from include.reports import i18n
from include.reports.charts import COLOURS
from include.reports.html import CHECK_COMMANDS, MAX_ROWS, TEMPLATES, render_html
from include.reports.model import Bar, BarChart, Code, Column, Fact, Paragraph, Section, Table
from tests.reports import sample

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;{{ 7*7 }}\u202e\x00"


class _Page(HTMLParser):
    """Collects what the assertions ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "code", "pre"} & set(self._open):
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(params=["en", "zh_CN"])
def locale(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_hostile_values_stay_text_everywhere(locale: str):
    """Names of tables, keys and departments come from outside."""
    report = sample.failed()
    finding = Finding(
        code=HOSTILE,
        severity=Outcome.FAIL,
        subject=HOSTILE,
        message=_("{x}", x=HOSTILE),
        action=_("{x}", x=HOSTILE),
        clause=HOSTILE,
    )
    blocks = [
        Paragraph(text=_("{x}", x=HOSTILE)),
        Table(
            caption=_("{x}", x=HOSTILE),
            columns=[Column(label=_("{x}", x=HOSTILE)), Column(label=_("Rows"), kind="code")],
            rows=[[HOSTILE, HOSTILE]],
        ),
        BarChart(
            caption=_("{x}", x=HOSTILE),
            category=_("{x}", x=HOSTILE),
            unit=HOSTILE,
            bars=[Bar(label=HOSTILE, value=1)],
        ),
        Code(lines=[HOSTILE]),
    ]
    names = ("dag_id", "run_id", "code_version", "policy_hash", "policy_name", "clock_source")
    run = report.run.model_copy(update=dict.fromkeys(names, HOSTILE))
    report = report.model_copy(
        update={
            "title": _("{x}", x=HOSTILE),
            "summary": _("{x}", x=HOSTILE),
            "run": run,
            "facts": [Fact(label=_("{x}", x=HOSTILE), value=HOSTILE, unit=HOSTILE)],
            "findings": [finding],
            "sections": [Section(heading=_("{x}", x=HOSTILE), blocks=blocks)],
            "not_made": {HOSTILE: HOSTILE},
        }
    )
    html = render_html(report, locale)
    page = _Page(html)
    assert not page.all("script")
    assert not page.all("img")
    assert not [a for _tag, attributes in page.tags for a in attributes if a.startswith("on")]
    assert html.count("alert(1)&lt;/script&gt;") > 15
    assert not set("\u202e\x00") & set(html)


def test_nothing_is_loaded_from_anywhere(locale: str):
    """It must open in ten years on a machine without network."""
    html = render_html(sample.failed(), locale)
    page = _Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            if value := attributes.get(name):
                assert value == "data:," or value.startswith("#"), (tag, value)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html.replace("postgresql://", ""))
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not [attributes for _tag, attributes in page.tags if "style" in attributes]


def test_the_policy_allows_exactly_this_style_sheet(locale: str):
    """A browser computes the same hash; otherwise the page would be bare."""
    html = render_html(sample.passed(), locale)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html


def test_the_chinese_page_holds_no_english_sentence(monkeypatch: pytest.MonkeyPatch):
    """With the sample's own texts translated, only names, codes and units are left."""
    texts = {text for report in (sample.failed(), sample.passed()) for text in _texts(report)}
    own = dict(i18n._catalogue("zh_CN"))
    own |= {text: "译" + "".join(re.findall(r"\{[^}]*\}", text)) for text in texts - set(own)}
    own[sample.RUN.clock_source] = "译"
    monkeypatch.setattr(i18n, "_catalogue", lambda _locale: own)
    page = _Page(render_html(sample.failed(), "zh_CN"))
    left = re.findall(r"[A-Za-z]{2,} +[A-Za-z]{2,}", "\n".join(page.words))
    assert left == []


def _texts(value: object) -> set[str]:
    """Every catalogue key inside a model."""
    if isinstance(value, i18n.Message):
        return {value.text}.union(*map(_texts, value.values.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_texts, value)) if value else set()
    if fields := getattr(type(value), "model_fields", None):
        return set().union(*(_texts(getattr(value, name)) for name in fields))
    return set()


def test_the_page_can_be_walked_by_a_screen_reader(locale: str):
    """Language, landmarks, heading order, table captions and scopes, unique ids."""
    html = render_html(sample.failed(), locale)
    page = _Page(html)
    assert page.all("html") == [{"lang": i18n.language_tag(locale)}]
    assert len(page.all("main")) == len(page.all("header")) == len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _attributes in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert len(page.all("table")) == len(page.all("caption")) >= 4
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    ids = [attributes["id"] for _tag, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _tag, attributes in page.tags:
        for reference in (attributes.get("aria-labelledby") or "").split():
            assert reference in ids
        if (attributes.get("href") or "").startswith("#"):
            assert (attributes["href"] or "")[1:] in ids


def test_an_outcome_is_a_word_and_a_shape_beside_its_colour(locale: str):
    """For readers who do not see red and green."""
    words = {o: i18n.Translator(locale).outcome(o) for o in Outcome}
    html = render_html(sample.failed(), locale)
    for outcome in Outcome:
        found = re.findall(rf'<span class="outcome {outcome}">(.*?)</span>', html, re.DOTALL)
        assert found
        assert all("<svg" in one and words[outcome] in one.rpartition("</svg>")[2] for one in found)


def test_what_was_not_measured_says_so(locale: str):
    """Never an empty cell, never a pass."""
    html = render_html(sample.failed(), locale)
    word = i18n.Translator(locale).value(None)
    assert html.count(word) >= 6
    cells = re.findall(r"<(td|th|dd)\b[^>]*>(.*?)</\1>", html, re.DOTALL)
    assert len(cells) > 100
    assert all(re.sub(r"<[^>]*>", "", content).strip() for _tag, content in cells)


def test_findings_come_worst_first_each_with_what_to_do():
    """The reader starts at the top."""
    html = render_html(sample.failed(), "en")
    assert html.index("backup.upload.checksum") < html.index("backup.recipient.expiring")
    assert html.count("What to do:") == 2


def test_a_long_table_is_cut_and_says_so():
    """A page that nobody can open proves nothing."""
    table = Table(
        caption=_("Rows"),
        columns=[Column(label=_("Rows"), kind="number")],
        rows=[[n] for n in range(MAX_ROWS + 3)],
    )
    report = sample.passed().model_copy(
        update={"sections": [Section(heading=_("Rows"), blocks=[table])]}
    )
    html = render_html(report, "en")
    assert "Only the first 500 of 503 rows are shown here." in html
    assert ">499<" in html
    assert ">500<" not in html


def test_reasons_for_what_was_not_made_are_shown_and_translated():
    """In the reader's language when the reason is one of ours."""
    reason = "The PDF library did not finish in time."
    report = sample.passed().model_copy(update={"not_made": {"report.en.pdf": reason}})
    assert "PDF 程序库未在规定时间内完成。" in render_html(report, "zh_CN")


def test_the_same_report_gives_the_same_bytes_and_languages_differ(locale: str):
    """Sealed by hash."""
    assert render_html(sample.failed(), locale) == render_html(sample.failed(), locale)
    assert render_html(sample.failed(), "en") != render_html(sample.failed(), "zh_CN")


def test_the_head_says_outcome_summary_and_age(locale: str):
    """What a compliance officer reads in ten seconds, before anything else."""
    html = render_html(sample.failed(), locale)
    head = html.partition("<header")[2].partition("</header>")[0]
    assert i18n.Translator(locale).outcome(Outcome.FAIL) in head
    assert "courier" in head
    assert "2026-11-24 02:04 UTC+08:00" in head


@pytest.mark.parametrize(
    ("locale", "said"),
    [
        ("en", "courier/2026/11/24/full.dump.zst.enc: The store holds"),
        ("zh_CN", "courier/2026/11/24/full.dump.zst.enc：The store holds"),
    ],
)
def test_the_first_thing_to_do_says_what_it_is_about(locale: str, said: str):
    """A message alone names neither database nor table."""
    head = render_html(sample.failed(), locale).partition("</header>")[0]
    assert said in head


@pytest.mark.parametrize(("locale", "said"), [("en", "(and 1 more below)"), ("zh_CN", "另有 1 项")])
def test_the_first_thing_to_do_says_how_many_follow(locale: str, said: str):
    """Nobody takes the first finding for the only one; where it is, nothing is said."""
    report = sample.failed()
    alone = report.model_copy(update={"findings": report.findings[:1]})
    assert said in render_html(report, locale).partition("</header>")[0]
    assert said.split()[0] not in render_html(alone, locale).partition("</header>")[0]


def test_the_lines_that_check_the_report_are_the_ones_verify_prints():
    """Two ways to say it would be one too many."""
    lines = check_commands("bundle", [], previous_at_hand=False)
    assert list(CHECK_COMMANDS) == lines[1:]


def test_a_row_with_a_missing_cell_is_refused():
    """It would shift values under the wrong head."""
    with pytest.raises(ValidationError, match="row 1 of table 'Rows' has 0 cells for 1 columns"):
        Table(caption=_("Rows"), columns=[Column(label=_("Rows"))], rows=[[]])


def _contrast(one: str, two: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_contrast_is_aa_in_light_and_dark():
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in css.split(":root")[1:3]
    ]
    assert [len(theme) for theme in themes] == [12, 12]
    for theme in themes:
        for text in ("ink", "muted", "accent", "pass", "attention", "fail"):
            assert _contrast(theme[text], theme["page"]) >= 4.5, text
        for outcome in ("pass", "attention", "fail"):
            assert _contrast(theme[outcome], theme[f"{outcome}-panel"]) >= 4.5, outcome
            assert _contrast(theme["ink"], theme[f"{outcome}-panel"]) >= 4.5, outcome
    assert {name: themes[0][name] for name in COLOURS} == COLOURS


def test_the_verdict_says_no_more_than_the_controls(locale: str):
    """One control that nobody measured, and the head does not say that the control held."""
    report = sample.passed()
    held = render_html(report, locale)
    words = i18n.Translator(locale)
    (one,) = report.controls
    unknown = one.model_copy(update={"value": None, "state": ControlState.NOT_SHOWN})
    mixed = report.model_copy(update={"controls": [one, unknown], "outcome": Outcome.ATTENTION})
    html = render_html(mixed, locale)
    claim = f"<span>{words.text(_('The control held'))}</span>"
    assert claim in held
    assert claim not in html
    assert words.text(_("No control failed, but not every control was shown to hold")) in html
    assert html.count(words.text(_("not shown"))) == 1
