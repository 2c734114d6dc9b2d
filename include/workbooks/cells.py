"""Read the cells of a workbook that a person filled in and returned."""

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
from include.workbooks.file import CheckedFile

_DAY = re.compile(r"(20\d\d) ?[-/.年] ?(\d{1,2}) ?[-/.月] ?(\d{1,2}) ?日?")
_DAY_ZERO = datetime(1899, 12, 30)  # noqa: DTZ001 - Excel's days have no timezone
_LEAP = 60  # Excel's day number of 29 February 1900, which did not exist
_SERIAL = (36_526, 73_050)  # Excel's day numbers of the years 2000 to 2099
_CONTROL = re.compile(r"_x00(?:[01][0-9A-Fa-f]|7[Ff])_")  # escaped control characters


@dataclass(frozen=True)
class Grid:
    """The cells of a sheet.

    Attributes:
        name: name of the sheet.
        rows: values of the cells by row and column, starting with A1. All rows have the same
            length.
        formulas: cells with a formula, as 1-based pairs of row and column. In ``rows``, their value
            is None.
    """

    name: str
    rows: list[list[Any]]
    formulas: frozenset[tuple[int, int]]

    def text(self, row: int, column: int) -> str:
        """Return the value of a cell as text. The text of a blank cell is empty.

        Args:
            row: number of the row, from 1.
            column: number of the column, from 1.
        """
        return text_of(self._value(row, column))

    def whole(self, row: int, column: int) -> int | None:
        """Return the integer in a cell, or None if the cell contains no integer.

        Args:
            row: number of the row, from 1.
            column: number of the column, from 1.
        """
        value = self._value(row, column)
        if isinstance(value, datetime):  # the cell was formatted as a date
            value = (value - _DAY_ZERO) / timedelta(days=1)
            value -= value <= _LEAP  # Excel numbers 29 February 1900, which did not exist
        if isinstance(value, bool):
            return None
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,15}\s*", value):
            return int(value)
        return value if isinstance(value, int) else None

    def day(self, row: int, column: int) -> date | None:
        """Return the date in a cell, or None if the cell contains no date.

        The cell may contain a date, an Excel day number or a date as text.

        Args:
            row: number of the row, from 1.
            column: number of the column, from 1.
        """
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
        """Return whether a cell has a formula.

        The caller need not record a fault for the formula, because `check_file` has already done
        so.
        """
        return (row, column) in self.formulas

    def _value(self, row: int, column: int) -> Any:
        if 0 < row <= len(self.rows) and 0 < column <= len(self.rows[row - 1]):
            return self.rows[row - 1][column - 1]
        return None


def read_grids(
    checked_file: CheckedFile, names: Collection[str], file: str
) -> tuple[list[str], dict[str, Grid]]:
    """Read those sheets of a workbook that have the given names.

    Args:
        checked_file: result of `check_file`.
        names: names of the sheets to read.
        file: name of the file, for messages.

    Returns:
        The names of all sheets in the workbook, and the cells of the sheets that were read, by
        sheet name.

    Raises:
        WorkbookRefused: the file is damaged.
    """
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unsupported features do not matter here
            book = load_workbook(io.BytesIO(checked_file.content), read_only=True, keep_links=False)
            grids_read = {
                sheet.title: _grid(sheet, checked_file.rows, checked_file.columns)
                for sheet in book.worksheets
                if sheet.title in names
            }
    except Exception as error:
        fault = Fault(
            "",
            "",
            _("The file is damaged: its cells cannot be read."),
            _("Open the file in a spreadsheet program, save it as .xlsx and hand it in again."),
        )
        raise WorkbookRefused(file, [*checked_file.faults, fault]) from error
    return list(book.sheetnames), grids_read


def _grid(sheet: Any, rows: int, columns: int) -> Grid:
    values: list[list[Any]] = []
    formulas: set[tuple[int, int]] = set()
    for row, cells in enumerate(sheet.iter_rows(max_row=rows, max_col=columns), 1):
        row_values = []
        for column, cell in enumerate(cells, 1):
            if cell.data_type == "f":
                formulas.add((row, column))
            row_values.append(None if cell.data_type == "f" else cell.value)
        values.append(row_values)
    return Grid(sheet.title, values, frozenset(formulas))


def sheet_faults(issued: Sequence[str], titles: Sequence[str]) -> list[Fault]:
    """Return a fault for each sheet that is missing in a returned workbook or was added to it.

    Args:
        issued: names of the sheets in the issued workbook.
        titles: names of the sheets in the returned workbook.
    """
    missing = [title for title in issued if title not in titles]
    added = [title for title in titles if title not in issued]
    put_back = _("Restore the sheet with its original name, or fill in the issued workbook again.")
    take_away = _("Remove this sheet, or restore its original name.")
    return [
        *(
            Fault(name, "", _("The sheet is missing: it was removed or renamed."), put_back)
            for name in missing
        ),
        *(
            Fault(
                name,
                "",
                _("The sheet is not part of the issued workbook: it was added or renamed."),
                take_away,
            )
            for name in added
        ),
    ]


def text_of(value: Any) -> str:
    """Return the value of a cell as text.

    Line breaks of any kind become line feeds, and other control characters become spaces.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, date | time):
        return value.isoformat()
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(" ", text)


def cell_name(row: int, column: int) -> str:
    """Return the name of a cell, such as ``F7``.

    Args:
        row: number of the row, from 1.
        column: number of the column, from 1.
    """
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column)}{row}"


def cell_ranges(cells: Iterable[tuple[int, int]]) -> str:
    """Return the names of cells as text, such as ``F5:F9, G12``.

    Adjacent cells of a column are combined into a range, such as ``F5:F9``.

    Args:
        cells: cells as (row, column).
    """
    ranges: list[list[int]] = []  # column, first row, last row
    for column, row in sorted((column, row) for row, column in cells):
        if ranges and ranges[-1][0] == column and ranges[-1][2] == row - 1:
            ranges[-1][2] = row
        else:
            ranges.append([column, row, row])
    return ", ".join(
        cell_name(first, column) + (f":{cell_name(last, column)}" if last > first else "")
        for column, first, last in ranges
    )
