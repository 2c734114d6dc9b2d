"""Read the auditors' answers from returned workpapers, and list all faults of a workbook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from include.approvals.approvers import same_person
from include.approvals.reasons import has_personal_number
from include.messages import _
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.writing import Paper, Workpapers
from include.workbooks import returned
from include.workbooks.cells import cell_ranges
from include.workbooks.faults import WorkbookRemark
from include.workbooks.returned import ReturnedBook, ReturnedSheet, ReturnedTable

_LONGEST_NAME = 100  # characters of a person's name


@dataclass(frozen=True)
class ItemAnswers:
    """The auditor's answers and note about a sample item.

    Attributes:
        answers: id of the attribute -> answer, for every attribute of the population.
        note: note of the auditor, in which mobile and ID numbers of customers are redacted.
    """

    answers: Mapping[str, Answer]
    note: str


@dataclass(frozen=True)
class Returned:
    """The auditors' answers in a returned workbook.

    Attributes:
        audit: id of the audited quarter.
        stage: stage of the workpapers; the first stage is 1.
        performed_by: person who tested the items.
        performed_on: day on which the items were tested; None if the workbook does not state it.
        reviewed_by: person who reviewed the workpapers; empty if the workbook names nobody.
        answers: (population, number of the item) -> answers, for every item that is tested in this
            stage.
        remarks: remarks on the workbook that do not prevent its evaluation.
    """

    audit: str
    stage: int
    performed_by: str
    performed_on: date | None
    reviewed_by: str
    answers: Mapping[tuple[str, int], ItemAnswers]
    remarks: tuple[WorkbookRemark, ...]


def read(
    content: bytes, name: str, expected: Workpapers, *, clean: Callable[[str], str]
) -> Returned:
    """Read the auditors' answers from a completed workbook.

    Args:
        content: bytes of the workbook.
        name: file name of the workbook, for messages.
        expected: the workpapers as issued.
        clean: returns a text without the mobile and ID numbers of customers that it contains.

    Raises:
        WorkbookRefused: the workbook has faults. The error lists all of them.
    """
    sheets = expected.sheets
    names = (form.INSTRUCTIONS, *sheets.values(), form.DRAW)
    book = ReturnedBook(content, name, names, expected.binding, clean)
    performed_by, reviewed_by, performed_on = "", "", None
    if cover := book.sheets.get(form.INSTRUCTIONS):
        performed_by, reviewed_by = _people(cover)
        performed_on = cover.day(form.DAY, expected.issued_at, expected.timezone)
    tables: list[tuple[Paper, ReturnedTable]] = []
    answers: dict[tuple[str, int], ItemAnswers] = {}
    for paper in expected.papers:
        if sheet := book.sheets.get(sheets[paper.population]):
            table = ReturnedTable(sheet, paper.table)
            tables.append((paper, table))
            for number, row in table.rows.items():
                answers[paper.population, int(number)] = _item(table, row, paper)
    book.refuse_faults()
    remarks = [
        remark
        for paper, table in tables
        for remark in _remarks(sheets[paper.population], paper.population, table, answers)
    ]
    return Returned(
        audit=expected.audit,
        stage=expected.stage,
        performed_by=performed_by,
        performed_on=performed_on,
        reviewed_by=reviewed_by,
        answers=answers,
        remarks=tuple(remarks),
    )


def draw_of(content: bytes, name: str) -> tuple[str, int]:
    """Return the digest of the draw and the stage to which a workbook belongs.

    Args:
        content: bytes of the workbook.
        name: file name of the workbook, for messages.

    Raises:
        WorkbookRefused: the file is not a workbook, or does not name a draw.
    """
    draw, stage = returned.read_binding(
        content, name, form.DRAW, ("draw_sha256", "stage"), form.ISSUED
    )
    return draw, int(stage)


def _people(sheet: ReturnedSheet) -> tuple[str, str]:
    """Return the names of the person who tested the items and of the reviewer.

    A fault is recorded if a name is too long, if a name contains a mobile or ID number, or if both
    names belong to the same person.
    """
    people = []
    for field in (form.PERFORMER, form.REVIEWER):
        person = sheet.text(field)
        people.append(person)
        if len(person) > _LONGEST_NAME:
            message = _("The name is longer than {limit} characters.", limit=_LONGEST_NAME)
            sheet.fault(sheet.row_of(field), 2, message, _("Enter the name of one person."))
        if has_personal_number(person):
            message = _("The cell contains a mobile number or an ID number.")
            sheet.fault(sheet.row_of(field), 2, message, _("Enter a name or a staff number."))
    performed_by, reviewed_by = people
    if same_person(reviewed_by, performed_by):
        # ISO/IEC 27001:2022 A.5.3, segregation of duties
        message = _("The reviewer is the person who did the work.")
        action = _("Have another person review the work.")
        sheet.fault(sheet.row_of(form.REVIEWER), 2, message, action)
    return performed_by, reviewed_by


def _item(table: ReturnedTable, row: int, paper: Paper) -> ItemAnswers:
    answers = {
        attribute.id: table.choice(row, attribute.id, form.ANSWER_ENTRY) or Answer.MISSING
        for attribute in paper.attributes
    }
    return ItemAnswers(answers, table.note(row, form.NOTE, form.NOTE_ENTRY))


def _remarks(
    name: str,
    population: str,
    table: ReturnedTable,
    answers: Mapping[tuple[str, int], ItemAnswers],
) -> Iterator[WorkbookRemark]:
    """Yield remarks about missing answers and missing notes.

    An item needs a note if at least one of its answers is neither Yes nor missing.

    Args:
        name: name of the sheet of the population.
        population: id of the population.
        table: table of the sample items on the sheet of the population.
        answers: (population, number of the item) -> answers.
    """
    blank, without_note = [], []
    for number, row in table.rows.items():
        item = answers[population, int(number)]
        for attribute, answer in item.answers.items():
            if answer is Answer.MISSING:
                blank.append((row, table.columns[attribute]))
        if not item.note and set(item.answers.values()) - {Answer.MET, Answer.MISSING}:
            without_note.append((row, table.columns[form.NOTE]))
    if blank:
        cells = cell_ranges(blank)
        message = _(
            "Sheet {sheet}: {count} answers are blank and count as deviations: {cells}",
            sheet=name,
            count=len(blank),
            cells=cells,
        )
        yield WorkbookRemark(name, cells, message)
    if without_note:
        cells = cell_ranges(without_note)
        message = _(
            "Sheet {sheet}: {count} items with an answer other than Yes have no note: {cells}",
            sheet=name,
            count=len(without_note),
            cells=cells,
        )
        yield WorkbookRemark(name, cells, message)
