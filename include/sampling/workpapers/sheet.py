"""One population's sheet of a returned workbook, held against the items that were drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from include.messages import Message, _
from include.reports.i18n import visible
from include.sampling.workpapers import form
from include.sampling.workpapers.form import HEADER_ROW, QUESTION_ROW, Answer
from include.sampling.workpapers.writing import Item, Paper
from include.workbooks.cells import Grid, place, places
from include.workbooks.faults import Fault, Remark
from include.workbooks.words import plain, same

_QUOTED = 30  # characters of what is told of a cell's content


@dataclass(frozen=True)
class ItemAnswers:
    """What was found of one item.

    Attributes:
        answers: by attribute; one for every attribute of the population.
        note: the auditor's words, cleaned.
    """

    answers: Mapping[str, Answer]
    note: str


@dataclass
class PaperRead:
    """What one sheet holds.

    Attributes:
        answers: by number of the item.
        faults: for which the workbook is refused.
        remarks: what should be known.
    """

    answers: dict[int, ItemAnswers] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


def read_paper(grid: Grid, paper: Paper, clean: Callable[[str], str]) -> PaperRead:
    """Read the sheet of one population.

    Args:
        grid: the sheet.
        paper: as it was issued.
        clean: takes customers' numbers out of what people wrote.
    """
    return _Reading(grid, paper, clean).read()


class _Reading:
    def __init__(self, grid: Grid, paper: Paper, clean: Callable[[str], str]) -> None:
        self.grid, self.paper, self.clean = grid, paper, clean
        self.out = PaperRead()
        self.columns: dict[str, int] = {}  # by head as it was issued
        self.blank: list[tuple[int, int]] = []
        self.bare: list[tuple[int, int]] = []  # notes that should say something

    def read(self) -> PaperRead:
        self._heads()
        if form.NUMBER not in self.columns:
            return self.out  # rows cannot be told apart; that is a fault already
        rows = self._rows()
        for item in self.paper.items:
            if item.number not in rows:
                message = _("The row of item number {number} is missing.", number=item.number)
                action = _("Put it back as it was issued.")
                self._fault(0, 0, message, action)
        for item in self.paper.items:
            if item.number in rows:
                self._item(item, rows[item.number])
        self._remark()
        return self.out

    def _fault(self, row: int, column: int, message: Message, action: Message) -> None:
        cell = place(row, column) if row else ""
        self.out.faults.append(Fault(self.grid.name, cell, message, action))

    def _heads(self) -> None:
        due = {same(plain(one)): one for one in self.paper.headers}
        width = len(self.grid.rows[0]) if self.grid.rows else 0
        for column in range(1, width + 1):
            head = self.grid.text(HEADER_ROW, column)
            name = due.get(same(head))
            if name in self.columns and name is not None:
                message = _("The column {head} is there twice.", head=name)
                self._fault(HEADER_ROW, column, message, _("Remove one of the two."))
            elif name is not None:
                self.columns[name] = column
            elif same(head):
                message = _("This column was not issued: added or renamed.")
                action = _(
                    "Remove it, or give it back its head; what it says belongs into the notes."
                )
                self._fault(HEADER_ROW, column, message, action)
        for name in self.paper.headers:
            if name not in self.columns:
                message = _("The column {head} is missing in row {row}.", head=name, row=HEADER_ROW)
                action = _("Put it back, with its head in that row.")
                self._fault(0, 0, message, action)
        for attribute in self.paper.attributes:
            at = self.columns.get(attribute.id)
            if at and same(self.grid.text(QUESTION_ROW, at)) != same(attribute.text):
                message = _("Question or source of {head} were changed.", head=attribute.id)
                action = _(
                    "Put the words back as they were issued: the items were tested for those."
                )
                self._fault(QUESTION_ROW, at, message, action)

    def _rows(self) -> dict[int, int]:
        """The row of each item by its number."""
        numbers = {one.number for one in self.paper.items}
        ours = set(self.columns.values())
        rows: dict[int, int] = {}
        for row in range(HEADER_ROW + 1, len(self.grid.rows) + 1):
            held = [
                column
                for column in range(1, len(self.grid.rows[row - 1]) + 1)
                if same(self.grid.text(row, column))
            ]
            for column in held:
                if column not in ours and not same(self.grid.text(HEADER_ROW, column)):
                    message = _("There is something beside the table.")
                    self._fault(row, column, message, _("Move it into the note of the row."))
            at = self.columns[form.NUMBER]
            if not ours.intersection(held) or self.grid.is_formula(row, at):
                continue
            number = self.grid.whole(row, at)
            if number not in numbers or number is None:
                message = _("The row is of no item of this draw: added, or its number was changed.")
                action = _("Remove the row, or give it back the number with which it was issued.")
                self._fault(row, at, message, action)
            elif number in rows:
                message = _("Item number {number} is there twice.", number=number)
                self._fault(row, at, message, _("Remove one of the two rows."))
            else:
                rows[number] = row
        return rows

    def _item(self, item: Item, row: int) -> None:
        self._as_issued(item, row)
        answers: dict[str, Answer] = {}
        for attribute in self.paper.attributes:
            answers[attribute.id] = self._answer(row, self.columns.get(attribute.id, 0))
        note = self._note(row, answers)
        self.out.answers[item.number] = ItemAnswers(answers, note)

    def _as_issued(self, item: Item, row: int) -> None:
        figures = {form.STAGE: item.stage, form.ORDINAL: item.ordinal}
        texts = {form.ITEM: form.shown(item.key), form.STRATUM: form.shown(item.stratum)}
        action = _("Put it back as it was issued.")
        for name, due in {**figures, **texts}.items():
            column = self.columns.get(name)
            if column is None or self.grid.is_formula(row, column):
                continue
            here = self.grid.whole(row, column) if name in figures else self.grid.text(row, column)
            if here != due:
                message = _(
                    "{head} of item number {number} was changed.", head=name, number=item.number
                )
                self._fault(row, column, message, action)

    def _answer(self, row: int, column: int) -> Answer:
        if not column or self.grid.is_formula(row, column):
            return Answer.MISSING
        said = self.grid.text(row, column)
        answer = form.answer_of(said)
        if answer is None:
            told = visible(self.clean(said))[:_QUOTED]
            message = _("“{told}” is none of the answers.", told=told)
            action = _("Choose one of: {words}.", words=", ".join(form.WORDS.values()))
            self._fault(row, column, message, action)
        elif answer is Answer.MISSING:
            self.blank.append((row, column))
        return answer or Answer.MISSING

    def _note(self, row: int, answers: Mapping[str, Answer]) -> str:
        column = self.columns.get(form.NOTE, 0)
        if not column or self.grid.is_formula(row, column):
            return ""
        said = self.grid.text(row, column).strip()
        if len(said) > form.LONGEST_NOTE:
            message = _(
                "The note has {count} characters; {most} are taken.",
                count=len(said),
                most=form.LONGEST_NOTE,
            )
            self._fault(row, column, message, _("Shorten it; name where the rest can be found."))
            return ""
        if not said and set(answers.values()) - {Answer.MET, Answer.MISSING}:
            self.bare.append((row, column))
        return self.clean(said) if said else ""

    def _remark(self) -> None:
        name = self.grid.name
        if self.blank:
            cells = places(self.blank)
            message = _(
                "Sheet {sheet}: {count} answers are blank and count as deviations: {cells}",
                sheet=name,
                count=len(self.blank),
                cells=cells,
            )
            self.out.remarks.append(Remark(name, cells, message))
        if self.bare:
            cells = places(self.bare)
            message = _(
                "Sheet {sheet}: {count} items with another answer than Yes have no note: {cells}",
                sheet=name,
                count=len(self.bare),
                cells=cells,
            )
            self.out.remarks.append(Remark(name, cells, message))
