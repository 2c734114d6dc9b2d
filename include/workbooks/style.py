"""How a workbook that people fill in looks: cells, columns, pages."""

from __future__ import annotations

import math
import unicodedata
from datetime import date
from typing import Any

from openpyxl.cell.cell import Cell
from openpyxl.styles import Alignment, Border, Font, PatternFill, Protection, Side
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from include.messages import _
from include.workbooks.forms import both, plain

LINE = 15.5  # points
TITLE = Font(name="Calibri", size=14, bold=True)
SMALL = Font(name="Calibri", size=9, color="FF555555")
_PLAIN, BOLD = Font(name="Calibri", size=11), Font(name="Calibri", size=11, bold=True)
_HIGHEST = 409.0  # points of a row in Excel
_NARROWEST, _WIDEST, _MOST_LINES = 28, 60, 12
TEXT = "@"  # what is typed stays text: "-1" in a note starts no formula
_SIDE = Side(style="thin", color="FFB0B7C3")
_FRAME = Border(left=_SIDE, right=_SIDE, top=_SIDE, bottom=_SIDE)
_HEAD = PatternFill("solid", fgColor="FFE4E9F2")
_OPEN = PatternFill("solid", fgColor="FFFFF9E3")
_DAY_ZERO = date(1899, 12, 30)  # of Excel's days
LEFT, RIGHT = 52, 74  # widths of a sheet of pairs


def text(
    sheet: Worksheet,
    row: int,
    column: int,
    words: str,
    *,
    font: Font = _PLAIN,
    wrap: bool = False,
    head: bool = False,
) -> None:
    """Write a locked cell whose text stays text, ``=1+1`` too (CWE-1236)."""
    cell = _cell(sheet, row, column)
    cell.value = words
    cell.data_type = "s"  # openpyxl takes what begins with "=" for a formula
    cell.number_format = TEXT
    cell.quotePrefix = words[:1] in "=+-@'"  # Excel keeps it as text when the cell is edited
    cell.font = BOLD if head else font
    cell.alignment = Alignment(vertical="top", wrap_text=wrap or head)
    if head:
        cell.fill = _HEAD
    if head or wrap:
        cell.border = _FRAME


def number(sheet: Worksheet, row: int, column: int, figure: int) -> None:
    """Write a locked number."""
    cell = _cell(sheet, row, column)
    cell.value = figure
    cell.alignment = Alignment(vertical="top", horizontal="right")
    cell.border = _FRAME


def open_cell(sheet: Worksheet, row: int, column: int, number_format: str = TEXT) -> None:
    """Make a cell that is filled in."""
    cell = _cell(sheet, row, column)
    cell.protection = Protection(locked=False)
    cell.number_format = number_format
    cell.alignment = Alignment(vertical="top", horizontal="left", wrap_text=True)
    cell.fill = _OPEN
    cell.border = _FRAME


def protect(sheet: Worksheet) -> None:
    """Lock all but the open cells, without a password; looks and filters stay free."""
    sheet.protection.enable()
    for free in ("autoFilter", "sort", "formatCells", "formatColumns", "formatRows"):
        setattr(sheet.protection, free, False)  # False: not kept from it


def print_on_a4(sheet: Worksheet, name: str, *, landscape: bool) -> None:
    """Set pages up: A4, as wide as the sheet, numbered."""
    sheet.page_setup.orientation = "landscape" if landscape else "portrait"
    sheet.page_setup.paperSize = 9  # A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    for side in ("left", "right"):
        setattr(sheet.page_margins, side, 0.4)
    footer: Any = sheet.oddFooter
    footer.left.text = plain(name)[:100].replace("&", "&&")  # Excel: 255 in all
    footer.right.text = "&P / &N"


def width_for(words: str) -> int:
    """How wide a column has to be for its text to stay low."""
    width = _NARROWEST
    while width < _WIDEST and _lines(words, width) > _MOST_LINES:
        width += 4
    return width


def height(words: str, width: int) -> float:
    """How high a row has to be for a text."""
    return min(_HIGHEST, LINE * _lines(words, width))


def day_cell(sheet: Worksheet, row: int, column: int, title: str, first: date) -> None:
    """Make a cell that is filled in with a day.

    Args:
        sheet: of the cell.
        row: of the cell.
        column: of the cell.
        title: of the message that refuses something else.
        first: nobody writes an earlier day; the day before is let through, so that the reader's
            timezone does not matter.
    """
    open_cell(sheet, row, column, "yyyy-mm-dd")
    figure = (first - _DAY_ZERO).days - 1
    rule = DataValidation("date", str(figure), operator="greaterThanOrEqual", allow_blank=True)
    rule.errorTitle, rule.showErrorMessage = title, True
    rule.error = both(_("Write a day such as 2026-10-09, not before the day of issue."))
    rule.add(f"{get_column_letter(column)}{row}")
    sheet.add_data_validation(rule)


def _lines(words: str, width: int) -> int:
    room = (width - 1) * 0.94  # words do not break
    return sum(max(1, math.ceil(_units(line) / room)) for line in words.split("\n"))


def _units(words: str) -> float:
    return sum(2.0 if unicodedata.east_asian_width(letter) in "WFA" else 1.0 for letter in words)


def _cell(sheet: Worksheet, row: int, column: int) -> Cell:
    cell: Any = sheet.cell(row, column)
    assert isinstance(cell, Cell)  # no cells are merged
    return cell
