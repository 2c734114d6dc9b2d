"""A questionnaire as an Excel workbook, to be filled in by a partner.

The sheets are protected without a password. That guards against slips and nothing else: what comes
back is held against what was issued cell by cell (`reading`), and its digest stands in it. The same
questionnaire always gives the same bytes.
"""

from __future__ import annotations

from openpyxl import Workbook
from openpyxl.utils import get_column_letter
from openpyxl.workbook.protection import WorkbookProtection
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from include.messages import Message, _
from include.partners.questionnaire import form
from include.partners.questionnaire.form import HEADER_ROW, SUB_HEADER_ROW, Issued
from include.partners.score import Answer
from include.reports.i18n import Translator
from include.workbooks import style
from include.workbooks.saving import saved
from include.workbooks.words import plain

_WIDTHS = (7, 22, 60, 42, 16, 46)
_SUB_WIDTHS = (34, 40, 28, 60)
_STEPS = (
    _("Answer every question of the next sheet: choose Yes, No or N/A from the list in the cell."),
    _("Yes means that it is so today and that you can show it. N/A is taken only where the list "
      "of the cell offers it."),
    _("Every answer but Yes needs a note: what is missing and by when it will be mended, or why "
      "the question does not apply."),
    _("On the sheet of sub-processors, say whether anybody else processes our customers' "
      "information for you, and name every one of them."),
    _("Write nothing about any customer: no names, addresses, telephone or ID numbers."),
    _("Only the yellow cells are filled in. Sheets, rows and columns are not added, removed or "
      "renamed, and no formulas, links or macros put in: the file would be refused."),
    _("Save as .xlsx without a password, with Excel, WPS or LibreOffice, and send the file back "
      "to whom you have it from. The file's name does not matter."),
)  # fmt: skip


def write(issued: Issued) -> bytes:
    """Write the workbook to be filled in (.xlsx): no formulas, macros or links."""
    book = Workbook()
    first = book.active
    assert isinstance(first, Worksheet)
    first.title = form.INSTRUCTIONS
    _instructions(first, issued)
    _questions(book.create_sheet(form.QUESTIONS), issued)
    if issued.sub_processors:
        _sub_processors(book.create_sheet(form.SUB_PROCESSORS), issued)
    _issue(book.create_sheet(form.ISSUE), issued)
    # Sheets are not removed or renamed by a slip either
    book.security = WorkbookProtection(lockStructure=True)
    return saved(book, f"{plain(issued.partner)} · {issued.review}", issued.issued_at)


def _instructions(sheet: Worksheet, issued: Issued) -> None:
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = style.LEFT, style.RIGHT
    title = " / ".join(style.each(_("Security review of partners: questionnaire")))
    style.text(sheet, 1, 1, title, font=style.TITLE)
    row = 3
    for name, value in _facts(issued):
        style.pair(sheet, row, " ".join(style.each(name)), value)
        row += 1
    row += 1
    style.text(sheet, row, 1, form.ANSWERED_BY, head=True)
    style.open_cell(sheet, row, 2)
    style.text(sheet, row + 1, 1, form.ANSWERED_ON, head=True)
    style.day_cell(sheet, row + 1, 2, form.ANSWERED_ON, issued.issued_at.date())
    for one in (row, row + 1):
        sheet.row_dimensions[one].height = 20
    row = style.heading(sheet, row + 3, _("How to fill the questionnaire in"))
    for place, step in enumerate(_STEPS, 1):
        chinese, english = (f"{place}. {Translator(one).text(step)}" for one in ("zh_CN", "en"))
        style.pair(sheet, row, chinese, english, bold=False)
        row += 1
    style.protect(sheet)
    style.print_on_a4(sheet, sheet.title, landscape=False)


def _facts(issued: Issued) -> list[tuple[Message, str]]:
    moment = Translator("en", issued.timezone).datetime(issued.issued_at)
    return [
        (
            _("Partner"),
            plain(f"{issued.name} ({issued.partner})" if issued.name else issued.partner),
        ),
        (_("Review no."), str(issued.review)),
        (_("Issued"), moment),
        (_("Digest of the questionnaire (SHA-256)"), issued.sha256),
    ]


