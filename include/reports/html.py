"""Render a report as a self-contained HTML file without scripts and external resources.

In a PDF, WeasyPrint would break ids and Chinese words of a wide table across lines, instead of
making a column of sentences narrower. Therefore this module estimates column widths, in em of the
table's font, and marks the columns whose text must not be broken. The estimate may be coarse, but
all marked columns together must always fit on the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Any
from unicodedata import east_asian_width

from markupsafe import Markup

from include.evidence.model import ControlState, ControlStatus, Outcome
from include.messages import Message, Value, _
from include.reports import charts
from include.reports.i18n import CONTROL_STATES, UNITS, Translator, language_tag
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
PADDING = 1.15  # em of a cell's left and right padding together
SENTENCE = 9.0  # smallest readable width of a column of sentences, in em
SHORT = 7.0  # largest width of a short text, in em
TITLE = 12.0  # largest width of a row's name in the first column that does not break, in em
ICON = 2.0  # em of the icon before the name of an outcome
WIDE, NARROW, MONO = 1.0, 0.55, 0.53  # em: Chinese, other, and monospaced characters

# a line may break at a space and at any Chinese character
_BREAKS = re.compile(r"[\s\u2e80-\uffef]+")


def unbroken_columns(kinds: Sequence[ColumnKind], rows: Sequence[Sequence[str]]) -> set[int]:
    """Return the indices of the columns of ids or short texts that have room without line breaks.

    Args:
        kinds: formats of the columns, such as ``code``.
        rows: displayed texts of the cells, one list for each row. The first row is the heading.
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


MAX_ROWS = 500  # rows of a table and of findings; browsers cannot open much larger pages

# Commands with which an outsider verifies the bundle's folder. A test compares them with
# include.evidence.folder. The line of the previous bundle is left out: its folder may be missing.
CHECK_COMMANDS = (
    r"grep -v '  \.\./' SHA256SUMS | sha256sum -c -",
    "openssl pkeyutl -verify -pubin -inkey signer.pem -rawin -in SHA256SUMS"
    " -sigfile SHA256SUMS.sig",
    "openssl pkey -pubin -in signer.pem -outform DER | sha256sum",
)

