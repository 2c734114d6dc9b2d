"""Read uploaded CSV files in flat memory: columns in English and Chinese, rows, all faults."""

from __future__ import annotations

import csv
import hashlib
import io
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import BinaryIO

from include.training.rules import TOPICS
from include.training.uploads import cells
from include.training.uploads.cells import Faults, Unreadable, UploadRefused, Value
from include.training.uploads.lines import DELIMITERS, Lines, Record, recognise

_YEARS = 3660  # days


class Kind(StrEnum):
    """What a file holds."""

    ROSTER = "roster"
    COURSES = "courses"
    COMPLETIONS = "completions"


@dataclass(frozen=True)
class Column:
    """One column of a file, and of the table it is stored in.

    Attributes:
        name: in the table, and the English one in files.
        chinese: the Chinese one in files.
        read: makes its value of a cell that is not blank; raises Unreadable.
        optional: whether a cell may be blank.
        aliases: further names that are understood.
    """

    name: str
    chinese: str
    read: Callable[[str], Value]
    optional: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Both names, for people."""
        return f"{self.name} ({self.chinese})"


_PERSON = Column("person", "工号", cells.code, aliases=("员工编号", "staff_number"))
_COURSE = Column("course", "课程代码", cells.code, aliases=("课程编号",))
_VERSION = Column("version", "版本", cells.whole(1, 1_000_000), aliases=("课程版本",))
_TOPIC_NAMES = {
    "入职": "onboarding",
    "入职培训": "onboarding",
    "法律法规": "law",
    "法律": "law",
    "保护技能": "protection",
    "应急处置": "emergency",
    "应急": "emergency",
} | {topic: topic for topic in TOPICS}

COLUMNS: Mapping[Kind, tuple[Column, ...]] = {
    Kind.ROSTER: (
        _PERSON,
        Column("name", "姓名", cells.name),
        Column("mail", "邮箱", cells.words, optional=True, aliases=("电子邮箱", "email", "e-mail")),
        Column("department", "部门", cells.words),
        Column("supervisor", "主管工号", cells.code, optional=True, aliases=("上级工号",)),
        Column("head", "部门负责人", cells.yes_no, aliases=("是否部门负责人",)),
        Column("joined_on", "入职日期", cells.day),
        Column("left_on", "离职日期", cells.day, optional=True),
        Column("leave_from", "休假开始", cells.day, optional=True, aliases=("休假开始日期",)),
        Column("leave_until", "休假结束", cells.day, optional=True, aliases=("休假结束日期",)),
        Column("access", "客户信息权限", cells.yes_no, aliases=("是否有客户信息权限",)),
    ),
    Kind.COURSES: (
        _COURSE,
        Column("title", "课程名称", cells.name, aliases=("名称",)),
        Column("topic", "主题", cells.one_of(_TOPIC_NAMES), aliases=("课程主题",)),
        _VERSION,
        Column("published_on", "发布日期", cells.day),
        Column("within_days", "完成天数", cells.whole(0, _YEARS), aliases=("完成期限(天)",)),
        Column("repeat_months", "复训月数", cells.whole(1, 120), optional=True),
        Column("due_each_year", "每年截止日", cells.day_of_year, optional=True),
        Column("retake_within_days", "新版补学天数", cells.whole(0, _YEARS), optional=True),
    ),
    Kind.COMPLETIONS: (
        _PERSON,
        _COURSE,
        _VERSION,
        Column("completed_on", "完成日期", cells.day),
        Column("passed", "通过", cells.yes_no, aliases=("是否通过", "结果")),
    ),
}
"""The columns of each kind; a file has all of them, in any order."""


def known_names(kind: Kind) -> Mapping[str, Column]:
    """The columns by every name that is understood, as `same` makes it."""
    return {
        same(name): column
        for column in COLUMNS[kind]
        for name in (column.name, column.chinese, *column.aliases)
    }


def same(name: str) -> str:
    """Return a column's name for comparison, without separators between its words."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(
        character
        for character in text
        if character not in "_-" and unicodedata.category(character)[0] not in "CZ"
    )


Row = Mapping[str, Value]


def contradictions(kind: Kind, row: Row) -> list[tuple[str, str]]:
    """Return the contradictions of a line: the name of a column, and the fault.

    What may be true, though it is odd, such as a completion before joining, is left to the run.
    """
    found = []
    if kind is Kind.ROSTER:
        found = [
            ("left_on", "is before joined_on") if _before(row, "left_on", "joined_on") else None,
            ("leave_until", "is before leave_from")
            if _before(row, "leave_until", "leave_from")
            else None,
            ("leave_from", "is empty, and the leave has an end")
            if row["leave_from"] is None and row["leave_until"] is not None
            else None,
        ]
    if kind is Kind.COURSES and row["repeat_months"] is not None and row["due_each_year"]:
        found = [("due_each_year", "is given beside repeat_months: leave one of them empty")]
    return [contradiction for contradiction in found if contradiction is not None]


def _before(row: Row, first: str, second: str) -> bool:
    one, other = row[first], row[second]
    return isinstance(one, date) and isinstance(other, date) and one < other


def template(kind: Kind, *, chinese: bool = False) -> bytes:
    """Return a CSV file that has only its header.

    Args:
        kind: what the file is to hold.
        chinese: whether its columns are named in Chinese.
    """
    text = io.StringIO()
    csv.writer(text).writerow(
        [column.chinese if chinese else column.name for column in COLUMNS[kind]]
    )
    return text.getvalue().encode("utf-8-sig")  # without the mark Excel takes it for another one


