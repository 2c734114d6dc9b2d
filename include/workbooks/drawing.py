"""Draw a workbook (.xlsx) that people fill in, without formulas, macros or links.

The sheets are protected without a password, which prevents accidental changes only. Intended
changes are found when a returned workbook is compared with the issued workbook cell by cell
(`include.workbooks.returned`). The same input always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from openpyxl import Workbook
from openpyxl.utils import get_column_letter
from openpyxl.workbook.protection import WorkbookProtection
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from include.messages import Message, _
from include.workbooks import style
from include.workbooks.forms import (
    ANSWER_TITLE,
    Binding,
    Choice,
    Column,
    Cover,
    Entry,
    Table,
    escape_text,
    in_languages,
    in_one_line,
    in_two_lines,
)
from include.workbooks.saving import save_workbook

_NOTE_TITLE = "备注 Note"


def draw(
    title: str,
    issued_at: datetime,
    sheets: Mapping[str, Callable[[Worksheet], None]],
    binding: Binding,
) -> bytes:
    """Return the content of a workbook file.

    Args:
        title: title in the file properties.
        issued_at: time of issue.
        sheets: for each sheet name, the function that fills the sheet.
        binding: content of the hidden last sheet, which identifies this issue; see `Binding`.
    """
    book = Workbook()
    book.remove(book.worksheets[0])
    for name, fill in sheets.items():
        fill(book.create_sheet(name))
    sheet = book.create_sheet(binding.sheet)
    for row, pair in enumerate((*binding.facts, *binding.notes), 1):
        for column, text in enumerate(pair, 1):
            style.text(sheet, row, column, text)
    sheet.sheet_state = "veryHidden"
    style.protect(sheet)
    # Prevents that people remove or rename sheets
    book.security = WorkbookProtection(lockStructure=True)
    return save_workbook(book, title, issued_at)


def draw_cover(sheet: Worksheet, cover: Cover, issued_at: datetime) -> None:
    """Draw the first sheet, which has facts, input cells and instructions."""
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = style.LEFT, style.RIGHT
    style.text(sheet, 1, 1, in_one_line(cover.title), font=style.TITLE)
    facts = [(" ".join(in_languages(name)), value) for name, value in cover.facts]
    first_row = _pairs(sheet, 3, facts) + 1
    for row, field in enumerate(cover.fields, first_row):
        style.text(sheet, row, 1, field.label, head=True)
        if field.early_message is None:
            style.input_cell(sheet, row, 2)
        else:
            style.day_cell(sheet, row, 2, field.label, issued_at.date())
        sheet.row_dimensions[row].height = 20
    row = _heading(sheet, first_row + len(cover.fields) + 1, _("How to fill in the workbook"))
    texts = [in_languages(step) for step in cover.steps]
    steps = [(f"{at}. {texts[0]}", f"{at}. {texts[-1]}") for at, texts in enumerate(texts, 1)]
    row = _pairs(sheet, row, steps, bold=False)
    if cover.legend:
        row = _heading(sheet, row + 1, _("Meaning of the answers"))
        _pairs(sheet, row, [(words, in_two_lines(meaning)) for words, meaning in cover.legend])
    style.protect(sheet)
    style.print_on_a4(sheet, sheet.title, landscape=False)


def draw_table(sheet: Worksheet, table: Table, title: str, footer: str = "") -> None:
    """Draw a table, then protect its sheet and set up the printed pages.

    Args:
        sheet: sheet of the table. The caller must first draw everything else on this sheet.
        table: table to draw.
        title: title in the first row.
        footer: footer of printed pages; if empty, the name of the sheet.
    """
    style.text(sheet, 1, 1, title, font=style.TITLE)
    top, columns = table.header_row, table.columns
    letters = [get_column_letter(column) for column in range(1, len(columns) + 1)]
    for index, (letter, column) in enumerate(zip(letters, columns, strict=True), 1):
        style.text(sheet, top, index, escape_text(column.head), head=True)
        sheet.column_dimensions[letter].width = column.width
        if column.question:
            style.text(sheet, top - 1, index, column.question, wrap=True)
    sheet.row_dimensions[top].height = _height(
        [(escape_text(column.head), column) for column in columns]
    )
    questions = [(column.question, column) for column in columns if column.question]
    if questions:
        sheet.row_dimensions[top - 1].height = _height(questions)
    last = top + len(table.lines)
    for row, line in enumerate(table.lines, top + 1):
        texts: list[tuple[str, Column]] = []
        values = iter(line.values)
        for index, column in enumerate(columns, 1):
            if column.entry is not None:
                style.input_cell(sheet, row, index)
            elif isinstance(value := next(values), int):
                style.number(sheet, row, index, value)
            else:
                style.text(sheet, row, index, value, wrap=True)
                texts.append((value, column))
        if (height := _height(texts)) > style.LINE:  # else the row grows with its note
            sheet.row_dimensions[row].height = height
    _add_validations(sheet, table, letters, last)
    sheet.freeze_panes = f"{letters[table.frozen]}{top + 1}"
    sheet.print_title_rows = f"{top - bool(questions)}:{top}"
    if table.arranged:
        sheet.auto_filter.ref = f"A{top}:{letters[-1]}{max(last, top + 1)}"
    style.protect(sheet)
    style.print_on_a4(sheet, footer or sheet.title, landscape=True)


def draw_choice(sheet: Worksheet, row: int, label: str, choice: Choice[StrEnum]) -> None:
    """Draw a label and, to its right, an input cell with a drop-down list of answers."""
    style.text(sheet, row, 1, label, head=True)
    style.input_cell(sheet, row, 2)
    sheet.row_dimensions[row].height = 2 * style.LINE
    _add_validation(sheet, choice, f"B{row}")


def _add_validations(sheet: Worksheet, table: Table, letters: list[str], last: int) -> None:
    """Add drop-down lists of answers and length limits to the input cells of a table.

    Args:
        sheet: sheet of the table.
        table: the table.
        letters: letter of each column, such as ``C``, from left to right.
        last: number of the last row.
    """
    if not table.lines:
        return
    top = table.header_row + 1
    own_heads = {head for line in table.lines for head in line.entries}
    columns = zip(letters, table.columns, strict=True)
    for (entry, head), group in groupby(
        columns, key=lambda pair: (pair[1].entry, pair[1].head in own_heads and pair[1].head)
    ):
        letters = [letter for letter, _column in group]
        if head:
            for row, line in enumerate(table.lines, top):
                _add_validation(sheet, line.entries[head], f"{letters[0]}{row}")
        elif entry is not None:
            _add_validation(sheet, entry, f"{letters[0]}{top}:{letters[-1]}{last}")


def _add_validation(sheet: Worksheet, entry: Entry, cells: str) -> None:
    if isinstance(entry, Choice):
        rule = DataValidation("list", f'"{",".join(entry.words)}"', allow_blank=True)
        title, error = ANSWER_TITLE, _("Choose an answer from the list.")
    else:
        rule = DataValidation(
            "textLength", str(entry.max_length), operator="lessThanOrEqual", allow_blank=True
        )
        title, error = (
            _NOTE_TITLE,
            _("The cell can contain at most {maximum} characters.", maximum=entry.max_length),
        )
    rule.errorTitle, rule.error, rule.showErrorMessage = title, in_two_lines(error), True
    rule.add(cells)
    sheet.add_data_validation(rule)


def _height(texts: list[tuple[str, Column]]) -> float:
    return max((style.height(text, column.width) for text, column in texts), default=style.LINE)


def _heading(sheet: Worksheet, row: int, words: Message) -> int:
    """Write a heading in both languages, and return the number of the next row."""
    style.text(sheet, row, 1, in_one_line(words), font=style.BOLD)
    return row + 1


def _pairs(sheet: Worksheet, row: int, pairs: list[tuple[str, str]], *, bold: bool = True) -> int:
    """Write pairs of texts into locked cells, one pair in each row.

    Args:
        sheet: sheet of the cells.
        row: number of the first row.
        pairs: texts of the first and the second column.
        bold: whether the first column is bold.

    Returns:
        The number of the row after the last pair.
    """
    for left, right in pairs:
        style.text(sheet, row, 1, left, head=bold, wrap=True)
        style.text(sheet, row, 2, right, wrap=True)
        row_height = max(style.height(left, style.LEFT), style.height(right, style.RIGHT))
        sheet.row_dimensions[row].height = row_height + 3
        row += 1
    return row
