"""A questionnaire that comes back: every cell is held against what was issued before it counts.

A workbook is taken or refused as a whole, with all its faults at once. Sorted rows, widths, colours
and comments are the partner's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from include.approvals.reasons import names_a_person, value_free_reason
from include.messages import Message, _
from include.partners.questionnaire import form
from include.partners.questionnaire.form import HEADER_ROW, SUB_HEADER_ROW, Issued
from include.partners.score import Answer, Asked
from include.reports.i18n import visible
from include.workbooks.cells import Grid, grids, other_sheets, place
from include.workbooks.faults import Fault, WorkbookRefused
from include.workbooks.file import examine
from include.workbooks.words import plain, same

_QUOTED = 30  # characters of what is told of a cell's content
_ISSUED = _("Fill in the questionnaire that was issued to this partner last.")
_AS_ISSUED = _("Put it back as it was issued.")


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
        WorkbookRefused: it is no workbook, or says nothing of the kind.
    """
    examined = examine(content, name)
    _titles, found = grids(examined, (form.ISSUE,), name)
    said = _stated(found[form.ISSUE]) if form.ISSUE in found else {}
    partner, review = (said.get(one, (0, ""))[1] for one in ("partner", "review"))
    if not partner or not review.isdecimal() or len(review) > 18:
        message = _("The sheet is missing: removed or renamed.")
        raise WorkbookRefused(name, [*examined.faults, Fault(form.ISSUE, "", message, _ISSUED)])
    return partner, review


def read(content: bytes, name: str, issued: Issued) -> Returned:
    """Read a filled-in questionnaire back.

    Args:
        content: the file.
        name: its name, for messages.
        issued: as it was issued.

    Raises:
        WorkbookRefused: with every fault. Of another partner's workbook, or another issue, only
            that is said: whatever else differs comes from it.
    """
    examined = examine(content, name)
    titles, found = grids(examined, issued.sheets, name)
    faults = [*examined.faults, *other_sheets(issued.sheets, titles)]
    if form.ISSUE in found and (strange := _strange(found[form.ISSUE], issued)):
        raise WorkbookRefused(name, [*faults, *strange])
    reading = _Reading(issued, faults)
    if form.INSTRUCTIONS in found:
        reading.people(found[form.INSTRUCTIONS])
    if form.QUESTIONS in found:
        reading.questions(found[form.QUESTIONS])
    if form.SUB_PROCESSORS in found:
        reading.others(found[form.SUB_PROCESSORS])
    if faults or reading.answered_on is None:
        raise WorkbookRefused(name, faults)
    return Returned(reading.answered_on, reading.answers, tuple(reading.sub_processors))


def _stated(grid: Grid) -> dict[str, tuple[int, str]]:
    return {grid.text(row, 1): (row, grid.text(row, 2)) for row in range(1, len(grid.rows) + 1)}


def _strange(grid: Grid, issued: Issued) -> list[Fault]:
    """Faults of a workbook of another form, partner, review or issue."""
    messages: Mapping[str, Callable[[str, str], Message]] = {
        "format": lambda here, due: _(
            "The workbook has the form {here}; {due} is read.", here=here, due=due
        ),
        "partner": lambda here, due: _(
            "The questionnaire is that of partner {here}, not of {due}.", here=here, due=due
        ),
        "review": lambda here, due: _(
            "The questionnaire is of review {here}, not of {due}.", here=here, due=due
        ),
        "issued_sha256": lambda here, due: _(
            "The questionnaire is another than the one issued: digest {here} instead of {due}.",
            here=here,
            due=due,
        ),
    }
    said, faults = _stated(grid), []
    for name, due in issued.stated:
        row, here = said.get(name, (0, ""))
        if here != due:
            cell = place(row, 2) if row else ""
            faults.append(Fault(grid.name, cell, messages[name](here[:80], due), _ISSUED))
    return faults


