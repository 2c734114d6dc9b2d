"""Workpapers that come back: every cell is held against the draw before an answer counts.

A workbook is taken or refused as a whole, with all its faults at once. Sorted rows, moved columns,
widths, colours, hidden columns and comments are the auditor's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from include.approvals.names import same_person
from include.approvals.reasons import names_a_person
from include.messages import Message, _
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.sheet import ItemAnswers, read_paper
from include.sampling.workpapers.writing import Workpapers
from include.workbooks.cells import Grid, grids, other_sheets, place
from include.workbooks.faults import Fault, Remark, WorkbookRefused
from include.workbooks.file import examine
from include.workbooks.words import same

_LONGEST_NAME = 100  # characters of a person's
_ISSUED = _("Fill in the workbook that was issued for this draw.")


@dataclass(frozen=True)
class Returned:
    """What auditors found, as it stands in their workbook.

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

    def count(self, population: str, attribute: str, answer: Answer) -> int:
        """How many items of a population have this answer to an attribute."""
        return sum(
            one.answers[attribute] is answer
            for (of, _number), one in self.answers.items()
            if of == population
        )


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
        WorkbookRefused: with every fault. Of another draw's workbook only that is said: whatever
            else differs comes from it.
    """
    examined = examine(content, name)
    sheets = expected.sheets
    wanted = (form.INSTRUCTIONS, *sheets.values(), form.DRAW)
    titles, found = grids(examined, wanted, name)
    faults = list(examined.faults)
    faults += other_sheets(wanted, titles)
    if form.DRAW in found:
        strangers = _strangers(found[form.DRAW], expected)
        if strangers:
            raise WorkbookRefused(name, [*faults, *strangers])
    people = _People("", None, "")
    remarks: list[Remark] = []
    if form.INSTRUCTIONS in found:
        people = _people(found[form.INSTRUCTIONS], expected, faults)
    answers: dict[tuple[str, int], ItemAnswers] = {}
    for paper in expected.papers:
        grid = found.get(sheets[paper.population])
        if grid is not None:
            seen = read_paper(grid, paper, clean)
            faults += seen.faults
            remarks += seen.remarks
            answers |= {(paper.population, number): one for number, one in seen.answers.items()}
    if faults:
        raise WorkbookRefused(name, faults)
    return Returned(
        audit=expected.audit,
        stage=expected.stage,
        performed_by=people.performed_by,
        performed_on=people.performed_on,
        reviewed_by=people.reviewed_by,
        answers=answers,
        remarks=tuple(remarks),
    )


def draw_of(content: bytes, name: str) -> tuple[str, int]:
    """Return which draw and stage a workbook says that it belongs to.

    Raises:
        WorkbookRefused: it is no workbook, or says nothing of the kind.
    """
    examined = examine(content, name)
    _titles, found = grids(examined, (form.DRAW,), name)
    grid = found.get(form.DRAW)
    rows = range(1, len(grid.rows) + 1) if grid else ()
    said = {grid.text(row, 1): grid.text(row, 2) for row in rows} if grid else {}
    draw, stage = said.get("draw_sha256", ""), said.get("stage", "")
    if not draw or not stage.isdecimal():
        message = _("The sheet is missing: removed or renamed.")
        raise WorkbookRefused(name, [*examined.faults, Fault(form.DRAW, "", message, _ISSUED)])
    return draw, int(stage)


def _strangers(grid: Grid, expected: Workpapers) -> list[Fault]:
    """Faults of a workbook that is not of this audit, stage or draw."""
    said = {grid.text(row, 1): (row, grid.text(row, 2)) for row in range(1, len(grid.rows) + 1)}
    messages: dict[str, Callable[[str, str], Message]] = {
        "format": lambda here, due: _(
            "The workbook has the form {here}; {due} is read.", here=here, due=due
        ),
        "audit": lambda here, due: _(
            "The workbook is of the audit {here}, not of {due}.", here=here, due=due
        ),
        "stage": lambda here, due: _(
            "The workbook is of stage {here}, not of {due}.", here=here, due=due
        ),
        "draw_sha256": lambda here, due: _(
            "The workbook is of another draw: digest {here} instead of {due}.", here=here, due=due
        ),
    }
    faults = []
    for name, due in expected.draw:
        row, here = said.get(name, (0, ""))
        if here != due:
            cell = place(row, 2) if row else ""
            faults.append(Fault(grid.name, cell, messages[name](here[:80], due), _ISSUED))
    return faults


@dataclass(frozen=True)
class _People:
    performed_by: str
    performed_on: date | None
    reviewed_by: str


def _people(grid: Grid, expected: Workpapers, faults: list[Fault]) -> _People:
    rows = {same(grid.text(row, 1)): row for row in range(1, len(grid.rows) + 1)}
    at = {
        label: rows.get(same(label), 0)
        for label in (form.PERFORMED_BY, form.PERFORMED_ON, form.REVIEWED_BY)
    }
    names = {}
    for label in (form.PERFORMED_BY, form.REVIEWED_BY):
        names[label] = " ".join(grid.text(at[label], 2).split())
        if len(names[label]) > _LONGEST_NAME:
            message = _("A name has {most} characters at most.", most=_LONGEST_NAME)
            action = _("Write the name of one person.")
            faults.append(Fault(grid.name, place(at[label], 2), message, action))
    for label, row in at.items():
        if not row:
            message = _("The row {label} is missing.", label=label)
            action = _("Put it back, with its words in column A and the answer in column B.")
            faults.append(Fault(grid.name, "", message, action))
    performed, reviewed = names[form.PERFORMED_BY], names[form.REVIEWED_BY]
    row = at[form.PERFORMED_BY]
    if row and not same(performed) and not grid.is_formula(row, 2):
        message, action = _("Nobody is named who did the work."), _("Write who did it.")
        faults.append(Fault(grid.name, place(row, 2), message, action))
    row = at[form.REVIEWED_BY]
    if same_person(reviewed, performed):
        # ISO/IEC 27001:2022 A.5.3: duties are segregated
        message = _("The reviewer is the person who did the work.")
        action = _("Have somebody else review it.")
        faults.append(Fault(grid.name, place(row, 2), message, action))
    elif row and not same(reviewed):
        cell = place(row, 2)
        message, action = _("Nobody is named who reviewed the work."), _("Have somebody review it.")
        faults.append(Fault(grid.name, cell, message, action))
    for label, name in names.items():
        if names_a_person(name):
            message = _("This holds a mobile or ID number.")
            action = _("Write a name or a staff number.")
            faults.append(Fault(grid.name, place(at[label], 2), message, action))
    day = _day(grid, at[form.PERFORMED_ON], expected, faults)
    return _People(performed, day, reviewed)


def _day(grid: Grid, row: int, expected: Workpapers, faults: list[Fault]) -> date | None:
    if not row or grid.is_formula(row, 2):
        return None
    cell = place(row, 2)
    action = _("Write the day on which the work was done, such as 2026-10-09.")
    if not grid.text(row, 2).strip():
        faults.append(Fault(grid.name, cell, _("The day is not given."), action))
        return None
    day = grid.day(row, 2)
    if day is None:
        faults.append(Fault(grid.name, cell, _("This is no day."), action))
        return None
    issued = expected.issued_at.astimezone(ZoneInfo(expected.timezone)).date()
    if day < issued:
        message = _(
            "{day} is before the workpapers were issued ({issued}).", day=day, issued=issued
        )
        faults.append(Fault(grid.name, cell, message, action))
    return day
