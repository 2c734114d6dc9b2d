"""The cells of a returned workbook, as far as they are needed."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from include.messages import _
from include.workbooks.faults import Fault, WorkbookRefused
from include.workbooks.file import Examined

_DAY = re.compile(r"(20\d\d) ?[-/.年] ?(\d{1,2}) ?[-/.月] ?(\d{1,2}) ?日?")
_DAY_ZERO = datetime(1899, 12, 30)  # noqa: DTZ001 - of Excel's days, which have no timezone
_LEAP = 60  # the number of that day
_SERIAL = (36_526, 73_050)  # days of 2000 to 2099
_CONTROL = re.compile(r"_x00(?:[01][0-9A-Fa-f]|7[Ff])_")  # as the file format writes them


@dataclass(frozen=True)
class Grid:
    """The cells of one sheet.

    Attributes:
        name: of the sheet.
        rows: values from A1 on; all rows have the same length.
        formulas: places (row, column), 1-based, that hold a formula; their value is None.
    """

    name: str
    rows: list[list[Any]]
    formulas: frozenset[tuple[int, int]]

    def text(self, row: int, column: int) -> str:
        """Return the text of a cell; a number is a text too, and a blank cell is empty."""
        return text_of(self._value(row, column))

    def whole(self, row: int, column: int) -> int | None:
        """The whole number in a cell, None when there is none."""
        value = self._value(row, column)
        if isinstance(value, datetime):  # somebody formatted the column as dates
            value = (value - _DAY_ZERO) / timedelta(days=1)
            value -= value <= _LEAP  # Excel counts a 29 February 1900
        if isinstance(value, bool):
            return None
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,15}\s*", value):
            return int(value)
        return value if isinstance(value, int) else None

    def day(self, row: int, column: int) -> date | None:
        """The day in a cell: a date, its number or its text; None when it is none."""
        value = self._value(row, column)
        if isinstance(value, datetime):
            return value.date()
        if isinstance(value, date):
            return value
        if isinstance(value, int | float) and _SERIAL[0] <= value < _SERIAL[1]:
            return (_DAY_ZERO + timedelta(days=int(value))).date()
        match = _DAY.fullmatch(text_of(value).strip())
        try:
            return date(*map(int, match.groups())) if match else None
        except ValueError:
            return None

    def is_formula(self, row: int, column: int) -> bool:
        """Return whether there is a formula, which is a fault already."""
        return (row, column) in self.formulas

    def _value(self, row: int, column: int) -> Any:
        if 0 < row <= len(self.rows) and 0 < column <= len(self.rows[row - 1]):
            return self.rows[row - 1][column - 1]
        return None


def grids(
    examined: Examined, names: Collection[str], file: str
) -> tuple[list[str], dict[str, Grid]]:
    """Read the sheets that have one of the names.

    Returns:
        The names of all sheets in the workbook, and the sheets that were asked for.

    Raises:
        WorkbookRefused: the file is damaged in a way that only its reading shows.
    """
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library leaves out is nothing of ours
            book = load_workbook(io.BytesIO(examined.content), read_only=True, keep_links=False)
            found = {
                sheet.title: _grid(sheet, examined.rows, examined.columns)
                for sheet in book.worksheets
                if sheet.title in names
            }
    except Exception as error:
        fault = Fault(
            "",
            "",
            _("The file is damaged: its cells cannot be read."),
            _("Open it in a spreadsheet program, save it as .xlsx and hand it in again."),
        )
        raise WorkbookRefused(file, [*examined.faults, fault]) from error
    return list(book.sheetnames), found


def _grid(sheet: Any, rows: int, columns: int) -> Grid:
    values: list[list[Any]] = []
    formulas: set[tuple[int, int]] = set()
    for row, cells in enumerate(sheet.iter_rows(max_row=rows, max_col=columns), 1):
        kept = []
        for column, cell in enumerate(cells, 1):
            if cell.data_type == "f":
                formulas.add((row, column))
            kept.append(None if cell.data_type == "f" else cell.value)
        values.append(kept)
    return Grid(sheet.title, values, frozenset(formulas))


def other_sheets(wanted: Sequence[str], titles: Sequence[str]) -> list[Fault]:
    """Faults of a workbook that has not just the sheets with which it was issued."""
    absent = [title for title in wanted if title not in titles]
    added = [title for title in titles if title not in wanted]
    put_back = _("Put it back under this name, or fill in the workbook that was issued anew.")
    take_away = _("Remove it, or give it back the name with which it was issued.")
    return [
        *(
            Fault(name, "", _("The sheet is missing: removed or renamed."), put_back)
            for name in absent
        ),
        *(
            Fault(name, "", _("The sheet was not issued: added or renamed."), take_away)
            for name in added
        ),
    ]


def text_of(value: Any) -> str:
    """A cell's value as the text that a person sees, with line feeds alone."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, date | time):
        return value.isoformat()
    said = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(" ", said)


def place(row: int, column: int) -> str:
    """Return the name of a cell, ``F7``."""
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column)}{row}"


def places(cells: Iterable[tuple[int, int]]) -> str:
    """The names of cells (row, column), those below each other as a range: ``F5:F9, G12``."""
    ranges: list[list[int]] = []  # column, first and last row
    for column, row in sorted((column, row) for row, column in cells):
        if ranges and ranges[-1][0] == column and ranges[-1][2] == row - 1:
            ranges[-1][2] = row
        else:
            ranges.append([column, row, row])
    return ", ".join(
        place(first, column) + (f":{place(last, column)}" if last > first else "")
        for column, first, last in ranges
    )
