"""A form that comes back: every cell is compared with what was issued before an answer counts.

A workbook is taken or refused as a whole, with all its faults at once. Sorted rows, widths,
colours, hidden columns and comments are people's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from zoneinfo import ZoneInfo

from include.approvals.reasons import names_a_person
from include.messages import Message, _
from include.reports.i18n import visible
from include.workbooks.cells import Grid, grids, other_sheets, place
from include.workbooks.faults import Fault, WorkbookRefused
from include.workbooks.file import examine
from include.workbooks.forms import AnswerT, Binding, Choice, Field, Line, Note, Table, plain, same

AS_ISSUED = _("Put it back as it was issued.")
_QUOTED = 30  # characters that a fault quotes of a cell
_LONGEST_NUMBER = 18  # digits; more do not fit into a bigint


def issue_of(
    content: bytes, name: str, binding: str, facts: tuple[str, str], action: Message
) -> tuple[str, str]:
    """Return what a workbook says that it was issued for.

    Args:
        content: the file.
        name: its name, for messages.
        binding: name of the hidden sheet.
        facts: names of a text and of a number on that sheet.
        action: what to do about a workbook without them.

    Raises:
        WorkbookRefused: it is no workbook, or does not say it.
    """
    examined = examine(content, name)
    _titles, sheets = grids(examined, (binding,), name)
    facts_here = _facts(sheets[binding]) if binding in sheets else {}
    text, number = (facts_here.get(fact, (0, ""))[1] for fact in facts)
    if not text or not number.isdecimal() or len(number) > _LONGEST_NUMBER:
        message = _("The sheet is missing: removed or renamed.")
        raise WorkbookRefused(name, [*examined.faults, Fault(binding, "", message, action)])
    return text, number


class ReturnedBook:
    """A returned workbook.

    Args:
        content: the file.
        name: its name, for messages.
        sheets: names of the sheets that were issued.
        binding: as it was issued.
        clean: takes customers' numbers out of what people wrote.

    Attributes:
        sheets: by name; a missing sheet is a fault already.

    Raises:
        WorkbookRefused: the workbook cannot be read, or was issued for something else. Of such a
            workbook only that is told: all other differences come from it.
    """

    def __init__(
        self,
        content: bytes,
        name: str,
        sheets: Sequence[str],
        binding: Binding,
        clean: Callable[[str], str],
    ) -> None:
        examined = examine(content, name)
        titles, found = grids(examined, sheets, name)
        self._name = name
        self._faults = [*examined.faults, *other_sheets(sheets, titles)]
        self.sheets = {
            title: ReturnedSheet(grid, self._faults, clean) for title, grid in found.items()
        }
        if binding.sheet in self.sheets and self.sheets[binding.sheet].differs(binding):
            self.refuse_faults()

    def refuse_faults(self) -> None:
        """Refuse the workbook for its faults.

        Raises:
            WorkbookRefused: it has faults.
        """
        if self._faults:
            raise WorkbookRefused(self._name, self._faults)


class ReturnedSheet:
    """A sheet of a returned workbook; its faults go to the workbook's."""

    def __init__(self, grid: Grid, faults: list[Fault], clean: Callable[[str], str]) -> None:
        self.grid = grid
        self.clean = clean
        self._faults = faults
        self._rows = {same(grid.text(row, 1)): row for row in range(1, len(grid.rows) + 1)}

    def fault(self, row: int, column: int, message: Message, action: Message) -> None:
        """Add a fault of a cell; of the whole sheet with row 0."""
        cell = place(row, column) if row else ""
        self._faults.append(Fault(self.grid.name, cell, message, action))

    def differs(self, binding: Binding) -> bool:
        """Return whether the hidden sheet binds the workbook to something else; adds the faults."""
        strange = {"format": _other_form} | dict(binding.strange)
        here, before = _facts(self.grid), len(self._faults)
        for name, due in binding.facts:
            row, value = here.get(name, (0, ""))
            if value != due:
                message = strange[name](value[:80], due)
                self.fault(row, 2, message, binding.action)
        return len(self._faults) > before

    # ---- fields ----

    def row_of(self, field: Field) -> int:
        """Return the row of a field, 0 if there is none."""
        return self._rows.get(same(field.label), 0)

    def text(self, field: Field) -> str:
        """Return the text of a field, in one line."""
        row = self._filled_row(field)
        text = " ".join(self.grid.text(row, 2).split())
        if row and not same(text):
            self.fault(row, 2, field.blank, field.action)
        return text

    def day(self, field: Field, issued_at: datetime, timezone: str) -> date | None:
        """Return the day of a field, which is not before the day of issue."""
        row = self._filled_row(field)
        if not row:
            return None
        issued = issued_at.astimezone(ZoneInfo(timezone)).date()
        day = self.grid.day(row, 2)
        if not self.grid.text(row, 2).strip():
            self.fault(row, 2, field.blank, field.action)
        elif day is None:
            self.fault(row, 2, _("This is no day."), field.action)
        elif day < issued and field.early is not None:
            self.fault(row, 2, field.early(day, issued), field.action)
        return day

    def _filled_row(self, field: Field) -> int:
        """Return the row of a field, 0 if it is missing or holds a formula: faults already."""
        row = self.row_of(field)
        if not row:
            message = _("The row {label} is missing.", label=field.label)
            action = _("Put it back, with its words in column A and the answer in column B.")
            self.fault(0, 0, message, action)
        return 0 if self.grid.is_formula(row, 2) else row

    # ---- cells ----

    def choice(self, row: int, column: int, choice: Choice[AnswerT]) -> AnswerT | None:
        """Return the answer in a cell, None if there is none."""
        if self.grid.is_formula(row, column):
            return None
        said = self.grid.text(row, column)
        answer = choice.choices.meaning(said)
        action = _("Choose one of: {words}.", words=", ".join(choice.words))
        if not same(said):
            if choice.required:
                self.fault(row, column, _("The answer is missing."), action)
            return None
        if answer is None:
            quoted = visible(self.clean(said))[:_QUOTED]
            message = _("“{told}” is none of the answers.", told=quoted)
            self.fault(row, column, message, action)
        elif choice.not_offered and answer not in choice.offered:
            self.fault(row, column, choice.not_offered, action)
            return None
        return answer

    def note(self, row: int, column: int, note: Note) -> str:
        """Return the text in a cell without customers' numbers."""
        if self.grid.is_formula(row, column):
            return ""
        text = self.grid.text(row, column).strip()
        if note.private:
            text = " ".join(visible(text).split())
        if len(text) > note.most:
            message = note.too_long(len(text), note.most)
            self.fault(row, column, message, note.shorten)
            return ""
        if note.private and names_a_person(text):
            message = _("This holds a mobile or ID number.")
            self.fault(row, column, message, _("Take it out: nothing about people is asked."))
            return ""
        return self.clean(text)


