"""The HTML report is self-contained, escaped, bilingual, accessible and reproducible."""

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
from include.reports.html import CHECK_COMMANDS, MAX_ROWS, TEMPLATES, headline, render_html
from include.reports.i18n import Translator
from include.reports.model import Bar, BarChart, Code, Column, Fact, Paragraph, Section, Table
from tests.reports import sample

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;{{ 7*7 }}\u202e\x00"


class _Page(HTMLParser):
    """The elements and texts of an HTML page, for assertions."""

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


def test_values_with_html_are_escaped_in_every_part_of_the_report(locale: str):
    """Names of tables, keys and departments come from other systems and may contain HTML."""
    report = sample.failed()
    finding = Finding(
        code=HOSTILE,
        severity=Outcome.FAIL,
        subject=HOSTILE,
        message=_("{x}", x=HOSTILE),
        action=_("{x}", x=HOSTILE),
        clause=HOSTILE,
        for_engineers=_("{x}", x=f"`{HOSTILE}`"),
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


def test_finding_shows_its_technical_hint_as_code_below_the_action(locale: str):
    """Compliance staff read the action. A command for engineers has its own line."""
    report = sample.failed()
    finding = report.findings[0].model_copy(
        update={"for_engineers": _("{command}", command="Run `./parcelseal keys new`.")}
    )
    html = render_html(report.model_copy(update={"findings": [finding]}), locale)
    label = {"en": "For engineers:", "zh_CN": "供数据工程团队参考："}[locale]
    assert f'<p class="small">{label} Run <code>./parcelseal keys new</code>.' in html
    without_hint = render_html(report, locale)
    assert f"{label} <code>{finding.code}</code></p>" in without_hint


def test_page_loads_no_external_resource(locale: str):
    """The report must be readable in ten years on a computer without a network."""
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


def test_security_policy_contains_the_hash_of_the_inlined_style_sheet(locale: str):
    """A browser applies the style sheet only if its hash equals the hash in the policy."""
    html = render_html(sample.passed(), locale)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html


def test_chinese_page_has_no_english_sentence(monkeypatch: pytest.MonkeyPatch):
    """After all texts are translated, only names, codes and units may be English."""
    texts = {text for report in (sample.failed(), sample.passed()) for text in _texts(report)}
    own = dict(i18n._catalogue("zh_CN"))
    own |= {text: "译" + "".join(re.findall(r"\{[^}]*\}", text)) for text in texts - set(own)}
    own[sample.RUN.clock_source] = "译"
    monkeypatch.setattr(i18n, "_catalogue", lambda _locale: own)
    page = _Page(render_html(sample.failed(), "zh_CN"))
    left = re.findall(r"[A-Za-z]{2,} +[A-Za-z]{2,}", "\n".join(page.words))
    assert left == []


def _texts(value: object) -> set[str]:
    """Return the source text of every message in a model and in its nested values."""
    if isinstance(value, i18n.Message):
        return {value.text}.union(*map(_texts, value.values.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_texts, value)) if value else set()
    if fields := getattr(type(value), "model_fields", None):
        return set().union(*(_texts(getattr(value, name)) for name in fields))
    return set()


def test_report_page_has_html_landmarks_headings_and_table_scopes_for_screen_readers(locale: str):
    """Screen readers need a language, ordered headings, captions, scopes and unique ids."""
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


def test_outcome_has_a_name_and_an_icon_besides_its_colour(locale: str):
    """Some readers cannot distinguish red and green."""
    words = {o: i18n.Translator(locale).outcome(o) for o in Outcome}
    html = render_html(sample.failed(), locale)
    for outcome in Outcome:
        spans = re.findall(rf'<span class="outcome {outcome}">(.*?)</span>', html, re.DOTALL)
        assert spans
        assert all(
            "<svg" in span and words[outcome] in span.rpartition("</svg>")[2] for span in spans
        )


def test_missing_value_is_shown_as_not_measured(locale: str):
    """The cell of a missing value must not be empty and must not look like a passed value."""
    html = render_html(sample.failed(), locale)
    word = i18n.Translator(locale).value(None)
    assert html.count(word) >= 6
    cells = re.findall(r"<(td|th|dd)\b[^>]*>(.*?)</\1>", html, re.DOTALL)
    assert len(cells) > 100
    assert all(re.sub(r"<[^>]*>", "", content).strip() for _tag, content in cells)


def test_findings_are_sorted_by_severity_and_have_actions():
    """Failed findings come before findings that need attention."""
    html = render_html(sample.failed(), "en")
    assert html.index("backup.upload.checksum") < html.index("backup.recipient.expiring")
    assert html.count("Action:") == 2


def test_long_table_is_truncated_with_a_note():
    """Browsers cannot open much larger pages."""
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


def test_reasons_for_missing_files_are_shown_and_translated():
    """The reason of a missing PDF file is shown in the language of the page."""
    reason = "The PDF library did not finish in time."
    report = sample.passed().model_copy(update={"not_made": {"report.en.pdf": reason}})
    assert "PDF 程序库未在规定时间内完成。" in render_html(report, "zh_CN")


def test_report_page_has_same_bytes_if_rendered_again_and_other_bytes_in_another_language(
    locale: str,
):
    """The evidence bundle seals the digest of the report."""
    assert render_html(sample.failed(), locale) == render_html(sample.failed(), locale)
    assert render_html(sample.failed(), "en") != render_html(sample.failed(), "zh_CN")


def test_head_of_the_report_shows_outcome_subject_and_time(locale: str):
    """A reader sees the result and the time of the evidence without scrolling."""
    html = render_html(sample.failed(), locale)
    head = html.partition("<header")[2].partition("</header>")[0]
    assert i18n.Translator(locale).outcome(Outcome.FAIL) in head
    assert "courier" in head
    assert "2026-11-24 02:04 UTC+08:00" in head


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("en", "courier/2026/11/24/full.dump.zst.enc: The store holds"),
        ("zh_CN", "courier/2026/11/24/full.dump.zst.enc：The store holds"),
    ],
)
def test_action_in_the_report_header_begins_with_the_subject_of_its_finding(
    locale: str, expected: str
):
    """The message of a finding alone does not name the database or table."""
    head = render_html(sample.failed(), locale).partition("</header>")[0]
    assert expected in head


