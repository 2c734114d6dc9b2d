"""Draw the form of a workbook (.xlsx): no formulas, macros or links.

The sheets are protected without a password. That prevents slips and nothing else: a returned
workbook is compared with what was issued cell by cell (`include.workbooks.returned`). The same form
always gives the same bytes.
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
    beside,
    both,
    each,
    plain,
)
from include.workbooks.saving import saved

_NOTE_TITLE = "备注 Note"


def draw(
    title: str,
    issued_at: datetime,
    sheets: Mapping[str, Callable[[Worksheet], None]],
    binding: Binding,
) -> bytes:
    """Return the file of a workbook.

    Args:
        title: among its properties.
        issued_at: the moment of issue.
        sheets: the function that fills each sheet, by its name.
        binding: the last sheet.
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
    # Sheets are not removed or renamed by a slip either
    book.security = WorkbookProtection(lockStructure=True)
    return saved(book, title, issued_at)


def draw_cover(sheet: Worksheet, cover: Cover, issued_at: datetime) -> None:
    """Draw the first sheet."""
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = style.LEFT, style.RIGHT
    style.text(sheet, 1, 1, beside(cover.title), font=style.TITLE)
    facts = [(" ".join(each(name)), value) for name, value in cover.facts]
    first = _pairs(sheet, 3, facts) + 1
    for row, field in enumerate(cover.fields, first):
        style.text(sheet, row, 1, field.label, head=True)
        if field.early is None:
            style.open_cell(sheet, row, 2)
        else:
            style.day_cell(sheet, row, 2, field.label, issued_at.date())
        sheet.row_dimensions[row].height = 20
    row = _heading(sheet, first + len(cover.fields) + 1, _("How to fill the workbook in"))
    texts = [each(step) for step in cover.steps]
    steps = [(f"{at}. {texts[0]}", f"{at}. {texts[-1]}") for at, texts in enumerate(texts, 1)]
    row = _pairs(sheet, row, steps, bold=False)
    if cover.legend:
        row = _heading(sheet, row + 1, _("What the answers mean"))
        _pairs(sheet, row, [(words, both(meaning)) for words, meaning in cover.legend])
    style.protect(sheet)
    style.print_on_a4(sheet, sheet.title, landscape=False)


def draw_table(sheet: Worksheet, table: Table, title: str, footer: str = "") -> None:
    """Draw a table, and finish its sheet.

    Args:
        sheet: whose other rows are drawn already.
        table: to be drawn.
        title: in the first row.
        footer: of printed pages; the sheet's name without one.
    """
    style.text(sheet, 1, 1, title, font=style.TITLE)
    top, columns = table.header_row, table.columns
    letters = [get_column_letter(column) for column in range(1, len(columns) + 1)]
    for at, (letter, column) in enumerate(zip(letters, columns, strict=True), 1):
        style.text(sheet, top, at, plain(column.head), head=True)
        sheet.column_dimensions[letter].width = column.width
        if column.question:
            style.text(sheet, top - 1, at, column.question, wrap=True)
    sheet.row_dimensions[top].height = _height([(plain(column.head), column) for column in columns])
    questions = [(column.question, column) for column in columns if column.question]
    if questions:
        sheet.row_dimensions[top - 1].height = _height(questions)
    last = top + len(table.lines)
    for row, line in enumerate(table.lines, top + 1):
        texts: list[tuple[str, Column]] = []
        values = iter(line.values)
        for at, column in enumerate(columns, 1):
            if column.entry is not None:
                style.open_cell(sheet, row, at)
            elif isinstance(value := next(values), int):
                style.number(sheet, row, at, value)
            else:
                style.text(sheet, row, at, value, wrap=True)
                texts.append((value, column))
        if (height := _height(texts)) > style.LINE:  # else the row grows with its note
            sheet.row_dimensions[row].height = height
    _restrict(sheet, table, letters, last)
    sheet.freeze_panes = f"{letters[table.frozen]}{top + 1}"
    sheet.print_title_rows = f"{top - bool(questions)}:{top}"
    if table.arranged:
        sheet.auto_filter.ref = f"A{top}:{letters[-1]}{max(last, top + 1)}"
    style.protect(sheet)
    style.print_on_a4(sheet, footer or sheet.title, landscape=True)


def draw_choice(sheet: Worksheet, row: int, label: str, choice: Choice[StrEnum]) -> None:
    """Draw a label and a cell in which an answer is chosen."""
    style.text(sheet, row, 1, label, head=True)
    style.open_cell(sheet, row, 2)
    sheet.row_dimensions[row].height = 2 * style.LINE
    _rule(sheet, choice, f"B{row}")


def _restrict(sheet: Worksheet, table: Table, letters: list[str], last: int) -> None:
    """Add the lists of answers and the longest notes of cells that are filled in."""
    if not table.lines:
        return
    top = table.header_row + 1
    own = {head for line in table.lines for head in line.entries}
    columns = zip(letters, table.columns, strict=True)
    for (entry, head), group in groupby(
        columns, key=lambda pair: (pair[1].entry, pair[1].head in own and pair[1].head)
    ):
        letters = [letter for letter, _column in group]
        if head:
            for row, line in enumerate(table.lines, top):
                _rule(sheet, line.entries[head], f"{letters[0]}{row}")
        elif entry is not None:
            _rule(sheet, entry, f"{letters[0]}{top}:{letters[-1]}{last}")


def _rule(sheet: Worksheet, entry: Entry, cells: str) -> None:
    if isinstance(entry, Choice):
        rule = DataValidation("list", f'"{",".join(entry.words)}"', allow_blank=True)
        title, error = ANSWER_TITLE, _("Choose one of the answers of the list.")
    else:
        rule = DataValidation(
            "textLength", str(entry.most), operator="lessThanOrEqual", allow_blank=True
        )
        title, error = _NOTE_TITLE, _("This holds {most} characters at most.", most=entry.most)
    rule.errorTitle, rule.error, rule.showErrorMessage = title, both(error), True
    rule.add(cells)
    sheet.add_data_validation(rule)


def _height(texts: list[tuple[str, Column]]) -> float:
    return max((style.height(text, column.width) for text, column in texts), default=style.LINE)


def _heading(sheet: Worksheet, row: int, words: Message) -> int:
    """Write a heading in both languages; returns the row below it."""
    style.text(sheet, row, 1, beside(words), font=style.BOLD)
    return row + 1


def _pairs(sheet: Worksheet, row: int, pairs: list[tuple[str, str]], *, bold: bool = True) -> int:
    """Write pairs of locked texts, each in a row as high as it needs; returns the row below."""
    for left, right in pairs:
        style.text(sheet, row, 1, left, head=bold, wrap=True)
        style.text(sheet, row, 2, right, wrap=True)
        high = max(style.height(left, style.LEFT), style.height(right, style.RIGHT))
        sheet.row_dimensions[row].height = high + 3
        row += 1
    return row