class ReturnedTable:
    """A table of a returned sheet.

    Attributes:
        columns: the number of each column, by head; of all columns, unless `arranged`.
        rows: the row of each line that has one, by key.
    """

    def __init__(self, sheet: ReturnedSheet, table: Table) -> None:
        self._sheet, self._grid, self._table = sheet, sheet.grid, table
        self.columns = self._arranged_heads() if table.arranged else self._heads()
        self.rows: dict[int | str, int] = {}
        if table.key in self.columns:
            self._read_rows()

    def is_formula(self, row: int, head: str) -> bool:
        """Return whether a cell holds a formula, which is a fault already."""
        return self._grid.is_formula(row, self.columns.get(head, 0))

    def fault(self, row: int, head: str, message: Message, action: Message) -> None:
        """Add a fault of a cell."""
        self._sheet.fault(row, self.columns.get(head, 0), message, action)

    def choice(self, row: int, head: str, choice: Choice[AnswerT]) -> AnswerT | None:
        """Return the answer of a row."""
        return self._sheet.choice(row, self.columns.get(head, 0), choice)

    def note(self, row: int, head: str, note: Note) -> str:
        """Return the note of a row."""
        return self._sheet.note(row, self.columns.get(head, 0), note)

    def filled_rows(self) -> Iterator[int]:
        """Return the rows that hold something; something beside the table is a fault."""
        top, key = self._table.header_row, self._table.key
        fixed = {column.head for column in self._table.locked if column.returns == "anyhow"} - {key}
        own = {column for head, column in self.columns.items() if head not in fixed}
        inside = own | {self.columns[head] for head in fixed if head in self.columns}
        for row in range(top + 1, len(self._grid.rows) + 1):
            held = {
                column
                for column in range(1, len(self._grid.rows[row - 1]) + 1)
                if same(self._grid.text(row, column))
            }
            for column in sorted(held - inside):
                if not (self._table.arranged and same(self._grid.text(top, column))):
                    message = _("There is something beside the table.")
                    self._sheet.fault(row, column, message, _("Move it into the note of the row."))
            if held & own:
                yield row

    def _heads(self) -> dict[str, int]:
        at = self._table.header_row
        heads = {column.head: number for number, column in enumerate(self._table.columns, 1)}
        whole = True
        for head, column in heads.items():
            if same(self._grid.text(at, column)) != same(head):
                message = _("The head {head} is missing here.", head=head)
                self._sheet.fault(at, column, message, AS_ISSUED)
                whole = False
        return heads if whole else {}

    def _arranged_heads(self) -> dict[str, int]:
        at = self._table.header_row
        due = {same(plain(column.head)): column.head for column in self._table.columns}
        columns: dict[str, int] = {}
        for column in range(1, len(self._grid.rows[0]) + 1 if self._grid.rows else 1):
            here = same(self._grid.text(at, column))
            head = due.get(here)
            if head is None and here:
                message = _("This column was not issued: added or renamed.")
                action = _(
                    "Remove it, or give it back its head; what it says belongs into the notes."
                )
                self._sheet.fault(at, column, message, action)
            elif head in columns:
                message = _("The column {head} is there twice.", head=head)
                self._sheet.fault(at, column, message, _("Remove one of the two."))
            elif head is not None:
                columns[head] = column
        for one in self._table.columns:
            if one.head not in columns:
                message = _("The column {head} is missing in row {row}.", head=one.head, row=at)
                action = _("Put it back, with its head in that row.")
                self._sheet.fault(0, 0, message, action)
            elif one.question and same(one.question) != same(
                self._grid.text(at - 1, columns[one.head])
            ):
                message = _("Question or source of {head} were changed.", head=one.head)
                action = _(
                    "Put the words back as they were issued: the items were tested for those."
                )
                self._sheet.fault(at - 1, columns[one.head], message, action)
        return columns

    def _read_rows(self) -> None:
        table, faults = self._table, self._table.faults
        assert faults is not None
        lines = {_key(table.key_of(line)): line for line in table.lines}
        at = self.columns[table.key]
        rows: dict[int | str | None, int] = {}
        for row in self.filled_rows():
            if self._grid.is_formula(row, at):
                continue
            key = self._grid.whole(row, at) if table.is_numbered else same(self._grid.text(row, at))
            line = None if key is None else lines.get(key)
            if line is None:
                self._sheet.fault(row, at, faults.strange, faults.restore)
            elif key in rows:
                message = faults.twice(table.key_of(line))
                self._sheet.fault(row, at, message, _("Remove one of the two rows."))
            else:
                rows[key] = row
        for key, line in lines.items():
            due = table.key_of(line)
            if key in rows:
                self.rows[due] = rows[key]
                self._compare(rows[key], line, partial(faults.changed, due))
            else:
                self._sheet.fault(0, 0, faults.missing(due), AS_ISSUED)

    def _compare(self, row: int, line: Line, message: Callable[[str], Message]) -> None:
        for column, due in zip(self._table.locked, line.values, strict=True):
            at = self.columns.get(column.head, 0)
            if not at or column.returns == "anyhow" or self._grid.is_formula(row, at):
                continue
            here = self._grid.whole(row, at) if isinstance(due, int) else self._grid.text(row, at)
            if column.returns == "same" and isinstance(due, str):
                here, due = same(str(here)), same(due)
            if here != due:
                self._sheet.fault(row, at, message(column.head), AS_ISSUED)


def _other_form(here: str, due: str) -> Message:
    return _("The workbook has the form {here}; {due} is read.", here=here, due=due)


def _facts(grid: Grid) -> dict[str, tuple[int, str]]:
    return {grid.text(row, 1): (row, grid.text(row, 2)) for row in range(1, len(grid.rows) + 1)}


def _key(value: int | str) -> int | str:
    return same(value) if isinstance(value, str) else value
