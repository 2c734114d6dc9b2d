"""Render a report as one self-contained HTML file: no script, no request, readable for decades.

Paper does not scroll: WeasyPrint would break ids and Chinese words in the middle while a column of
sentences beside them has room to spare. So the width of columns is estimated, in em of the table's
font; the estimate may be coarse, but must never keep too many columns for the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from unicodedata import east_asian_width

from markupsafe import Markup

from include.evidence.model import ControlState, ControlStatus, Outcome
from include.messages import Message, Value, _
from include.reports import charts
from include.reports.i18n import CONTROL_STATES, Translator, language_tag
from include.reports.jinja import TEMPLATES, environment
from include.reports.model import (
    Bar,
    BarChart,
    Cell,
    Column,
    ColumnKind,
    Fact,
    Report,
    TrendChart,
    TrendPoint,
)

PAPER = 60.0  # em across an A4 page in the table's font
PADDING = 1.15  # em of a cell, left and right together
SENTENCE = 9.0  # em that a column of sentences needs at least to be read
SHORT = 7.0  # em up to which a text is a word or two
TITLE = 12.0  # em up to which the name of a row, in its first column, stays in one line
ICON = 2.0  # em before the word of an outcome
WIDE, NARROW, MONO = 1.0, 0.55, 0.53  # em of a Chinese, another, and an id's character

_BREAKS = re.compile(r"[\s\u2e80-\uffef]+")  # a line may end at a space and at any Chinese sign


def kept_columns(kinds: Sequence[ColumnKind], rows: Sequence[Sequence[str]]) -> set[int]:
    """The columns of ids and short words that fit unbroken beside all others.

    Args:
        kinds: of the columns.
        rows: cells as they are shown, the heading first; an outcome as its word.
    """
    longest = [
        max(_width(row[at], kind) for row in rows) + PADDING for at, kind in enumerate(kinds)
    ]
    least = [_least(longest[at], [row[at] for row in rows], kind) for at, kind in enumerate(kinds)]
    room = PAPER - sum(least)
    kept = set()
    for at in sorted(range(len(kinds)), key=lambda at: longest[at]):
        short = longest[at] <= (SHORT if at else TITLE) + PADDING
        if _never_breaks(kinds[at]) or not (kinds[at] == "code" or short):
            continue
        needed = longest[at] - least[at]
        if needed <= room:
            room -= needed
            kept.add(at)
    return kept


def _least(longest: float, cells: Sequence[str], kind: ColumnKind) -> float:
    if _never_breaks(kind):
        return longest
    words = [word for cell in cells for word in _BREAKS.split(cell)] if kind != "code" else []
    widest = max((_width(word, kind) for word in words), default=0.0)
    return min(longest, max(SENTENCE, widest) + PADDING)


def _never_breaks(kind: ColumnKind) -> bool:
    return kind in ("number", "bytes", "duration", "percent", "outcome")


def _width(text: str, kind: ColumnKind) -> float:
    narrow = MONO if kind == "code" else NARROW
    letters = sum(WIDE if east_asian_width(character) in "WF" else narrow for character in text)
    return letters + (ICON if kind == "outcome" else 0)


MAX_ROWS = 500  # of a table, and of findings: a page that nobody can open proves nothing

# What an outsider types in the bundle's folder; the same lines as include.evidence.folder, which
# a test compares. The line of the bundle before is left out: its folder may not be at hand.
CHECK_COMMANDS = (
    r"grep -v '  \.\./' SHA256SUMS | sha256sum -c -",
    "openssl pkeyutl -verify -pubin -inkey signer.pem -rawin -in SHA256SUMS"
    " -sigfile SHA256SUMS.sig",
    "openssl pkey -pubin -in signer.pem -outform DER | sha256sum",
)

_STATES = {
    ControlState.HELD: Outcome.PASS,
    ControlState.NOT_SHOWN: Outcome.ATTENTION,
    ControlState.NOT_HELD: Outcome.FAIL,
}
_CHART_KINDS: dict[str, ColumnKind] = {
    "bytes": "bytes",
    "seconds": "duration",
    "duration": "duration",
    "percent": "percent",
    "ratio": "percent",
}
_NUMERIC = {"number", "bytes", "duration", "percent"}


def render_html(report: Report, locale: str) -> str:
    """Render a report in one language.

    Args:
        report: what to say.
        locale: ``en`` or ``zh_CN``.

    Raises:
        ValueError: unknown locale, or a time without timezone.
    """
    translator = Translator(locale, report.run.timezone)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    view = View(translator)
    findings = sorted(report.findings, key=lambda finding: finding.severity is not Outcome.FAIL)
    return (
        environment(TEMPLATES)
        .get_template("report.html.j2")
        .render(
            report=report,
            findings=findings,
            max_rows=MAX_ROWS,
            verdict=_verdict(report),
            check_commands=CHECK_COMMANDS,
            language=language_tag(locale),
            **styles(style),
            _=translator_function(translator),
            t=translator,
            view=view,
        )
    )


def styles(sheet: str) -> dict[str, str]:
    """A style sheet as a template puts it in, and its hash for the page's security policy."""
    text = f"\n{sheet}"
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    sheet_as_it_is = Markup(text)  # noqa: S704 - our own file, and its hash is in the policy
    return {"style": sheet_as_it_is, "style_hash": digest}


