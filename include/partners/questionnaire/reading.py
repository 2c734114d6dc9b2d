"""A questionnaire that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from include.approvals.reasons import value_free_reason
from include.messages import _
from include.partners.questionnaire import form
from include.partners.questionnaire.form import Issued
from include.partners.rules import Answer
from include.workbooks import returned
from include.workbooks.forms import plain, same
from include.workbooks.returned import AS_ISSUED, ReturnedBook, ReturnedSheet, ReturnedTable


@dataclass(frozen=True)
class Given:
    """One answer.

    Attributes:
        answer: yes, no, or that the question does not apply.
        note: the partner's words, without what could be a customer's number.
    """

    answer: Answer
    note: str


@dataclass(frozen=True)
class SubProcessor:
    """Who processes customer information for a partner.

    Attributes:
        name: of the company.
        country: or region where it is.
        what_for: what it processes.
    """

    name: str
    country: str
    what_for: str


@dataclass(frozen=True)
class Returned:
    """What a partner said.

    Attributes:
        answered_on: the day.
        answers: by id of the question; there is one for every question.
        sub_processors: in the order of the sheet.
    """

    answered_on: date
    answers: Mapping[str, Given]
    sub_processors: tuple[SubProcessor, ...]


def issue_of(content: bytes, name: str) -> tuple[str, str]:
    """Return partner and review that a workbook says that it belongs to.

    Raises:
        WorkbookRefused: it is no workbook, or does not say it.
    """
    return returned.issue_of(content, name, form.ISSUE, ("partner", "review"), form.ISSUED_LAST)


def read(content: bytes, name: str, issued: Issued) -> Returned:
    """Read a filled-in questionnaire back.

    Args:
        content: the file.
        name: its name, for messages.
        issued: as it was issued.

    Raises:
        WorkbookRefused: with every fault.
    """
    book = ReturnedBook(content, name, issued.sheets, issued.binding, _clean)
    answered_on = None
    if cover := book.sheets.get(form.INSTRUCTIONS):
        cover.text(form.BY)  # only that it is signed: the name itself stays in the file
        answered_on = cover.day(form.ON, issued.issued_at, issued.timezone)
    questions = book.sheets.get(form.QUESTIONS)
    answers = _answers(questions, issued) if questions else {}
    others = book.sheets.get(form.SUB_PROCESSORS)
    sub_processors = _sub_processors(others) if others else []
    book.refuse_faults()
    assert answered_on is not None  # else it has a fault
    return Returned(answered_on, answers, tuple(sub_processors))


def _clean(text: str) -> str:
    return value_free_reason(text, form.LONGEST_NOTE)


def _answers(sheet: ReturnedSheet, issued: Issued) -> dict[str, Given]:
    table = ReturnedTable(sheet, issued.table)
    answers = {}
    for asked in issued.asked:
        if not (row := table.rows.get(plain(asked.id), 0)):
            continue
        answer = table.choice(row, form.ANSWER, form.answers_to(asked))
        note = table.note(row, form.NOTE, form.NOTE_ENTRY)
        unsaid = not same(note) and not table.is_formula(row, form.NOTE)
        if answer not in (None, Answer.YES) and unsaid:
            message = _("An answer other than Yes has no note.")
            action = _("Write what is missing and by when it is mended, or why it does not apply.")
            table.fault(row, form.NOTE, message, action)
        if answer is not None:
            answers[asked.id] = Given(answer, note)
    return answers


def _sub_processors(sheet: ReturnedSheet) -> list[SubProcessor]:
    table = ReturnedTable(sheet, form.SUB_PROCESSORS_TABLE)
    if not table.columns:
        return []
    if same(sheet.grid.text(form.ANY_ROW, 1)) != same(form.ANY_SUB_PROCESSORS):
        message = _("The row {label} is missing.", label=form.ANY_SUB_PROCESSORS)
        sheet.fault(form.ANY_ROW, 1, message, AS_ISSUED)
        return []
    claimed = sheet.choice(form.ANY_ROW, 2, form.YES_OR_NO)
    sub_processors = [_sub_processor(table, row) for row in table.filled_rows()]
    if claimed is Answer.YES and not sub_processors:
        message = _("There are sub-processors, and none is named.")
        sheet.fault(form.ANY_ROW, 2, message, _("Name every one of them below."))
    elif claimed is Answer.NO and sub_processors:
        message = _("There are no sub-processors, and some are named.")
        sheet.fault(form.ANY_ROW, 2, message, _("Answer Yes, or clear the rows below."))
    return sub_processors


def _sub_processor(table: ReturnedTable, row: int) -> SubProcessor:
    entries = {
        form.NAME: form.NAME_ENTRY,
        form.COUNTRY: form.NAME_ENTRY,
        form.WHAT_FOR: form.NOTE_ENTRY,
    }
    texts = []
    for head, entry in entries.items():
        texts.append(table.note(row, head, entry))
        if not same(texts[-1]) and not table.is_formula(row, head):
            action = _("Fill it in, or clear the whole row.")
            table.fault(row, head, _("{head} is missing.", head=head), action)
    return SubProcessor(*texts)