@dataclass
class _Reading:
    """One reading of one workbook; what is wrong goes to ``faults``."""

    issued: Issued
    faults: list[Fault]
    answered_on: date | None = None
    answers: dict[str, Given] = field(default_factory=dict)
    sub_processors: list[SubProcessor] = field(default_factory=list)

    def fault(self, grid: Grid, row: int, column: int, message: Message, action: Message) -> None:
        cell = place(row, column) if row else ""
        self.faults.append(Fault(grid.name, cell, message, action))

    # ---- people ----

    def people(self, grid: Grid) -> None:
        rows = {same(grid.text(row, 1)): row for row in range(1, len(grid.rows) + 1)}
        for label in (form.ANSWERED_BY, form.ANSWERED_ON):
            if not (row := rows.get(same(label), 0)):
                message = _("The row {label} is missing.", label=label)
                action = _("Put it back, with its words in column A and the answer in column B.")
                self.fault(grid, 0, 0, message, action)
            elif grid.is_formula(row, 2):
                continue
            elif label == form.ANSWERED_BY:
                # Only that it is signed: the name itself stays in the file
                if not same(grid.text(row, 2)):
                    message = _("Nobody is named who answered.")
                    self.fault(grid, row, 2, message, _("Write who answered for the partner."))
            else:
                self._day(grid, row)

    def _day(self, grid: Grid, row: int) -> None:
        action = _("Write the day on which it was answered, such as 2026-10-09.")
        if not grid.text(row, 2).strip():
            self.fault(grid, row, 2, _("The day is not given."), action)
            return
        day = grid.day(row, 2)
        issued = self.issued.issued_at.astimezone(ZoneInfo(self.issued.timezone)).date()
        if day is None:
            self.fault(grid, row, 2, _("This is no day."), action)
        elif day < issued:
            message = _(
                "{day} is before the questionnaire was issued ({issued}).", day=day, issued=issued
            )
            self.fault(grid, row, 2, message, action)
        self.answered_on = day

    # ---- questions ----

    def questions(self, grid: Grid) -> None:
        if not self._heads(grid, HEADER_ROW, form.HEADS):
            return
        asked = {same(plain(one.id)): one for one in self.issued.asked}
        rows: dict[str, int] = {}
        for row in range(HEADER_ROW + 1, len(grid.rows) + 1):
            if not self._row_holds(grid, row, len(form.HEADS)):
                continue
            one = asked.get(same(grid.text(row, 2)))
            if one is None:
                message = _("The row is of no question that was issued: added, or its id changed.")
                action = _("Remove it, or give it back the id with which it was issued.")
                self.fault(grid, row, 2, message, action)
            elif one.id in rows:
                message = _("The question {id} is there twice.", id=one.id)
                self.fault(grid, row, 2, message, _("Remove one of the two rows."))
            else:
                rows[one.id] = row
        for one in self.issued.asked:
            if one.id in rows:
                self._question(grid, rows[one.id], one)
            else:
                message = _("The row of the question {id} is missing.", id=one.id)
                self.fault(grid, 0, 0, message, _AS_ISSUED)

    def _question(self, grid: Grid, row: int, one: Asked) -> None:
        due = {3: form.question_text(one), 4: form.source_text(one)}
        for column, words in due.items():
            if same(grid.text(row, column)) != same(words) and not grid.is_formula(row, column):
                message = _("Question or source of {id} were changed.", id=one.id)
                self.fault(grid, row, column, message, _AS_ISSUED)
        answer = self._answer(grid, row, 5, may_not_apply=one.may_not_apply)
        note = self._words(grid, row, 6, form.LONGEST_NOTE)
        if answer not in (None, Answer.YES) and not same(note) and not grid.is_formula(row, 6):
            message = _("An answer other than Yes has no note.")
            action = _("Write what is missing and by when it is mended, or why it does not apply.")
            self.fault(grid, row, 6, message, action)
        if answer is not None:
            self.answers[one.id] = Given(answer, note)

    def _answer(self, grid: Grid, row: int, column: int, *, may_not_apply: bool) -> Answer | None:
        if grid.is_formula(row, column):
            return None
        said = grid.text(row, column)
        words = [
            text
            for answer, text in form.WORDS.items()
            if may_not_apply or answer is not Answer.NOT_APPLICABLE
        ]
        action = _("Choose one of: {words}.", words=", ".join(words))
        answer = form.answer_of(said)
        if not same(said):
            self.fault(grid, row, column, _("The answer is missing."), action)
        elif answer is None:
            told = visible(value_free_reason(said))[:_QUOTED]
            self.fault(grid, row, column, _("“{told}” is none of the answers.", told=told), action)
        elif answer is Answer.NOT_APPLICABLE and not may_not_apply:
            message = _("This question applies to every partner.")
            self.fault(grid, row, column, message, action)
            return None
        return answer

    # ---- sub-processors ----

    def others(self, grid: Grid) -> None:
        if not self._heads(grid, SUB_HEADER_ROW, form.SUB_HEADS):
            return
        if same(grid.text(form.ANY_ROW, 1)) != same(form.ANY_SUB_PROCESSORS):
            message = _("The row {label} is missing.", label=form.ANY_SUB_PROCESSORS)
            self.fault(grid, form.ANY_ROW, 1, message, _AS_ISSUED)
            return
        claimed = self._answer(grid, form.ANY_ROW, 2, may_not_apply=False)
        for row in range(SUB_HEADER_ROW + 1, len(grid.rows) + 1):
            if self._row_holds(grid, row, len(form.SUB_HEADS), first=2):
                self._sub_processor(grid, row)
        if claimed is Answer.YES and not self.sub_processors:
            message = _("There are sub-processors, and none is named.")
            self.fault(grid, form.ANY_ROW, 2, message, _("Name every one of them below."))
        elif claimed is Answer.NO and self.sub_processors:
            message = _("There are no sub-processors, and some are named.")
            self.fault(grid, form.ANY_ROW, 2, message, _("Answer Yes, or clear the rows below."))

    def _sub_processor(self, grid: Grid, row: int) -> None:
        said = [
            self._words(grid, row, column, most) for column, most in enumerate(form.SUB_LONGEST, 2)
        ]
        for column, words in enumerate(said, 2):
            if not same(words) and not grid.is_formula(row, column):
                message = _("{head} is missing.", head=form.SUB_HEADS[column - 1])
                self.fault(grid, row, column, message, _("Fill it in, or clear the whole row."))
        self.sub_processors.append(SubProcessor(*said))

    # ---- cells ----

    def _heads(self, grid: Grid, at: int, heads: tuple[str, ...]) -> bool:
        whole = True
        for column, head in enumerate(heads, 1):
            if same(grid.text(at, column)) != same(head):
                message = _("The head {head} is missing here.", head=head)
                self.fault(grid, at, column, message, _AS_ISSUED)
                whole = False
        return whole

    def _row_holds(self, grid: Grid, row: int, columns: int, first: int = 1) -> bool:
        """Whether a row of the table says something; what stands beside the table is a fault."""
        held = [
            column
            for column in range(first, len(grid.rows[row - 1]) + 1)
            if same(grid.text(row, column)) or grid.is_formula(row, column)
        ]
        for column in held:
            if column > columns:
                message = _("There is something beside the table.")
                self.fault(grid, row, column, message, _("Move it into the note of the row."))
        return any(column <= columns for column in held)

    def _words(self, grid: Grid, row: int, column: int, most: int) -> str:
        """What somebody wrote, in one line and without what could be a customer's number."""
        if grid.is_formula(row, column):
            return ""
        said = " ".join(visible(grid.text(row, column)).split())
        if len(said) > most:
            message = _(
                "This has {count} characters; {most} are taken.", count=len(said), most=most
            )
            self.fault(grid, row, column, message, _("Shorten it."))
            return ""
        if names_a_person(said):
            message = _("This holds a mobile or ID number.")
            self.fault(grid, row, column, message, _("Take it out: nothing about people is asked."))
            return ""
        return value_free_reason(said, most)
