"""The model of an exported list, independent of language and file format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Generic, TypeVar

from include.messages import Message, _
from include.reports.letterhead import Letterhead
from include.reports.model import Cell

RowT = TypeVar("RowT")

EXCEL_ROWS = 50_000
"""Largest number of rows of an Excel file. Further rows are omitted, and a warning reports this."""
PDF_ROWS = 1_000
"""Largest number of rows of a PDF file. Further rows are omitted, and a warning reports this."""


@dataclass(frozen=True)
class ExportColumn(Generic[RowT]):
    """A column of an exported list.

    Attributes:
        label: heading of the column.
        width: width of the column in characters of a spreadsheet. In a PDF file, the columns share
            the page in the same proportions.
        cell: function that returns the value of a row. Dates, times and numbers stay dates, times
            and numbers in Excel. None is an empty cell.
    """

    label: Message
    width: int
    cell: Callable[[RowT], Cell]


@dataclass(frozen=True)
class ExportTable:
    """A list that is exported.

    Attributes:
        title: title of the list.
        period: period or date that the list covers.
        letterhead: company and policy; None if the policy pack states no company.
        created_at: time of the export.
        created_by: person who exported the list.
        labels: headings of the columns.
        widths: widths of the columns, as in `ExportColumn`.
        rows: values of the cells, row by row. The iterator is read once.
        total: number of rows of the complete list.
        facts: further statements about the list, such as its filter: label and value.
        warnings: reasons not to rely on the list, such as missing evidence. The file shows them
            above the list.
    """

    title: Message
    period: Message
    letterhead: Letterhead | None
    created_at: datetime
    created_by: str
    labels: Sequence[Message]
    widths: Sequence[int]
    rows: Iterator[Sequence[Cell]]
    total: int
    facts: Sequence[tuple[Message, Cell]] = ()
    warnings: Sequence[Message] = field(default_factory=tuple)

    @property
    def heading(self) -> Message:
        """Return the title and the period of the list as one text."""
        return _("{title}: {period}", title=self.title, period=self.period)

    def first_rows(self, limit: int) -> Iterator[Sequence[Cell]]:
        """Yield at most the given number of rows."""
        return islice(self.rows, limit)

    def notes(self, limit: int) -> list[Message]:
        """Return the warnings of the list. If rows are omitted, the last warning reports it.

        Args:
            limit: largest number of rows of the file.
        """
        return [*self.warnings, *([cut_note(limit, self.total)] if self.total > limit else [])]

    def all_facts(self) -> list[tuple[Message, Cell]]:
        """Return the labels and values of all statements about the list."""
        return [
            (_("Period"), self.period),
            *self.facts,
            (_("Number of rows"), self.total),
            (_("Exported at"), self.created_at),
            (_("Exported by"), self.created_by),
        ]


def cut_note(limit: int, total: int) -> Message:
    """Return the text which says that a file has only the first rows of a list.

    Args:
        limit: number of rows in the file.
        total: number of rows of the complete list.
    """
    return _(
        "INCOMPLETE: this file has the first {limit} of {total} rows. Export a shorter period or "
        "use a filter to get the other rows.",
        limit=limit,
        total=total,
    )


def rows_of(
    columns: Sequence[ExportColumn[RowT]], objects: Iterable[RowT]
) -> Iterator[Sequence[Cell]]:
    """Yield the cells of each object.

    Args:
        columns: columns of the list.
        objects: objects that the list shows, one in each row.
    """
    for item in objects:
        yield [column.cell(item) for column in columns]
