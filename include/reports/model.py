"""The model of a report, independent of language and file format.

A workflow builds one `Report`; `include.reports.render.render_all` makes the files of it.
``None`` always means *not measured* and is shown as that, never as an empty cell or a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from include.evidence.model import ControlStatus, Finding, Outcome, RunContext
from include.frozen import StrictModel
from include.messages import Message, Value

Cell = Message | Outcome | bool | int | float | datetime | date | str | None

ColumnKind = Literal[
    "text", "number", "bytes", "duration", "percent", "datetime", "outcome", "code"
]

RowT = TypeVar("RowT")
Columns = Sequence[tuple[Message, ColumnKind, Callable[[RowT], Cell]]]
"""Label, kind and the cell of a row, for each column of a table."""


class Fact(StrictModel):
    """A head card, which a compliance officer reads in the first ten seconds.

    Attributes:
        label: what it is, "Last restore point".
        value: what was seen; None when it was not measured.
        unit: ``rows``, ``bytes``, ``seconds``, ``percent`` (value 0 to 1) ...; see
            `include.reports.i18n.Translator.quantity`.
        status: whether the figure is as it should be, None when there is no target.
        note: one short line under the figure, such as its target.
    """

    label: Message
    value: Message | Value | None
    unit: str = ""
    status: Outcome | None = None
    note: Message | None = None


def must_be_zero(figure: float | None) -> Outcome | None:
    """Return the status of a figure that must be zero; None if it was not measured."""
    if figure is None:
        return None
    return Outcome.FAIL if figure else Outcome.PASS


class Paragraph(StrictModel):
    """One paragraph of running text."""

    kind: Literal["paragraph"] = "paragraph"
    text: Message


class Column(StrictModel):
    """A table column; its kind decides format and alignment.

    ``duration`` is in seconds, ``percent`` a ratio from 0 to 1, ``code`` a name, key or hash.
    """

    label: Message
    kind: ColumnKind = "text"


class Table(StrictModel):
    """A table; the first cell of a row names the row.

    Raises:
        ValueError: a row has not one cell per column.
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
    """Return a table of records, each a row.

    Args:
        caption: title of the table.
        rows: the records.
        columns: of the table.
    """
    return Table(
        caption=caption,
        columns=[Column(label=label, kind=kind) for label, kind, _cell in columns],
        rows=[[cell(row) for _label, _kind, cell in columns] for row in rows],
    )


def text_table(
    caption: Message, labels: Iterable[Message], rows: Iterable[Iterable[Cell]]
) -> Table:
    """Return a table of columns that are all text.

    Args:
        caption: title of the table.
        labels: of the columns.
        rows: the cells of each row.
    """
    return Table(
        caption=caption,
        columns=[Column(label=label) for label in labels],
        rows=[list(row) for row in rows],
    )


class Bar(StrictModel):
    """One bar; a plain string as label is a name and is not translated."""

    label: Message | str
    value: float | int | None
    status: Outcome | None = None


class TrendPoint(StrictModel):
    """One measurement in time; ``at`` carries its timezone."""

    at: datetime
    value: float | int | None
    status: Outcome | None = None


class Target(StrictModel):
    """The line that values are held against, in the unit of the chart."""

    value: float | int
    label: Message


class BarChart(StrictModel):
    """Horizontal bars from zero, in the order given.

    Attributes:
        caption: what is shown; also the chart's name for a screen reader.
        category: head of the label column in the data table, "Department".
        unit: as in `Fact`.
    """

    kind: Literal["bars"] = "bars"
    caption: Message
    category: Message
    unit: str = ""
    bars: list[Bar]
    target: Target | None = None


class TrendChart(StrictModel):
    """Values over time from zero; one point or none is drawn as just that."""

    kind: Literal["trend"] = "trend"
    caption: Message
    unit: str = ""
    points: list[TrendPoint]
    target: Target | None = None


class Steps(StrictModel):
    """An ordered list: what to do, what was done."""

    kind: Literal["steps"] = "steps"
    items: list[Message]


class Code(StrictModel):
    """Verbatim lines for engineers; never translated."""

    kind: Literal["code"] = "code"
    lines: list[str]
    caption: Message | None = None


Block = Annotated[
    Paragraph | Table | BarChart | TrendChart | Steps | Code, Field(discriminator="kind")
]


class Section(StrictModel):
    """A headed part of the report, after the findings."""

    heading: Message
    blocks: list[Block]


class Report(StrictModel):
    """A whole report in no language yet.

    Attributes:
        title: what was checked, "Off-site backup".
        summary: one sentence: what held, or what did not.
        run: who ran, when, from which code and policy.
        outcome: of the whole run.
        finished_at: when the checks ended, which is how old the proof is.
        controls: what of the policy this is evidence for, and whether it held.
        facts: the head cards, in reading order.
        findings: what is not as it should be.
        not_made: parts that could not be made -> why, in English.
    """

    title: Message
    summary: Message
    run: RunContext
    outcome: Outcome
    finished_at: datetime
    controls: Sequence[ControlStatus] = []
    facts: Sequence[Fact] = []
    sections: Sequence[Section] = []
    findings: Sequence[Finding] = []
    not_made: Mapping[str, str] = {}