def _verdict(report: Report) -> Message:
    """Say in one line how far the controls held; never more than their states say."""
    states = {control.state for control in report.controls}
    if report.outcome is Outcome.FAIL:
        if ControlState.NOT_HELD in states or not states:
            return _("The control did not hold")
        if ControlState.NOT_SHOWN in states:
            return _("Nobody can show that the control held")
        return _("The indicators are within their targets, but the run failed: see the findings")
    if ControlState.NOT_SHOWN in states:
        return _("No control failed, but not every control was shown to hold")
    if report.outcome is Outcome.ATTENTION:
        return _("The control held, and something needs attention")
    return _("The control held")


def translator_function(translator: Translator) -> Any:
    """``_()`` of the templates: translates at once, where the code's ``_`` makes a Message."""

    def translate(text: str, **values: Any) -> str:
        return translator.text(Message(text=text, values=values))

    return translate


def _has_status(chart: BarChart | TrendChart) -> bool:
    marks = chart.bars if isinstance(chart, BarChart) else chart.points
    return any(mark.status is not None for mark in marks)


def _judged(mark: Bar | TrendPoint) -> Outcome | Message | None:
    return mark.status or (None if mark.value is None else _("not judged"))


class View:
    """What a template asks for beside plain fields."""

    def __init__(self, translator: Translator) -> None:
        self._translator = translator

    def chart(self, chart: BarChart | TrendChart, identifier: str) -> Markup:
        """A chart as SVG."""
        if isinstance(chart, BarChart):
            drawn = charts.bar_chart(chart, self._translator, identifier)
        else:
            drawn = charts.trend_chart(chart, self._translator, identifier)
        return Markup(drawn)  # noqa: S704 - its template escaped every text

    def chart_columns(self, chart: BarChart | TrendChart) -> list[Column]:
        """Columns of the table beside a chart."""
        kind = _CHART_KINDS.get(chart.unit, "number")
        if isinstance(chart, BarChart):
            first = Column(label=chart.category)
        else:
            first = Column(label=_("Time"), kind="datetime")
        columns = [first, Column(label=_("Value"), kind=kind)]
        if _has_status(chart):
            columns.append(Column(label=_("Outcome"), kind="outcome"))
        return columns

    def chart_rows(self, chart: BarChart | TrendChart) -> list[list[Cell]]:
        """Rows of the table beside a chart."""
        rows: list[list[Cell]]
        if isinstance(chart, BarChart):
            rows = [[bar.label, bar.value, _judged(bar)] for bar in chart.bars]
        else:
            rows = [[point.at, point.value, _judged(point)] for point in chart.points]
        return rows if _has_status(chart) else [row[:2] for row in rows]

    def state(self, control: ControlStatus) -> tuple[Outcome, Message]:
        """A control's state as sign and word."""
        return _STATES[control.state], CONTROL_STATES[control.state]

    def figure(self, fact: Fact) -> tuple[str, str]:
        """A fact's value, and of a time its offset apart, to be set smaller."""
        text = self._translator.quantity(fact.value, fact.unit)
        moment, _space, offset = text.rpartition(" ")
        return (moment, offset) if offset.startswith("UTC") else (text, "")

    def indicator(self, control: ControlStatus) -> str | float:
        """A control's figure in the unit of its target; in percent not rounded up to it."""
        value = control.value
        if value is not None and control.target.endswith("%"):
            return f"{value * 100:.6g}%"
        return "" if value is None else value

    def cell(self, value: Cell, kind: ColumnKind) -> str:
        """A cell that is no outcome, as text."""
        if kind in ("bytes", "duration", "percent"):
            return self._translator.quantity(value, kind)
        return self._translator.value(value)

    def cell_outcome(self, value: Cell, kind: ColumnKind) -> Outcome | None:
        """An outcome that has been through JSON is a plain string again."""
        if isinstance(value, Outcome):
            return value
        if kind == "outcome" and isinstance(value, str):
            return Outcome(value)
        return None

    def kept(self, columns: list[Column], rows: list[list[Cell]]) -> set[int]:
        """The columns that do not break on paper."""
        kinds = [column.kind for column in columns]
        heading = [self._translator.text(column.label) for column in columns]
        cells = [
            [self.shown(value, kind) for value, kind in zip(row, kinds, strict=True)]
            for row in rows[:MAX_ROWS]
        ]
        return kept_columns(kinds, [heading, *cells])

    def shown(self, value: Cell, kind: ColumnKind) -> str:
        """A cell as plain text, an outcome as its word."""
        outcome = self.cell_outcome(value, kind)
        return self._translator.outcome(outcome) if outcome else self.cell(value, kind)

    def numeric(self, kind: ColumnKind) -> bool:
        """Return whether a column is aligned by its digits."""
        return kind in _NUMERIC

    def missing(self, value: Message | Value | None) -> bool:
        """Return whether a value was not measured."""
        return value is None or (isinstance(value, float) and value != value)
