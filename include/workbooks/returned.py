"""Compare a returned workbook with the issued workbook cell by cell, and read it.

A workbook is accepted or refused as a whole, and a refusal lists all faults. The comparison ignores
colours, comments, column widths, hidden columns and the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from zoneinfo import ZoneInfo

from include.approvals.reasons import has_personal_number
from include.messages import Message, _, listed
from include.reports.i18n import visible
from include.workbooks.cells import Grid, cell_name, read_grids, sheet_faults
from include.workbooks.faults import Fault, WorkbookRefused
from include.workbooks.file import check_file
from include.workbooks.forms import (
    AnswerT,
    Binding,
    Choice,
    Field,
    Line,
    Note,
    Table,
    escape_text,
    normalize_text,
)

AS_ISSUED = _("Restore the original content, as in the issued workbook.")
_MAX_QUOTED = 30  # characters of a cell that a message quotes
_MAX_DIGITS = 18  # digits; more do not fit into a bigint


def read_binding(
    content: bytes, name: str, binding: str, facts: tuple[str, str], action: Message
) -> tuple[str, str]:
    """Return two facts that identify the issue of a returned workbook: a text and a number.

    The facts are on the hidden sheet; see `include.workbooks.forms.Binding`.

    Args:
        content: content of the file.
        name: name of the file, for messages.
        binding: name of the hidden sheet.
        facts: labels of the text and of the number on that sheet.
        action: corrective action for a workbook without the text or the number.

    Raises:
        WorkbookRefused: the file is not a workbook, or lacks the text or the number.
    """
    checked_file = check_file(content, name)
    _titles, sheets = read_grids(checked_file, (binding,), name)
    found_facts = _facts(sheets[binding]) if binding in sheets else {}
    text, number = (found_facts.get(fact, (0, ""))[1] for fact in facts)
    if not text or not number.isdecimal() or len(number) > _MAX_DIGITS:
        message = _("The sheet is missing: it was removed or renamed.")
        raise WorkbookRefused(name, [*checked_file.faults, Fault(binding, "", message, action)])
    return text, number


class ReturnedBook:
    """A returned workbook that belongs to the expected issue.

    Args:
        content: content of the file.
        name: name of the file, for messages.
        sheets: names of the issued sheets.
        binding: content of the hidden sheet as issued.
        clean: function that redacts possible personal data, such as phone numbers, in texts that
            people typed.

    Attributes:
        sheets: returned sheets by name. A missing sheet has no entry and is already recorded as a
            fault.

    Raises:
        WorkbookRefused: the workbook cannot be read, or belongs to another issue. The cells of a
            workbook of another issue are not compared.
    """

    def __init__(
        self,
        content: bytes,
        name: str,
        sheets: Sequence[str],
        binding: Binding,
        clean: Callable[[str], str],
    ) -> None:
        checked_file = check_file(content, name)
        titles, grids_read = read_grids(checked_file, sheets, name)
        self._name = name
        self._faults = [*checked_file.faults, *sheet_faults(sheets, titles)]
        self.sheets = {
            title: ReturnedSheet(grid, self._faults, clean) for title, grid in grids_read.items()
        }
        if binding.sheet in self.sheets and self.sheets[binding.sheet].belongs_to_another_issue(
            binding
        ):
            self.refuse_faults()

    def refuse_faults(self) -> None:
        """Refuse the workbook if faults were recorded.

        Raises:
            WorkbookRefused: the workbook has faults.
        """
        if self._faults:
            raise WorkbookRefused(self._name, self._faults)


class ReturnedSheet:
    """A sheet of a returned workbook. Its faults are added to the faults of the workbook."""

    def __init__(self, grid: Grid, faults: list[Fault], clean: Callable[[str], str]) -> None:
        self.grid = grid
        self.clean = clean
        self._faults = faults
        self._rows = {
            normalize_text(grid.text(row, 1)): row for row in range(1, len(grid.rows) + 1)
        }

    def fault(self, row: int, column: int, message: Message, action: Message) -> None:
        """Record a fault of a cell, or of the whole sheet if the row is 0.

        Args:
            row: number of the row; 0 for the whole sheet.
            column: number of the column.
            message: description of the fault.
            action: corrective action.
        """
        cell = cell_name(row, column) if row else ""
        self._faults.append(Fault(self.grid.name, cell, message, action))

    def belongs_to_another_issue(self, binding: Binding) -> bool:
        """Return whether the workbook belongs to another issue than the expected one.

        Each fact on the hidden sheet that differs from the issued workbook is recorded as a fault.

        Args:
            binding: content of the hidden sheet as issued.
        """
        messages = {"format": _wrong_format} | dict(binding.wrong)
        facts, faults_before = _facts(self.grid), len(self._faults)
        for name, expected in binding.facts:
            row, value = facts.get(name, (0, ""))
            if value != expected:
                message = messages[name](value[:80], expected)
                self.fault(row, 2, message, binding.action)
        return len(self._faults) > faults_before

    # ---- fields ----

    def row_of(self, field: Field) -> int:
        """Return the row number of a labelled input cell, or 0 if the sheet lacks the label."""
        return self._rows.get(normalize_text(field.label), 0)

    def text(self, field: Field) -> str:
        """Return the text of a labelled input cell as a single line.

        If the cell is blank, a fault is recorded and the result is an empty text.
        """
        row = self._filled_row(field)
        text = " ".join(self.grid.text(row, 2).split())
        if row and not normalize_text(text):
            self.fault(row, 2, field.blank_message, field.action)
        return text

    def day(self, field: Field, issued_at: datetime, timezone: str) -> date | None:
        """Return the date in a labelled input cell, or None if the cell contains no date.

        A fault is recorded if the cell is blank, contains no date, or contains a date before the
        date of issue.

        Args:
            field: the labelled input cell.
            issued_at: time of issue.
            timezone: IANA name of the timezone in which the date of issue is determined.
        """
        row = self._filled_row(field)
        if not row:
            return None
        issued = issued_at.astimezone(ZoneInfo(timezone)).date()
        day = self.grid.day(row, 2)
        if not self.grid.text(row, 2).strip():
            self.fault(row, 2, field.blank_message, field.action)
        elif day is None:
            self.fault(row, 2, _("The cell contains no date."), field.action)
        elif day < issued and field.early_message is not None:
            self.fault(row, 2, field.early_message(day, issued), field.action)
        return day

    def _filled_row(self, field: Field) -> int:
        """Return the row number of a labelled input cell, or 0 if the cell cannot be read.

        The cell cannot be read if it has a formula or if its row is missing. A missing row is
        recorded as a fault.
        """
        row = self.row_of(field)
        if not row:
            message = _("The row {label} is missing.", label=field.label)
            action = _(
                "Restore the missing row, with its label in column A and the answer in column B."
            )
            self.fault(0, 0, message, action)
        return 0 if self.grid.is_formula(row, 2) else row

    # ---- cells ----

    def choice(self, row: int, column: int, choice: Choice[AnswerT]) -> AnswerT | None:
        """Return the answer in a cell, or None if the cell has no valid answer.

        An invalid answer is recorded as a fault. A blank cell is recorded as a fault if `choice`
        requires an answer.

        Args:
            row: number of the row.
            column: number of the column.
            choice: answers that the cell may contain.
        """
        if self.grid.is_formula(row, column):
            return None
        text = self.grid.text(row, column)
        answer = choice.choices.meaning(text)
        action = _(
            "Choose one of these answers: {answers}.",
            answers=listed(choice.words),
        )
        if not normalize_text(text):
            if choice.required:
                self.fault(row, column, _("The answer is missing."), action)
            return None
        if answer is None:
            quoted = visible(self.clean(text))[:_MAX_QUOTED]
            message = _("“{entry}” is not one of the answers.", entry=quoted)
            self.fault(row, column, message, action)
        elif choice.not_offered and answer not in choice.offered:
            self.fault(row, column, choice.not_offered, action)
            return None
        return answer

    def note(self, row: int, column: int, note: Note) -> str:
        """Return the text in a cell, with possible personal data redacted.

        The text is not accepted if it is too long, or if `note` is private and the text contains a
        mobile number or an ID number. In this case a fault of the cell is recorded, and the result
        is an empty text. The result is also empty if the cell has a formula.

        Args:
            row: number of the row.
            column: number of the column.
            note: limits of the text in the cell.
        """
        if self.grid.is_formula(row, column):
            return ""
        text = self.grid.text(row, column).strip()
        if note.private:
            text = " ".join(visible(text).split())
        if len(text) > note.max_length:
            message = note.too_long_message(len(text), note.max_length)
            self.fault(row, column, message, note.shorten_action)
            return ""
        if note.private and has_personal_number(text):
            message = _("The cell contains a mobile number or an ID number.")
            self.fault(
                row,
                column,
                message,
                _("Remove the mobile or ID number: the questionnaire asks for no personal data."),
            )
            return ""
        return self.clean(text)


class ReturnedTable:
    """A table of a returned sheet.

    Attributes:
        columns: column numbers by header. A column can be missing only if the table is `arranged`.
        rows: row numbers of the returned rows by key.
    """

    def __init__(self, sheet: ReturnedSheet, table: Table) -> None:
        self._sheet, self._grid, self._table = sheet, sheet.grid, table
        self.columns = self._arranged_heads() if table.arranged else self._heads()
        self.rows: dict[int | str, int] = {}
        if table.key in self.columns:
            self._read_rows()

    def is_formula(self, row: int, head: str) -> bool:
        """Return whether a cell has a formula.

        The caller need not record a fault for the formula, because `check_file` has already done
        so.

        Args:
            row: number of the row.
            head: header of the column.
        """
        return self._grid.is_formula(row, self.columns.get(head, 0))

    def fault(self, row: int, head: str, message: Message, action: Message) -> None:
        """Record a fault of the cell in the given row and in the column with the given header.

        Args:
            row: number of the row.
            head: header of the column.
            message: description of the fault.
            action: corrective action.
        """
        self._sheet.fault(row, self.columns.get(head, 0), message, action)

    def choice(self, row: int, head: str, choice: Choice[AnswerT]) -> AnswerT | None:
        """Return the answer in a cell, or None if the cell has no valid answer.

        Faults are recorded as in `ReturnedSheet.choice`.

        Args:
            row: number of the row.
            head: header of the column.
            choice: answers that the cell may contain.
        """
        return self._sheet.choice(row, self.columns.get(head, 0), choice)

    def note(self, row: int, head: str, note: Note) -> str:
        """Return the text in a cell, with possible personal data redacted.

        Faults are recorded as in `ReturnedSheet.note`.

        Args:
            row: number of the row.
            head: header of the column.
            note: limits of the text in the cell.
        """
        return self._sheet.note(row, self.columns.get(head, 0), note)

    def filled_rows(self) -> Iterator[int]:
        """Yield the numbers of the rows of the table that have a filled cell.

        Cells of locked columns that are not compared do not count. Filled cells to the left or
        right of the table are recorded as faults. In an `arranged` table, such a cell is no fault
        if its column has a header: the added column has already been recorded as a fault.
        """
        top, key = self._table.header_row, self._table.key
        fixed = {column.head for column in self._table.locked if column.returned == "ignored"} - {
            key
        }
        own = {column for head, column in self.columns.items() if head not in fixed}
        inside = own | {self.columns[head] for head in fixed if head in self.columns}
        for row in range(top + 1, len(self._grid.rows) + 1):
            held = {
                column
                for column in range(1, len(self._grid.rows[row - 1]) + 1)
                if normalize_text(self._grid.text(row, column))
            }
            for column in sorted(held - inside):
                if not (self._table.arranged and normalize_text(self._grid.text(top, column))):
                    message = _("The cell is outside of the table and is not empty.")
                    self._sheet.fault(
                        row,
                        column,
                        message,
                        _(
                            "Move the content of this cell into the note "
                            "of the same row, and clear this cell."
                        ),
                    )
            if held & own:
                yield row

    def _heads(self) -> dict[str, int]:
        at = self._table.header_row
        heads = {column.head: number for number, column in enumerate(self._table.columns, 1)}
        whole = True
        for head, column in heads.items():
            if normalize_text(self._grid.text(at, column)) != normalize_text(head):
                message = _("The heading {head} is missing in this cell.", head=head)
                self._sheet.fault(at, column, message, AS_ISSUED)
                whole = False
        return heads if whole else {}

    def _arranged_heads(self) -> dict[str, int]:
        at = self._table.header_row
        due = {
            normalize_text(escape_text(column.head)): column.head for column in self._table.columns
        }
        columns: dict[str, int] = {}
        for column in range(1, len(self._grid.rows[0]) + 1 if self._grid.rows else 1):
            here = normalize_text(self._grid.text(at, column))
            head = due.get(here)
            if head is None and here:
                message = _(
                    "The column is not part of the issued workbook: it was added or renamed."
                )
                action = _(
                    "Remove the column or restore its original heading. Move other content of "
                    "the column into the notes."
                )
                self._sheet.fault(at, column, message, action)
            elif head in columns:
                message = _("The column {head} occurs twice.", head=head)
                self._sheet.fault(
                    at, column, message, _("Remove one of the two columns with this heading.")
                )
            elif head is not None:
                columns[head] = column
        for expected in self._table.columns:
            if expected.head not in columns:
                message = _(
                    "The column {head} is missing in row {row}.", head=expected.head, row=at
                )
                action = _("Restore the missing column, with its heading in this row.")
                self._sheet.fault(0, 0, message, action)
            elif expected.question and normalize_text(expected.question) != normalize_text(
                self._grid.text(at - 1, columns[expected.head])
            ):
                message = _(
                    "The question or the source of the column {head} was changed.",
                    head=expected.head,
                )
                action = _(
                    "Restore the wording of the issued workbook: the sample items have to be "
                    "tested against this wording."
                )
                self._sheet.fault(at - 1, columns[expected.head], message, action)
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
            key = (
                self._grid.whole(row, at)
                if table.is_numbered
                else normalize_text(self._grid.text(row, at))
            )
            line = None if key is None else lines.get(key)
            if line is None:
                self._sheet.fault(row, at, faults.unknown, faults.restore)
            elif key in rows:
                message = faults.duplicate(table.key_of(line))
                self._sheet.fault(
                    row, at, message, _("Remove one of the two rows with the same number or id.")
                )
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
            if not at or column.returned == "ignored" or self._grid.is_formula(row, at):
                continue
            here = self._grid.whole(row, at) if isinstance(due, int) else self._grid.text(row, at)
            if column.returned == "normalized" and isinstance(due, str):
                here, due = normalize_text(str(here)), normalize_text(due)
            if here != due:
                self._sheet.fault(row, at, message(column.head), AS_ISSUED)


def _wrong_format(here: str, due: str) -> Message:
    return _(
        "The workbook has the format {actual}; the format {expected} is required.",
        actual=here,
        expected=due,
    )


def _facts(grid: Grid) -> dict[str, tuple[int, str]]:
    return {grid.text(row, 1): (row, grid.text(row, 2)) for row in range(1, len(grid.rows) + 1)}


def _key(value: int | str) -> int | str:
    return normalize_text(value) if isinstance(value, str) else value