def _questions(sheet: Worksheet, issued: Issued) -> None:
    title = " / ".join(style.each(_("Questions")))
    style.text(sheet, 1, 1, title, font=style.TITLE)
    for column, (head, width) in enumerate(zip(form.HEADS, _WIDTHS, strict=True), 1):
        style.text(sheet, HEADER_ROW, column, head, head=True)
        sheet.column_dimensions[get_column_letter(column)].width = width
    for row, (number, one) in enumerate(enumerate(issued.asked, 1), HEADER_ROW + 1):
        style.number(sheet, row, 1, number)
        style.text(sheet, row, 2, plain(one.id), framed=True)
        texts = form.question_text(one), form.source_text(one)
        for column, words in enumerate(texts, 3):
            style.text(sheet, row, column, words, wrap=True)
        for column in (5, 6):
            style.open_cell(sheet, row, column)
        sheet.row_dimensions[row].height = max(
            style.height(words, width) for words, width in zip(texts, _WIDTHS[2:4], strict=True)
        )
        may = tuple(Answer) if one.may_not_apply else (Answer.YES, Answer.NO)
        _choose(sheet, f"E{row}", may)
    _no_longer(sheet, "F", HEADER_ROW + 1, HEADER_ROW + len(issued.asked), form.LONGEST_NOTE)
    sheet.freeze_panes = f"A{HEADER_ROW + 1}"
    sheet.print_title_rows = f"{HEADER_ROW}:{HEADER_ROW}"
    style.protect(sheet)
    style.print_on_a4(sheet, sheet.title, landscape=True)


def _sub_processors(sheet: Worksheet, issued: Issued) -> None:
    title = " / ".join(style.each(_("Who processes our customers' information for you")))
    style.text(sheet, 1, 1, title, font=style.TITLE)
    style.text(sheet, form.ANY_ROW, 1, form.ANY_SUB_PROCESSORS, head=True)
    style.open_cell(sheet, form.ANY_ROW, 2)
    sheet.row_dimensions[form.ANY_ROW].height = 2 * style.LINE
    _choose(sheet, f"B{form.ANY_ROW}", (Answer.YES, Answer.NO))
    for column, (head, width) in enumerate(zip(form.SUB_HEADS, _SUB_WIDTHS, strict=True), 1):
        style.text(sheet, SUB_HEADER_ROW, column, head, head=True)
        sheet.column_dimensions[get_column_letter(column)].width = width
    last = SUB_HEADER_ROW + form.MOST_SUB_PROCESSORS
    for row in range(SUB_HEADER_ROW + 1, last + 1):
        style.number(sheet, row, 1, row - SUB_HEADER_ROW)
        for column in range(2, len(form.SUB_HEADS) + 1):
            style.open_cell(sheet, row, column)
    for letter, most in zip("BCD", form.SUB_LONGEST, strict=True):
        _no_longer(sheet, letter, SUB_HEADER_ROW + 1, last, most)
    style.protect(sheet)
    style.print_on_a4(sheet, f"{sheet.title} · {issued.partner}", landscape=True)


def _choose(sheet: Worksheet, cell: str, answers: tuple[Answer, ...]) -> None:
    words = ",".join(form.WORDS[one] for one in answers)
    rule = DataValidation("list", f'"{words}"', allow_blank=True)
    rule.errorTitle, rule.showErrorMessage = form.ANSWER, True
    rule.error = style.both(_("Choose one of the answers of the list."))
    rule.add(cell)
    sheet.add_data_validation(rule)


def _no_longer(sheet: Worksheet, column: str, first: int, last: int, most: int) -> None:
    rule = DataValidation("textLength", str(most), operator="lessThanOrEqual", allow_blank=True)
    rule.errorTitle, rule.showErrorMessage = form.NOTE, True
    rule.error = style.both(_("This holds {most} characters at most.", most=most))
    rule.add(f"{column}{first}:{column}{last}")
    sheet.add_data_validation(rule)


def _issue(sheet: Worksheet, issued: Issued) -> None:
    for row, (name, value) in enumerate(issued.stated, 1):
        style.text(sheet, row, 1, name)
        style.text(sheet, row, 2, value)
    sheet.sheet_state = "veryHidden"
    style.protect(sheet)
