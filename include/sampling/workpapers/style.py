"""How workpapers look: cells, columns, pages, and the sheet that says how to fill them in."""

from __future__ import annotations

import math
import unicodedata
from datetime import date, datetime
from typing import Any

from openpyxl.cell.cell import Cell
from openpyxl.styles import Alignment, Border, Font, PatternFill, Protection, Side
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from include.messages import Message, _
from include.reports.i18n import Translator
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer

LINE = 15.5  # points
TITLE = Font(name="Calibri", size=14, bold=True)
SMALL = Font(name="Calibri", size=9, color="FF555555")
_PLAIN, _BOLD = Font(name="Calibri", size=11), Font(name="Calibri", size=11, bold=True)
_HIGHEST = 409.0  # points of a row in Excel
_NARROWEST, _WIDEST, _MOST_LINES = 28, 60, 12
_TEXT = "@"  # what is typed stays text: "-1" in a note starts no formula
_SIDE = Side(style="thin", color="FFB0B7C3")
_FRAME = Border(left=_SIDE, right=_SIDE, top=_SIDE, bottom=_SIDE)
_HEAD = PatternFill("solid", fgColor="FFE4E9F2")
_OPEN = PatternFill("solid", fgColor="FFFFF9E3")
_DAY_ZERO = date(1899, 12, 30)  # of Excel's days
_CHINESE, _ENGLISH = 52, 74  # widths on the sheet of instructions

_MEANINGS = {
    Answer.MET: _("The item meets the criterion, and the record shows it."),
    Answer.DEVIATES: _(
        "The item does not meet the criterion: a deviation. The note says what was seen."
    ),
    Answer.NOT_APPLICABLE: _("The attribute does not apply to this item. The note says why."),
    Answer.NOT_FOUND: _(
        "The record or its proof was not found; the note says where it was looked for. An item "
        "that cannot be tested is treated as a deviation (ISA 530, paragraph 11)."
    ),
}
_STEPS = (
    _("Test every item against every attribute of its sheet: look at the record itself, then "
      "choose an answer from the list in the cell. Question and source stand over the column."),
    _("A blank answer counts as a deviation."),
    _("Every answer but Yes needs a note. A note has {most} characters at most.",
      most=form.LONGEST_NOTE),
    _("Notes tell about the item, not about the customer: no names, addresses, telephone or ID "
      "numbers."),
    _("Who performed the work writes the name and the day above; who reviewed it writes the own "
      "name. They are two different people."),
    _("Only the yellow cells are filled in. Rows may be filtered and, once the sheet's protection "
      "is lifted, sorted; columns may be widened and hidden. Sheets, rows and columns are not "
      "added, removed or renamed, and no formulas, links or macros put in: the file would be "
      "refused."),
    _("The sheets are protected without a password. That guards against slips only; integrity "
      "comes from the draw digest, and from comparing every cell with the draw when the file "
      "returns."),
    _("Save as .xlsx without a password, with Excel, WPS or LibreOffice. The file's name does not "
      "matter."),
)  # fmt: skip


def each(message: Message) -> tuple[str, ...]:
    """A message in Chinese and English; once when both are the same."""
    return tuple(dict.fromkeys(Translator(one).text(message) for one in ("zh_CN", "en")))


def both(message: Message) -> str:
    """A message in Chinese and English, a line each."""
    return "\n".join(each(message))


def text(
    sheet: Worksheet,
    row: int,
    column: int,
    words: str,
    *,
    font: Font = _PLAIN,
    wrap: bool = False,
    head: bool = False,
    framed: bool = False,
) -> None:
    """Write a locked cell whose text stays text, ``=1+1`` too (CWE-1236)."""
    cell = _cell(sheet, row, column)
    cell.value = words
    cell.data_type = "s"  # openpyxl takes what begins with "=" for a formula
    cell.number_format = _TEXT
    cell.quotePrefix = words[:1] in "=+-@'"  # Excel keeps it as text when the cell is edited
    cell.font = _BOLD if head else font
    cell.alignment = Alignment(vertical="top", wrap_text=wrap or head)
    if head:
        cell.fill = _HEAD
    if head or framed or wrap:
        cell.border = _FRAME


