"""Workpapers that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from include.approvals.people import same_person
from include.approvals.reasons import names_a_person
from include.messages import _
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.writing import Paper, Workpapers
from include.workbooks import returned
from include.workbooks.cells import places
from include.workbooks.faults import Remark
from include.workbooks.returned import ReturnedBook, ReturnedSheet, ReturnedTable

_LONGEST_NAME = 100  # characters of a person's


@dataclass(frozen=True)
class ItemAnswers:
    """The answers and the note about an item.

    Attributes:
        answers: by attribute; one for every attribute of the population.
        note: the auditor's words, cleaned.
    """

    answers: Mapping[str, Answer]
    note: str


@dataclass(frozen=True)
class Returned:
    """The answers of auditors in a returned workbook.

    Attributes:
        audit: id.
        stage: of sampling.
        performed_by: who did the work.
        performed_on: the day; None when nobody wrote it.
        reviewed_by: who reviewed it; empty when nobody wrote it.
        answers: by population and number of the item; there is one for every item of the draw.
        remarks: what is no fault and should be known.
    """

    audit: str
    stage: int
    performed_by: str
    performed_on: date | None
    reviewed_by: str
    answers: Mapping[tuple[str, int], ItemAnswers]
    remarks: tuple[Remark, ...]


def read(
    content: bytes, name: str, expected: Workpapers, *, clean: Callable[[str], str]
) -> Returned:
    """Read a filled-in workbook back.

    Args:
        content: the file.
        name: its name, for messages.
        expected: the workpapers as they were issued.
        clean: takes customers' numbers out of what people wrote; a note is kept as it comes back.

    Raises:
        WorkbookRefused: with every fault.
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
    """Return which draw and stage a workbook says that it belongs to.

    Raises:
        WorkbookRefused: it is no workbook, or does not say it.
    """
    draw, stage = returned.issue_of(content, name, form.DRAW, ("draw_sha256", "stage"), form.ISSUED)
    return draw, int(stage)


def _people(sheet: ReturnedSheet) -> tuple[str, str]:
    """Return who performed and who reviewed the work."""
    people = []
    for field in (form.PERFORMER, form.REVIEWER):
        person = sheet.text(field)
        people.append(person)
        if len(person) > _LONGEST_NAME:
            message = _("A name has {most} characters at most.", most=_LONGEST_NAME)
            sheet.fault(sheet.row_of(field), 2, message, _("Write the name of one person."))
        if names_a_person(person):
            message = _("This holds a mobile or ID number.")
            sheet.fault(sheet.row_of(field), 2, message, _("Write a name or a staff number."))
    performed_by, reviewed_by = people
    if same_person(reviewed_by, performed_by):
        # ISO/IEC 27001:2022 A.5.3: duties are segregated
        message = _("The reviewer is the person who did the work.")
        action = _("Have somebody else review it.")
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
) -> Iterator[Remark]:
    """Name the cells of blank answers, and of notes that should say something."""
    blank, bare = [], []
    for number, row in table.rows.items():
        item = answers[population, int(number)]
        for attribute, answer in item.answers.items():
            if answer is Answer.MISSING:
                blank.append((row, table.columns[attribute]))
        if not item.note and set(item.answers.values()) - {Answer.MET, Answer.MISSING}:
            bare.append((row, table.columns[form.NOTE]))
    if blank:
        cells = places(blank)
        message = _(
            "Sheet {sheet}: {count} answers are blank and count as deviations: {cells}",
            sheet=name,
            count=len(blank),
            cells=cells,
        )
        yield Remark(name, cells, message)
    if bare:
        cells = places(bare)
        message = _(
            "Sheet {sheet}: {count} items with another answer than Yes have no note: {cells}",
            sheet=name,
            count=len(bare),
            cells=cells,
        )
        yield Remark(name, cells, message)