_REMEMBERED = 4096  # cells of a column: days and courses come again and again
_MOST_COURSES = 100_000  # lines; each is kept in memory, to find those that come twice

_BLOCK = 1024 * 1024  # bytes

Values = tuple[Value, ...]


@dataclass
class Upload:
    """A file that is to be read.

    Attributes:
        kind: what it holds.
        name: of the file.
        stream: its bytes; can be read twice.
        lines: rows that were read so far.
    """

    kind: Kind
    name: str
    stream: BinaryIO
    lines: int = 0
    _form: str = ""

    def digest(self) -> str:
        """The SHA-256 of its content."""
        self.stream.seek(0)
        digest = hashlib.sha256()
        while block := self.stream.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()

    @property
    def form(self) -> str:
        """Encoding and delimiter, for people; known when it was read."""
        return self._form

    def rows(self) -> Iterator[Values]:
        """Read all rows, in the order of the columns of its kind.

        After the first fault nothing is yielded any more, and the rest is read for its faults.

        Raises:
            UploadRefused: there are faults; at the end, or where it cannot be read any further.
        """
        faults = Faults()
        encoding = recognise(self.stream, self.name)
        lines = Lines(self.stream, encoding, faults)
        try:
            records = lines.records()
            header = next(records, None)
            self._form = f"{encoding.name}, {DELIMITERS[lines.delimiter]}"
            if header is not None:
                yield from self._rows(_header(self.kind, header, faults), records, faults)
            if not self.lines and not faults.count:
                faults.add(0, "", "It is empty.")
        finally:
            lines.close()
        if faults.count:
            raise UploadRefused(self.name, faults.first, faults.count)

    def _rows(
        self, places: Sequence[int] | None, records: Iterator[Record], faults: Faults
    ) -> Iterator[Values]:
        if places is None:  # without its columns no cell can be judged
            return
        read = _Row(self.kind, places, faults)
        for line, found in records:
            values = read(line, found)
            self.lines += 1
            if self.lines > _MOST_COURSES and self.kind is Kind.COURSES:
                faults.add(line, "", f"there are more than {_MOST_COURSES:,} courses")
                return
            if not faults.count:
                yield values


def _header(kind: Kind, header: Record, faults: Faults) -> list[int] | None:
    """Return the place of each column of a kind; None if one is missing or unknown."""
    line, found = header
    before = faults.count
    known = known_names(kind)
    places: dict[str, int] = {}
    for place, cell in enumerate(found):
        name = same(cell)
        column = known.get(name)
        if column is None:
            if name or any(map(same, found[place:])):
                said = "is none of this file's columns" if name else "has no name"
                faults.add(line, f"column {place + 1}", said)  # it may be a person: not repeated
        elif column.name in places:
            faults.add(line, column.title, "is there twice")
        else:
            places[column.name] = place
    wanted = COLUMNS[kind]
    missing = [each.title for each in wanted if each.name not in places]
    if missing:
        faults.add(
            line,
            "",
            f"there is no column {', '.join(missing)}; see ./parcelseal training template {kind}",
        )
    return None if faults.count > before else [places[each.name] for each in wanted]


class _Row:
    """Converts lines to values, and collects their faults."""

    def __init__(self, kind: Kind, places: Sequence[int], faults: Faults) -> None:
        self._kind = kind
        self._width = max(places) + 1
        self._faults = faults
        self._plan: list[tuple[Column, int, dict[str, Value]]] = [
            (column, place, {}) for column, place in zip(COLUMNS[kind], places, strict=True)
        ]
        self._courses: set[tuple[Value, Value]] = set()

    def __call__(self, line: int, found: list[str]) -> Values:
        """Read a line; what it returns counts only while there are no faults."""
        if len(found) != self._width and not self._fits(line, found):
            return ()
        row: list[Value] = []
        before = self._faults.count
        for column, place, known in self._plan:
            cell = found[place]
            try:
                row.append(known[cell])
            except KeyError:
                row.append(self._value(line, column, cell, known))
        if self._kind is not Kind.COMPLETIONS and self._faults.count == before:
            self._compare(line, dict(zip((one.name for one, _, _ in self._plan), row, strict=True)))
        return tuple(row)

    def _fits(self, line: int, found: list[str]) -> bool:
        """Return whether a line of another length than the header is nevertheless complete."""
        more = found[self._width :]
        if len(found) > self._width and all(map(cells.blank, more)):
            return True  # Excel adds cells that are empty
        self._faults.add(
            line,
            "",
            f"it has another number of cells ({len(found)}) than the header ({self._width})",
        )
        return False

    def _value(self, line: int, column: Column, cell: str, known: dict[str, Value]) -> Value:
        value: Value = None
        if cells.blank(cell):
            if not column.optional:
                self._faults.add(line, column.title, "is empty")
                return None
        else:
            try:
                value = column.read(cell)
            except Unreadable as error:
                self._faults.add(line, column.title, str(error))
                return None
        if len(known) >= _REMEMBERED:
            known.clear()
        known[cell] = value
        return value

    def _compare(self, line: int, row: dict[str, Value]) -> None:
        for name, what in contradictions(self._kind, row):
            title = next(column.title for column in COLUMNS[self._kind] if column.name == name)
            self._faults.add(line, title, what)
        if self._kind is Kind.COURSES:
            key = (row["course"], row["version"])
            if key in self._courses:
                self._faults.add(line, "", "its course and version stand in an earlier line")
            self._courses.add(key)
