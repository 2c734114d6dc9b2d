"""Write an exported list as an Excel workbook, row by row.

The first sheet has the list, with the company, the title and the period above it. The second sheet
states how the list was made. No text of a row becomes a formula (CWE-1236).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from datetime import date, datetime
from typing import IO, TYPE_CHECKING, Any

from include.evidence.model import Outcome
from include.exports.model import EXCEL_ROWS, ExportTable
from include.messages import Message, _
from include.reports.i18n import Translator, visible
from include.reports.model import Cell

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.styles import Font

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_FORMULA_STARTS = tuple("=+-@'\t\r\n")
_MOST_CHARACTERS = 32_767  # of a cell in Excel
_CUT = "…"
_COLOURS = {Outcome.PASS: "FF1D6B43", Outcome.ATTENTION: "FF8A5300", Outcome.FAIL: "FFB02A25"}
_ALARM = "FFB02A25"
_TITLE_CHARACTERS = 31  # of a sheet's name in Excel
_FOOTER_CHARACTERS = 100
_EXCEL_ESCAPE = re.compile("_x[0-9A-Fa-f]{4}_")


def write_excel(
    table: ExportTable, locale: str, timezone: str, stream: IO[bytes], limit: int = EXCEL_ROWS
) -> None:
    """Write a list as an Excel workbook (.xlsx).

    The rows are written while they are read. If the function fails, no temporary file remains.

    Args:
        table: the list.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name of the timezone of all times.
        stream: binary file that the workbook is written to.
        limit: largest number of rows. Further rows are omitted, and a warning reports this.
    """
    from openpyxl import Workbook  # not at the top, because importing it takes a tenth of a second

    book = Workbook(write_only=True)
    try:
        _BookWriter(book, Translator(locale, timezone)).write(table, limit)
        book.save(stream)
    finally:
        for sheet in book.worksheets:
            _remove_temporary_file(sheet)


def _remove_temporary_file(sheet: Any) -> None:
    """Remove the temporary file of a sheet that could not be saved."""
    if sheet._writer is not None:
        with suppress(FileNotFoundError, ValueError):  # openpyxl removes it after it was saved
            sheet._writer.cleanup()


class _BookWriter:
    """Writes the sheets of a workbook in one language."""

    def __init__(self, book: Workbook, translator: Translator) -> None:
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.styles import Alignment, Border, Font, PatternFill, Side

        self._book = book
        self._translator = translator
        self._new_cell: Any = WriteOnlyCell
        self._alignment = Alignment(vertical="top", wrap_text=True)
        self._head_fill = PatternFill("solid", fgColor="FFE4E9F2")
        side = Side(style="thin", color="FFB0B7C3")
        self._border = Border(left=side, right=side, top=side, bottom=side)
        self._plain, self._bold = Font(name="Calibri", size=11), Font(name="Calibri", bold=True)
        self._large = Font(name="Calibri", size=14, bold=True)
        self._alarm = Font(name="Calibri", bold=True, color=_ALARM)
        self._outcomes = {
            outcome: Font(name="Calibri", bold=True, color=colour)
            for outcome, colour in _COLOURS.items()
        }
        self._styles: dict[object, Any] = {}

    def write(self, table: ExportTable, limit: int) -> None:
        """Write the sheet with the list, and the sheet that states how it was made."""
        title = self._text(table.title)
        properties = self._book.properties
        properties.creator, properties.title = "ParcelSeal", title
        self._write_list(table, title, limit)
        self._write_facts(table, title, limit)

    def _write_list(self, table: ExportTable, title: str, limit: int) -> None:
        from openpyxl.utils import get_column_letter

        sheet: Any = self._book.create_sheet(title[:_TITLE_CHARACTERS])
        head = self._head_rows(sheet, table, limit)
        heading_row = len(head) + 1
        last_column = get_column_letter(len(table.labels))
        for number, width in enumerate(table.widths, 1):
            sheet.column_dimensions[get_column_letter(number)].width = width
        sheet.freeze_panes = f"A{heading_row + 1}"
        sheet.print_title_rows = f"{heading_row}:{heading_row}"
        self._set_up_page(sheet, table, title)
        for row in head:
            sheet.append(row)
        sheet.append(
            [self._cell(sheet, self._text(label), self._bold, head=True) for label in table.labels]
        )
        rows = 0
        for values in table.first_rows(limit):
            sheet.append([self._value(sheet, value) for value in values])
            rows += 1
        sheet.auto_filter.ref = f"A{heading_row}:{last_column}{heading_row + rows}"

    def _head_rows(self, sheet: Any, table: ExportTable, limit: int) -> list[list[Any]]:
        """Return the rows above the list: company and policy, title and period, and warnings."""
        rows = []
        if table.letterhead:
            company = self._text(table.letterhead.company)
            rows.append([self._line(sheet, company, self._bold)])
        rows.append([self._line(sheet, self._text(table.heading), self._large)])
        rows += [[self._line(sheet, self._text(note), self._alarm)] for note in table.notes(limit)]
        return rows

    def _set_up_page(self, sheet: Any, table: ExportTable, title: str) -> None:
        """Set up how a sheet is printed: A4 in landscape format, as wide as the page."""
        from openpyxl.worksheet.properties import PageSetupProperties

        sheet.page_setup.orientation = "landscape"
        sheet.page_setup.paperSize = 9  # A4
        sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
        sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
        page_number = self._text(_("Page {page} of {pages}", page="\ue000", pages="\ue001"))
        company = self._text(table.letterhead.company) if table.letterhead else ""
        sheet.oddHeader.right.text = _margin(company)
        sheet.oddFooter.left.text = _margin(self._text(table.heading))
        sheet.oddFooter.right.text = (
            _margin(page_number).replace("\ue000", "&P").replace("\ue001", "&N")
        )

    def _write_facts(self, table: ExportTable, title: str, limit: int) -> None:
        name = self._text(_("About this export"))
        sheet: Any = self._book.create_sheet(name[:_TITLE_CHARACTERS])
        sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = 34, 90
        self._set_up_page(sheet, table, title)
        for label, value in self._facts(table):
            sheet.append(
                [self._cell(sheet, self._text(label), self._bold), self._value(sheet, value)]
            )
        for note in table.notes(limit):
            sheet.append([None, self._cell(sheet, self._text(note), self._alarm)])

    def _facts(self, table: ExportTable) -> list[tuple[Message, Cell]]:
        letterhead = table.letterhead
        stated: list[tuple[Message, Cell]] = []
        if letterhead:
            stated = [(_("Company"), letterhead.company), (_("Address"), letterhead.address)]
            if letterhead.credit_code:
                stated.append((_("Unified social credit code"), letterhead.credit_code))
            if letterhead.policy:
                stated.append((_("Policy and version"), letterhead.policy))
        zone = self._translator.zone_name()
        return [
            *stated,
            (_("List"), table.title),
            *table.all_facts(),
            (_("Timezone of all times"), zone),
        ]

    def _text(self, message: Message) -> str:
        return self._translator.text(message)

    def _line(self, sheet: Any, text: str, font: Font) -> Any:
        """Return a cell above the list. Its text is in one line and may extend over other cells."""
        return self._cell(sheet, text, font, in_table=False)

    def _value(self, sheet: Any, value: Cell) -> Any:
        """Return the cell of a value. Times, dates and numbers keep their type."""
        if value is None:
            return None
        if isinstance(value, Outcome):
            return self._cell(sheet, self._translator.outcome(value), self._outcomes[value])
        if isinstance(value, bool | Message | str):
            return self._cell(sheet, self._translator.value(value), self._plain)
        if isinstance(value, datetime):
            local = value.astimezone(self._translator.zone).replace(tzinfo=None)
            return self._figure(sheet, local, "yyyy-mm-dd hh:mm")
        if isinstance(value, date):
            return self._figure(sheet, value, "yyyy-mm-dd")
        return self._figure(sheet, value, "#,##0.###" if isinstance(value, float) else "0")

    def _figure(self, sheet: Any, value: object, number_format: str) -> Any:
        cell = self._new_cell(sheet, value)
        if number_format not in self._styles:
            cell.font, cell.alignment, cell.border = self._plain, self._alignment, self._border
            cell.number_format = number_format
            self._styles[number_format] = copy(cell._style)
        cell._style = copy(self._styles[number_format])
        return cell

    def _cell(
        self, sheet: Any, text: str, font: Font, *, head: bool = False, in_table: bool = True
    ) -> Any:
        """Return a cell with a text that never becomes a formula.

        Args:
            sheet: sheet of the cell.
            text: the text.
            font: font of the text.
            head: whether the cell is the heading of a column.
            in_table: whether the cell has a border and breaks a long text into lines.
        """
        shown, is_quoted = cell_text(text)
        cell = self._new_cell(sheet, shown)
        cell.data_type = "s"  # openpyxl reads a text that starts with "=" as a formula
        key = id(font), head, in_table, is_quoted
        if key not in self._styles:  # cells share styles, because a style is slow to create
            cell.font, cell.number_format = font, "@"
            cell.quotePrefix = is_quoted  # Excel keeps it as text when the cell is edited
            if in_table:
                cell.alignment, cell.border = self._alignment, self._border
            if head:
                cell.fill = self._head_fill
            self._styles[key] = copy(cell._style)
        cell._style = copy(self._styles[key])
        return cell


def cell_text(text: str) -> tuple[str, bool]:
    """Return a text that fits into a cell, and whether the cell needs a quote prefix.

    With the prefix, Excel keeps a text such as ``=1+1`` as text when a person edits the cell.

    Args:
        text: the text. A longer text than Excel permits is cut.
    """
    shown = _escape(text)
    if len(shown) > _MOST_CHARACTERS:
        shown = shown[: _MOST_CHARACTERS - 1] + _CUT
    return shown, shown.startswith(_FORMULA_STARTS)


def _escape(text: str) -> str:
    r"""Return a text in which Excel shows every character as it is.

    Control characters become escapes such as ``\u0007``. Excel would read ``_x0041_`` as the
    letter A (ECMA-376-1:2016, 22.9.2.19), so its first character is written as ``_x005F_``.
    """
    return _EXCEL_ESCAPE.sub(r"_x005F\g<0>", visible(text))


def _margin(text: str) -> str:
    """Return a text for the header or footer of a sheet, in which & begins a field."""
    line: Sequence[str] = _escape(text).split()
    return " ".join(line)[:_FOOTER_CHARACTERS].replace("&", "&&")
