"""Helpers that fill in and change questionnaire workbooks as a partner does."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date

from openpyxl import Workbook, load_workbook

from include.partners import questionnaire
from include.partners.questionnaire import IssuedQuestionnaire, write_workbook
from include.partners.rules import Answer

SUB_PROCESSORS = (("Cloud Ltd", "CN", "hosting"),)


def edit_workbook(content: bytes, change: Callable[[Workbook], object]) -> bytes:
    """Change a workbook with openpyxl, and return its bytes."""
    book = load_workbook(io.BytesIO(content))
    for sheet in book:  # openpyxl reads a text that starts with "=" as a formula
        for row in sheet.iter_rows():
            for cell in row:
                if isinstance(cell.value, str) and cell.data_type != "f":
                    cell.data_type = "s"
    change(book)
    saved = io.BytesIO()
    book.save(saved)
    return saved.getvalue()


def fill_workbook(
    book: Workbook,
    answers: Mapping[str, str],
    on: object,
    sub_processors: Sequence[Sequence[str]] = (),
) -> None:
    """Fill in a questionnaire workbook.

    Args:
        book: the workbook.
        answers: answers by question id; all other questions get the answer yes. An answer other
            than yes gets a note.
        on: date on which the partner answers.
        sub_processors: name, country and purpose of each sub-processor.
    """
    for row in book[questionnaire.INSTRUCTIONS].iter_rows(max_col=2):
        if row[0].value == questionnaire.ANSWERED_BY:
            row[1].value = "Li Na"
        elif row[0].value == questionnaire.ANSWERED_ON:
            row[1].value = on
    for row in book[questionnaire.QUESTIONS].iter_rows(
        min_row=questionnaire.HEADER_ROW + 1, max_col=6
    ):
        answer = answers.get(str(row[1].value), questionnaire.ANSWER_TEXTS[Answer.YES])
        row[4].value = answer
        if questionnaire.answer_of(answer) is not Answer.YES:
            row[5].value = "corrected by autumn"
    if questionnaire.SUB_PROCESSORS in book.sheetnames:
        sheet = book[questionnaire.SUB_PROCESSORS]
        sheet.cell(questionnaire.ANY_ROW, 2).value = questionnaire.ANSWER_TEXTS[
            Answer.YES if sub_processors else Answer.NO
        ]
        for row_number, sub_processor in enumerate(
            sub_processors, questionnaire.SUB_HEADER_ROW + 1
        ):
            for column, words in enumerate(sub_processor, 2):
                cell = sheet.cell(row_number, column)
                cell.value = words
                cell.data_type = "s"


def answered_workbook(
    issued: IssuedQuestionnaire,
    answers: Mapping[str, str] | None = None,
    *,
    on: date | None = None,
    sub_processors: Sequence[Sequence[str]] = (),
    change: Callable[[Workbook], object] | None = None,
) -> bytes:
    """Return the bytes of a filled-in questionnaire, optionally with a further change."""

    def work(book: Workbook) -> None:
        fill_workbook(book, answers or {}, on or issued.issued_at.date(), sub_processors)
        if change:
            change(book)

    return edit_workbook(write_workbook(issued), work)
