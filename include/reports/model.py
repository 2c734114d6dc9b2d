"""The model of a report, independent of language and file format.

A workflow builds a `Report`, and `include.reports.render.render_all` renders it as files. A value
of ``None`` always means *not measured*. Reports never show it as an empty cell or as passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from include.evidence.model import ControlStatus, Finding, Outcome, RunContext
from include.frozen import StrictModel
from include.messages import Message, Value, _
from include.reports.letterhead import Letterhead

Cell = Message | Outcome | bool | int | float | datetime | date | str | None

ColumnKind = Literal[
    "text", "number", "bytes", "duration", "percent", "datetime", "outcome", "code"
]

RowT = TypeVar("RowT")
Columns = Sequence[tuple[Message, ColumnKind, Callable[[RowT], Cell]]]
"""Label, kind, and the function that returns the cell of a row, for each column of a table."""


class Fact(StrictModel):
    """A key figure at the head of the report.

    Attributes:
        label: name of the figure, such as "Last restore point".
        value: measured value; None if it was not measured.
        unit: unit of the value, such as ``rows``, ``bytes`` or ``seconds``, as
            `include.reports.i18n.Translator.quantity` describes it.
        status: whether the value meets the target of the figure (passed) or not (failed); None for
            a figure without a target.
        note: short text below the figure, such as its target.
    """

    label: Message
    value: Message | Value | None
    unit: str = ""
    status: Outcome | None = None
    note: Message | None = None


def must_be_zero(figure: float | None) -> Outcome | None:
    """Return the status of a figure whose target is zero: passed if it is 0, else failed.

    Return None if the figure was not measured.
    """
    if figure is None:
        return None
    return Outcome.FAIL if figure else Outcome.PASS


class Paragraph(StrictModel):
    """A paragraph of a report."""

    kind: Literal["paragraph"] = "paragraph"
    text: Message


class Column(StrictModel):
    """A column of a table.

    Attributes:
        label: heading of the column.
        kind: format and alignment of the cells; ``duration`` is a number of seconds, ``percent`` a
            ratio from 0 to 1, ``code`` a name, key or hash.
    """

    label: Message
    kind: ColumnKind = "text"


class Table(StrictModel):
    """A table of a report. The first cell of each row names the row.

    Raises:
        ValueError: a row has more or fewer cells than the table has columns.
    """

    kind: Literal["table"] = "table"
    caption: Message
    columns: list[Column] = Field(min_length=1)
    rows: list[list[Cell]]

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> Table:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of table {self.caption.text!r} has {len(row)} cells "
                    f"for {len(self.columns)} columns"
                )
        return self


def table_of(
    caption: Message,
    rows: Iterable[RowT],
    columns: Columns[RowT],
) -> Table:
    """Return a table with one row for each record.

    Args:
        caption: title of the table.
        rows: objects that the table shows, one in each row.
        columns: for each column, its label, its kind, and the function that returns the cell for an
            object of `rows`.
    """
    return Table(
        caption=caption,
        columns=[Column(label=label, kind=kind) for label, kind, _cell in columns],
        rows=[[cell(row) for _label, _kind, cell in columns] for row in rows],
    )


def text_table(
    caption: Message, labels: Iterable[Message], rows: Iterable[Iterable[Cell]]
) -> Table:
    """Return a table in which every column contains text.

    Args:
        caption: title of the table.
        labels: headings of the columns.
        rows: cells of each row.
    """
    return Table(
        caption=caption,
        columns=[Column(label=label) for label in labels],
        rows=[list(row) for row in rows],
    )


class Bar(StrictModel):
    """A bar of a bar chart.

    Attributes:
        label: name of the bar; a plain string is not translated.
        value: length of the bar in the unit of the chart; None if it was not measured.
        status: outcome that decides colour and hatching; None for a bar without an outcome.
    """

    label: Message | str
    value: float | int | None
    status: Outcome | None = None


class TrendPoint(StrictModel):
    """A measured value of a trend chart.

    Attributes:
        at: time of the measurement, with a timezone.
        value: value in the unit of the chart; None if it was not measured.
        status: outcome that decides the marker; None for a value without an outcome.
    """

    at: datetime
    value: float | int | None
    status: Outcome | None = None


class Target(StrictModel):
    """The target line of a chart.

    Attributes:
        value: target in the unit of the chart.
        label: name of the target.
    """

    value: float | int
    label: Message


class BarChart(StrictModel):
    """A chart of horizontal bars that start at zero, in the order of `bars`.

    Attributes:
        caption: title of the chart, also for screen readers.
        category: name of what each bar represents, such as "Department". It is a column heading in
            the table that repeats the data of the chart.
        unit: unit of the values, as in `Fact`.
        bars: bars from top to bottom.
        target: target line; None if the chart has no target.
    """

    kind: Literal["bars"] = "bars"
    caption: Message
    category: Message
    unit: str = ""
    bars: list[Bar]
    target: Target | None = None


class TrendChart(StrictModel):
    """A chart of values over time, whose value axis starts at zero.

    Attributes:
        caption: title of the chart, also for screen readers.
        unit: unit of the values, as in `Fact`.
        points: measured values.
        target: target line; None if the chart has no target.
    """

    kind: Literal["trend"] = "trend"
    caption: Message
    unit: str = ""
    points: list[TrendPoint]
    target: Target | None = None


class Steps(StrictModel):
    """A numbered list of instructions."""

    kind: Literal["steps"] = "steps"
    items: list[Message]


class Code(StrictModel):
    """Lines for engineers, such as commands. They are displayed unchanged and never translated."""

    kind: Literal["code"] = "code"
    lines: list[str]
    caption: Message | None = None


class SignatureLine(StrictModel):
    """A line on which a person signs.

    Attributes:
        role: responsibility of the person, such as "Reviewed by".
        name: name of the person, if it is known; otherwise the person writes it by hand.
        day: date of the signature, if it is known; otherwise the person writes it by hand.
    """

    role: Message
    name: Message | str = ""
    day: date | None = None


class Signatures(StrictModel):
    """The lines on which people sign a printed report.

    Attributes:
        lines: lines, one for each person.
    """

    kind: Literal["signatures"] = "signatures"
    lines: list[SignatureLine] = Field(min_length=1)


Block = Annotated[
    Paragraph | Table | BarChart | TrendChart | Steps | Code | Signatures,
    Field(discriminator="kind"),
]


class Section(StrictModel):
    """A part of the report with its own heading. Sections follow the findings."""

    heading: Message
    blocks: list[Block]


def signature_section(*lines: SignatureLine) -> Section:
    """Return the section of a report on which people sign.

    Args:
        lines: lines, one for each person.
    """
    return Section(heading=_("Signatures"), blocks=[Signatures(lines=list(lines))])


class Report(StrictModel):
    """The content of a report, independent of the language.

    Attributes:
        title: subject of the run, such as "Off-site backup".
        summary: result of the run in a single sentence.
        run: trigger, times, code version and policy version of the run.
        outcome: outcome of the run.
        finished_at: end of the run's measurements, from which the age of the evidence counts.
        number: number of the report; empty if it has none.
        letterhead: company and policy at the head of the report; None if the policy pack states no
            company.
        controls: controls for which the run is evidence, with their status.
        facts: key figures, in reading order.
        sections: sections that follow the findings.
        findings: findings of the run.
        clauses: number of a clause -> its number and title, for the clauses of the findings.
        not_made: files and parts of the report that could not be created: name -> reason in
            English.
        could_not_run: whether the run did nothing, because it was refused, its inputs were wrong,
            or the policy pack lacks the rules.
    """

    title: Message
    summary: Message
    run: RunContext
    outcome: Outcome
    finished_at: datetime
    number: str = ""
    letterhead: Letterhead | None = None
    controls: Sequence[ControlStatus] = []
    facts: Sequence[Fact] = []
    sections: Sequence[Section] = []
    findings: Sequence[Finding] = []
    clauses: Mapping[str, Message] = {}
    not_made: Mapping[str, str] = {}
    could_not_run: bool = False