_STATES = {
    ControlState.PASSED: Outcome.PASS,
    ControlState.NO_EVIDENCE: Outcome.ATTENTION,
    ControlState.FAILED: Outcome.FAIL,
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
    """Render a report as an HTML page in one language.

    Args:
        report: content of the report.
        locale: ``en`` or ``zh_CN``.

    Raises:
        ValueError: the locale is unknown, or the report has a time without a timezone.
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
            verdict=COULD_NOT_RUN_VERDICT
            if report.could_not_run
            else headline(report.outcome, {control.state for control in report.controls}),
            check_commands=CHECK_COMMANDS,
            language=language_tag(locale),
            **styles(style + page_margins(translator)),
            _=translator_function(translator),
            t=translator,
            view=view,
        )
    )


COULD_NOT_RUN_VERDICT = _("No control was checked, so the outcome of no control changes")


def styles(sheet: str) -> dict[str, str]:
    """Return the template variables for a style sheet: ``style`` and ``style_hash``.

    The content security policy of the page uses the hash to allow the style sheet.

    Args:
        sheet: content of the style sheet.
    """
    text = f"\n{sheet}"
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    unescaped_sheet = Markup(text)  # noqa: S704 - our own file, and its hash is in the policy
    return {"style": unescaped_sheet, "style_hash": digest}


def page_margins(translator: Translator) -> str:
    """Return the CSS rule that prints title, number and page count below each page of a PDF.

    Args:
        translator: translator into the reader's language.
    """
    font = 'font: 8pt "Noto Sans", Arial, "Noto Sans CJK SC", sans-serif; color: #566171;'
    return f"""@page {{
  @bottom-left {{ content: string(title) string(number); width: 75%; {font} }}
  @bottom-right {{ content: {page_counter(translator)}; white-space: nowrap; {font} }}
}}
"""


def page_counter(translator: Translator) -> str:
    """Return the value of the CSS property ``content`` for a text such as "Page 3 of 7".

    Args:
        translator: translator into the reader's language.
    """
    fields = {"\ue000": "counter(page)", "\ue001": "counter(pages)"}
    page, pages = fields
    words = translator.text(_("Page {page} of {pages}", page=page, pages=pages))
    parts = re.split(f"([{page}{pages}])", words)
    return " ".join(fields.get(part) or css_string(part) for part in parts if part)


def css_string(text: str) -> str:
    """Return a text as a CSS string. Characters other than letters and digits are escaped."""
    escaped = "".join(
        character if character.isascii() and character.isalnum() else f"\\{ord(character):x} "
        for character in text
    )
    return f'"{escaped}"'


def headline(outcome: Outcome, states: Collection[ControlState]) -> Message:
    """Return the sentence that says whether a run and its controls passed.

    If a control failed or has no evidence, the sentence does not say that the controls passed.

    Args:
        outcome: outcome of the run.
        states: states of the run's controls; empty if the run is not evidence for a control.
    """
    if not states:
        return _NO_CONTROL[outcome]
    if outcome is Outcome.FAIL:
        if ControlState.FAILED in states:
            return _("At least one control failed")
        if ControlState.NO_EVIDENCE in states:
            return _("There is no evidence that the control passed")
        return _("The indicators are within their targets, but the run failed: see the findings")
    if ControlState.FAILED in states:
        return _("At least one control still fails, as an earlier run reported")
    if ControlState.NO_EVIDENCE in states:
        return _("No control failed, but some controls have no evidence")
    if outcome is Outcome.ATTENTION:
        return _("The control passed, but some findings need attention")
    return _("The control passed")


_NO_CONTROL = {
    Outcome.PASS: _("The run passed. It is not evidence for a control."),
    Outcome.ATTENTION: _("The run passed, but some findings need attention"),
    Outcome.FAIL: _("The run failed: see the findings"),
}


def translator_function(translator: Translator) -> Any:
    """Return the function that templates call as ``_()`` to translate a text."""

    def translate(text: str, **values: Any) -> str:
        return translator.text(Message(text=text, values=values))

    return translate


def _has_status(chart: BarChart | TrendChart) -> bool:
    values = chart.bars if isinstance(chart, BarChart) else chart.points
    return any(value.status is not None for value in values)


def _status_cell(value: Bar | TrendPoint) -> Outcome | Message | None:
    return value.status or (None if value.value is None else _("not judged"))


class View:
    """Formats values for the templates of reports, in the language of a translator."""

    def __init__(self, translator: Translator) -> None:
        self._translator = translator

    def chart(self, chart: BarChart | TrendChart, identifier: str) -> Markup:
        """Return a chart as an ``<svg>`` element.

        Args:
            chart: content of the chart.
            identifier: prefix of the ids in the element, unique on the page.
        """
        if isinstance(chart, BarChart):
            svg = charts.bar_chart(chart, self._translator, identifier)
        else:
            svg = charts.trend_chart(chart, self._translator, identifier)
        return Markup(svg)  # noqa: S704 - its template escaped every text

    def is_drawn(self, chart: BarChart | TrendChart) -> bool:
        """Return whether a chart shows more than a single measured value.

        A page shows a single value as a table, because a chart with one point compares nothing.
        """
        values = chart.bars if isinstance(chart, BarChart) else chart.points
        return sum(value.value is not None for value in values) > 1

    def legend(self, chart: BarChart | TrendChart) -> list[Outcome | None]:
        """Return the outcomes whose colours and patterns a chart uses, the best first.

        If the chart also has values without an outcome, the last item is None. If no value has an
        outcome, the list is empty, because the colour of the chart then has no meaning.
        """
        values = chart.bars if isinstance(chart, BarChart) else chart.points
        statuses = {value.status for value in values if value.value is not None}
        outcomes: list[Outcome | None] = [outcome for outcome in Outcome if outcome in statuses]
        return [*outcomes, None] if outcomes and None in statuses else outcomes

    def chart_columns(self, chart: BarChart | TrendChart) -> list[Column]:
        """Return the columns of the table that repeats the data of a chart as text."""
        kind = _CHART_KINDS.get(chart.unit, "number")
        if isinstance(chart, BarChart):
            first = Column(label=chart.category)
        else:
            first = Column(label=_("Time"), kind="datetime")
        unit = UNITS.get(chart.unit) if kind == "number" else None
        label = _("Value ({unit})", unit=unit) if unit else _("Value")
        columns = [first, Column(label=label, kind=kind)]
        if _has_status(chart):
            columns.append(Column(label=_("Outcome"), kind="outcome"))
        return columns

    def chart_rows(self, chart: BarChart | TrendChart) -> list[list[Cell]]:
        """Return the rows of the table that repeats the data of a chart as text."""
        rows: list[list[Cell]]
        if isinstance(chart, BarChart):
            rows = [[bar.label, bar.value, _status_cell(bar)] for bar in chart.bars]
        else:
            rows = [[point.at, point.value, _status_cell(point)] for point in chart.points]
        return rows if _has_status(chart) else [row[:2] for row in rows]

    def state(self, control: ControlStatus) -> tuple[Outcome, Message]:
        """Return the outcome whose icon marks a control's status, and the name of the status.

        The page shows the icon beside the name. For example, the status "no evidence" has the icon
        of "needs attention".
        """
        return _STATES[control.state], CONTROL_STATES[control.state]

    def figure(self, fact: Fact) -> tuple[str, str]:
        """Return the displayed text of a key figure and, for a time, its UTC offset.

        The second text is empty if the figure is not a time. The page shows the UTC offset in a
        smaller font.
        """
        text = self._translator.quantity(fact.value, fact.unit)
        moment, _space, offset = text.rpartition(" ")
        return (moment, offset) if offset.startswith("UTC") else (text, "")

    def cell(self, value: Cell, kind: ColumnKind) -> str:
        """Return the displayed text of a table cell that does not contain an outcome.

        For a cell with an outcome, use `cell_outcome`.

        Args:
            value: content of the cell.
            kind: format of the column.
        """
        if kind in ("bytes", "duration", "percent"):
            return self._translator.quantity(value, kind)
        return self._translator.value(value)

    def cell_outcome(self, value: Cell, kind: ColumnKind) -> Outcome | None:
        """Return the outcome that a table cell holds, or None for a cell with another value.

        A string in an outcome column is the name of an outcome that was stored as JSON.

        Args:
            value: content of the cell.
            kind: format of the column.
        """
        if isinstance(value, Outcome):
            return value
        if kind == "outcome" and isinstance(value, str):
            return Outcome(value)
        return None

    def unbroken_columns(self, columns: list[Column], rows: list[list[Cell]]) -> set[int]:
        """Return the indices of the columns whose text must not be broken across lines on paper."""
        kinds = [column.kind for column in columns]
        heading = [self._translator.text(column.label) for column in columns]
        cells = [
            [self.shown(value, kind) for value, kind in zip(row, kinds, strict=True)]
            for row in rows[:MAX_ROWS]
        ]
        return unbroken_columns(kinds, [heading, *cells])

    def shown(self, value: Cell, kind: ColumnKind) -> str:
        """Return the displayed text of a table cell.

        For an outcome, this is its translated name.

        Args:
            value: content of the cell.
            kind: format of the column.
        """
        outcome = self.cell_outcome(value, kind)
        return self._translator.outcome(outcome) if outcome else self.cell(value, kind)

    def numeric(self, kind: ColumnKind) -> bool:
        """Return whether a column holds numbers, which are aligned to the right.

        Args:
            kind: format of the column.
        """
        return kind in _NUMERIC

    def missing(self, value: Message | Value | None) -> bool:
        """Return whether a value was not measured.

        A value was not measured if it is None or NaN (not a number).
        """
        return value is None or (isinstance(value, float) and value != value)