def number(sheet: Worksheet, row: int, column: int, figure: int) -> None:
    """Write a locked number."""
    cell = _cell(sheet, row, column)
    cell.value = figure
    cell.alignment = Alignment(vertical="top", horizontal="right")
    cell.border = _FRAME


def open_cell(sheet: Worksheet, row: int, column: int, number_format: str = _TEXT) -> None:
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
    footer.left.text = form.plain(name)[:100].replace("&", "&&")  # Excel: 255 in all
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


def write_instructions(
    sheet: Worksheet, facts: list[tuple[Message, str]], issued_at: datetime
) -> None:
    """Write the sheet with the draw, the people and how to fill the workbook in.

    Args:
        sheet: empty.
        facts: of the draw, with their names.
        issued_at: nobody performs the work before that day.
    """
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = _CHINESE, _ENGLISH
    text(sheet, 1, 1, " / ".join(each(_("Workpapers of audit sampling"))), font=TITLE)
    row = 3
    for name, value in facts:
        _pair(sheet, row, " ".join(each(name)), value)
        row += 1
    row = _people(sheet, row + 1, issued_at)
    row = _heading(sheet, row + 1, _("How to fill the workbook in"))
    for place, step in enumerate(_STEPS, 1):
        chinese, english = (f"{place}. {Translator(one).text(step)}" for one in ("zh_CN", "en"))
        _pair(sheet, row, chinese, english, bold=False)
        row += 1
    row = _heading(sheet, row + 1, _("What the answers mean"))
    for answer, meaning in _MEANINGS.items():
        _pair(sheet, row, form.WORDS[answer], both(meaning))
        row += 1
    protect(sheet)
    print_on_a4(sheet, sheet.title, landscape=False)


def _people(sheet: Worksheet, row: int, issued_at: datetime) -> int:
    for label in (form.PERFORMED_BY, form.PERFORMED_ON, form.REVIEWED_BY):
        text(sheet, row, 1, label, head=True)
        open_cell(sheet, row, 2, "yyyy-mm-dd" if label == form.PERFORMED_ON else _TEXT)
        sheet.row_dimensions[row].height = 20
        if label == form.PERFORMED_ON:
            # A day before, so that the reader's timezone does not matter
            day = (issued_at.date() - _DAY_ZERO).days - 1
            rule = DataValidation("date", str(day), operator="greaterThanOrEqual", allow_blank=True)
            rule.errorTitle, rule.showErrorMessage = form.PERFORMED_ON, True
            rule.error = both(_("Write a day such as 2026-10-09, not before the day of issue."))
            rule.add(f"B{row}")
            sheet.add_data_validation(rule)
        row += 1
    return row


def _heading(sheet: Worksheet, row: int, words: Message) -> int:
    text(sheet, row, 1, " / ".join(each(words)), font=_BOLD)
    return row + 1


def _pair(sheet: Worksheet, row: int, left: str, right: str, *, bold: bool = True) -> None:
    text(sheet, row, 1, left, head=bold, wrap=True)
    text(sheet, row, 2, right, wrap=True)
    sheet.row_dimensions[row].height = max(height(left, _CHINESE), height(right, _ENGLISH)) + 3


def _lines(words: str, width: int) -> int:
    room = (width - 1) * 0.94  # words do not break
    return sum(max(1, math.ceil(_units(one) / room)) for one in words.split("\n"))


def _units(words: str) -> float:
    return sum(2.0 if unicodedata.east_asian_width(one) in "WFA" else 1.0 for one in words)


def _cell(sheet: Worksheet, row: int, column: int) -> Cell:
    cell: Any = sheet.cell(row, column)
    assert isinstance(cell, Cell)  # no cells are merged
    return cell