@pytest.mark.parametrize(
    ("locale", "expected"), [("en", "(and 1 more below)"), ("zh_CN", "另有 1 项")]
)
def test_report_header_contains_number_of_further_findings_after_the_first(
    locale: str, expected: str
):
    """A report with a single finding does not mention further findings."""
    report = sample.failed()
    alone = report.model_copy(update={"findings": report.findings[:1]})
    assert expected in render_html(report, locale).partition("</header>")[0]
    assert expected.split()[0] not in render_html(alone, locale).partition("</header>")[0]


def test_verification_commands_in_report_equal_those_of_the_verify_command():
    """The report and the command `verify` show the same shell commands."""
    lines = check_commands("bundle", [], previous_at_hand=False)
    assert list(CHECK_COMMANDS) == lines[1:]


def test_table_model_raises_validation_error_if_a_row_has_too_few_cells():
    """A missing cell would move the following values under the wrong headings."""
    with pytest.raises(ValidationError, match="row 1 of table 'Rows' has 0 cells for 1 columns"):
        Table(caption=_("Rows"), columns=[Column(label=_("Rows"))], rows=[[]])


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_contrast_meets_wcag_aa_in_light_and_dark():
    """WCAG 2.2, criterion 1.4.3, requires a contrast of at least 4.5 to 1."""
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


def test_report_does_not_say_passed_if_a_control_has_no_evidence(locale: str):
    """If another control passed, the report must not state "The control passed" in its headline."""
    report = sample.passed()
    held = render_html(report, locale)
    words = i18n.Translator(locale)
    (control,) = report.controls
    unmeasured = control.model_copy(update={"value": None, "state": ControlState.NO_EVIDENCE})
    mixed = report.model_copy(
        update={"controls": [control, unmeasured], "outcome": Outcome.ATTENTION}
    )
    html = render_html(mixed, locale)
    claim = f"<span>{words.text(_('The control passed'))}</span>"
    assert claim in held
    assert claim not in html
    assert words.text(_("No control failed, but some controls have no evidence")) in html
    assert html.count(f"</svg> {words.text(_('no evidence'))}</span>") == 1


@pytest.mark.parametrize("outcome", list(Outcome))
def test_headline_never_says_passed_if_a_control_failed(outcome: Outcome):
    """A run needs attention only if an earlier run reported the failure of its control."""
    states = {ControlState.FAILED, ControlState.PASSED}
    words = Translator("en").text(headline(outcome, states))
    assert "passed" not in words


@pytest.mark.parametrize("outcome", list(Outcome))
def test_headline_of_a_run_without_controls_mentions_no_passed_control(outcome: Outcome):
    """Such a run is the seal of a commitment: it proves no control."""
    words = Translator("en").text(headline(outcome, set()))
    assert "control passed" not in words
    assert words.startswith("The run failed" if outcome is Outcome.FAIL else "The run passed")
