"""What a partner does to a questionnaire."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date

from openpyxl import Workbook, load_workbook

from include.partners import questionnaire
from include.partners.questionnaire import Issued, write
from include.partners.rules import Answer

OTHERS = (("Cloud Ltd", "CN", "hosting"),)


def edited(content: bytes, change: Callable[[Workbook], object]) -> bytes:
    """The file after a change in a spreadsheet program (here: openpyxl)."""
    book = load_workbook(io.BytesIO(content))
    for sheet in book:  # openpyxl forgets that a text beginning with "=" was a text
        for row in sheet.iter_rows():
            for cell in row:
                if isinstance(cell.value, str) and cell.data_type != "f":
                    cell.data_type = "s"
    change(book)
    saved = io.BytesIO()
    book.save(saved)
    return saved.getvalue()


def fill(
    book: Workbook,
    answers: Mapping[str, str],
    on: object,
    others: Sequence[Sequence[str]] = (),
) -> None:
    """Fill it in: yes where nothing else is said, with a note on every other answer."""
    for row in book[questionnaire.INSTRUCTIONS].iter_rows(max_col=2):
        if row[0].value == questionnaire.ANSWERED_BY:
            row[1].value = "Li Na"
        elif row[0].value == questionnaire.ANSWERED_ON:
            row[1].value = on
    for row in book[questionnaire.QUESTIONS].iter_rows(
        min_row=questionnaire.HEADER_ROW + 1, max_col=6
    ):
        said = answers.get(str(row[1].value), questionnaire.WORDS[Answer.YES])
        row[4].value = said
        if questionnaire.answer_of(said) is not Answer.YES:
            row[5].value = "mended by autumn"
    if questionnaire.SUB_PROCESSORS in book.sheetnames:
        sheet = book[questionnaire.SUB_PROCESSORS]
        sheet.cell(questionnaire.ANY_ROW, 2).value = questionnaire.WORDS[
            Answer.YES if others else Answer.NO
        ]
        for at, other in enumerate(others, questionnaire.SUB_HEADER_ROW + 1):
            for column, words in enumerate(other, 2):
                cell = sheet.cell(at, column)
                cell.value = words
                cell.data_type = "s"


def answered(
    issued: Issued,
    answers: Mapping[str, str] | None = None,
    *,
    on: date | None = None,
    others: Sequence[Sequence[str]] = (),
    change: Callable[[Workbook], object] | None = None,
) -> bytes:
    """The questionnaire filled in, and changed afterwards."""

    def work(book: Workbook) -> None:
        fill(book, answers or {}, on or issued.issued_at.date(), others)
        if change:
            change(book)

    return edited(write(issued), work)
