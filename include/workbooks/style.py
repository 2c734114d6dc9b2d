"""Format the cells, columns and pages of a workbook that people fill in."""

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
from include.workbooks.forms import escape_text, in_two_lines

LINE = 15.5  # points
TITLE = Font(name="Calibri", size=14, bold=True)
SMALL = Font(name="Calibri", size=9, color="FF555555")
_PLAIN, BOLD = Font(name="Calibri", size=11), Font(name="Calibri", size=11, bold=True)
_MAX_ROW_HEIGHT = 409.0  # points of a row in Excel
_MIN_WIDTH, _MAX_WIDTH, _MAX_LINES = 28, 60, 12
TEXT = "@"  # typed text stays text: "-1" does not start a formula
_SIDE = Side(style="thin", color="FFB0B7C3")
_FRAME = Border(left=_SIDE, right=_SIDE, top=_SIDE, bottom=_SIDE)
_HEAD = PatternFill("solid", fgColor="FFE4E9F2")
_OPEN = PatternFill("solid", fgColor="FFFFF9E3")
_DAY_ZERO = date(1899, 12, 30)  # day zero of Excel
LEFT, RIGHT = 52, 74  # widths of the two columns of the first sheet


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
    """Write a text into a locked cell.

    A text such as ``=1+1`` stays a text and does not become a formula (CWE-1236).

    Args:
        sheet: sheet of the cell.
        row: row number of the cell.
        column: column number of the cell.
        words: the text.
        font: font of the text.
        wrap: whether a long text is broken into several lines.
        head: whether the cell is formatted as a heading.
    """
    cell = _cell(sheet, row, column)
    cell.value = words
    cell.data_type = "s"  # openpyxl reads a text that starts with "=" as a formula
    cell.number_format = TEXT
    cell.quotePrefix = words[:1] in "=+-@'"  # Excel keeps it as text when the cell is edited
    cell.font = BOLD if head else font
    cell.alignment = Alignment(vertical="top", wrap_text=wrap or head)
    if head:
        cell.fill = _HEAD
    if head or wrap:
        cell.border = _FRAME


def number(sheet: Worksheet, row: int, column: int, figure: int) -> None:
    """Write a number into a locked cell."""
    cell = _cell(sheet, row, column)
    cell.value = figure
    cell.alignment = Alignment(vertical="top", horizontal="right")
    cell.border = _FRAME


def input_cell(sheet: Worksheet, row: int, column: int, number_format: str = TEXT) -> None:
    """Format an unlocked cell in which people enter a value.

    Args:
        sheet: sheet of the cell.
        row: row number of the cell.
        column: column number of the cell.
        number_format: Excel's number format of the cell; by default text.
    """
    cell = _cell(sheet, row, column)
    cell.protection = Protection(locked=False)
    cell.number_format = number_format
    cell.alignment = Alignment(vertical="top", horizontal="left", wrap_text=True)
    cell.fill = _OPEN
    cell.border = _FRAME


def protect(sheet: Worksheet) -> None:
    """Lock all cells except the input cells, without a password.

    People can still format cells, sort and filter.
    """
    sheet.protection.enable()
    for action in ("autoFilter", "sort", "formatCells", "formatColumns", "formatRows"):
        setattr(sheet.protection, action, False)  # False means allowed


def print_on_a4(sheet: Worksheet, name: str, *, landscape: bool) -> None:
    """Set up how a sheet is printed: on A4 pages with page numbers, and not wider than one page.

    Args:
        sheet: the sheet.
        name: text in the footer of each page.
        landscape: whether the pages are in landscape format.
    """
    sheet.page_setup.orientation = "landscape" if landscape else "portrait"
    sheet.page_setup.paperSize = 9  # A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    for side in ("left", "right"):
        setattr(sheet.page_margins, side, 0.4)
    footer: Any = sheet.oddFooter
    footer.left.text = escape_text(name)[:100].replace("&", "&&")  # Excel: 255 in the footer
    footer.right.text = "&P / &N"


def width_for(words: str) -> int:
    """Return a column width in characters at which a text needs at most `_MAX_LINES` lines.

    The width never exceeds `_MAX_WIDTH`, even if the text then needs more lines.

    Args:
        words: the text.
    """
    width = _MIN_WIDTH
    while width < _MAX_WIDTH and _lines(words, width) > _MAX_LINES:
        width += 4
    return width


def height(words: str, width: int) -> float:
    """Return the height in points that a row needs to show a text completely.

    Args:
        words: the text.
        width: width of the column in characters.
    """
    return min(_MAX_ROW_HEIGHT, LINE * _lines(words, width))


def day_cell(sheet: Worksheet, row: int, column: int, title: str, first_day: date) -> None:
    """Format an unlocked cell in which people enter a date.

    Args:
        sheet: sheet of the cell.
        row: row number of the cell.
        column: column number of the cell.
        title: title of the error message for an invalid entry.
        first_day: earliest expected date. The cell also accepts the day before this date, because
            the timezone of the person may differ.
    """
    input_cell(sheet, row, column, "yyyy-mm-dd")
    figure = (first_day - _DAY_ZERO).days - 1
    rule = DataValidation("date", str(figure), operator="greaterThanOrEqual", allow_blank=True)
    rule.errorTitle, rule.showErrorMessage = title, True
    rule.error = in_two_lines(_("Enter a date such as 2026-10-09, not before the date of issue."))
    rule.add(f"{get_column_letter(column)}{row}")
    sheet.add_data_validation(rule)


def _lines(words: str, width: int) -> int:
    room = (width - 1) * 0.94  # a part of each line stays empty, because words are not hyphenated
    return sum(max(1, math.ceil(_units(line) / room)) for line in words.split("\n"))


def _units(words: str) -> float:
    return sum(2.0 if unicodedata.east_asian_width(letter) in "WFA" else 1.0 for letter in words)


def _cell(sheet: Worksheet, row: int, column: int) -> Cell:
    cell: Any = sheet.cell(row, column)
    assert isinstance(cell, Cell)  # not a merged cell
    return cell
