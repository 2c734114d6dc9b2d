"""Read uploaded CSV files, with English or Chinese headers, in constant memory.

All faults of a file are collected before the file is refused.
"""

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
from include.training.uploads.cells import Faults, InvalidCell, UploadRefused, Value
from include.training.uploads.lines import DELIMITERS, Lines, Record, detect_encoding

_MAX_DAYS = 3660  # days


class Kind(StrEnum):
    """The kind of data in an uploaded file: people, courses or completions of courses."""

    ROSTER = "roster"
    COURSES = "courses"
    COMPLETIONS = "completions"


@dataclass(frozen=True)
class Column:
    """A column of an uploaded file, and of the database table that stores the file's rows.

    Attributes:
        name: name of the column in the table, and its English name in files.
        chinese: Chinese name of the column in files.
        read: function that parses the text of a cell. It is not called for a blank cell. It raises
            InvalidCell if the text is not valid.
        optional: whether a cell of the column may be blank.
        aliases: further names of the column that are accepted in files.
    """

    name: str
    chinese: str
    read: Callable[[str], Value]
    optional: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return the English and the Chinese name of the column, for messages."""
        return f"{self.name} ({self.chinese})"


_PERSON = Column("person", "工号", cells.read_code, aliases=("员工编号", "staff_number"))
_COURSE = Column("course", "课程代码", cells.read_code, aliases=("课程编号",))
_VERSION = Column("version", "版本", cells.integer_reader(1, 1_000_000), aliases=("课程版本",))
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
        Column("name", "姓名", cells.read_name),
        Column(
            "mail", "邮箱", cells.read_text, optional=True, aliases=("电子邮箱", "email", "e-mail")
        ),
        Column("department", "部门", cells.read_text),
        Column("supervisor", "主管工号", cells.read_code, optional=True, aliases=("上级工号",)),
        Column("head", "部门负责人", cells.read_yes_no, aliases=("是否部门负责人",)),
        Column("joined_on", "入职日期", cells.read_day),
        Column("left_on", "离职日期", cells.read_day, optional=True),
        Column("leave_from", "休假开始", cells.read_day, optional=True, aliases=("休假开始日期",)),
        Column("leave_until", "休假结束", cells.read_day, optional=True, aliases=("休假结束日期",)),
        Column("access", "客户信息权限", cells.read_yes_no, aliases=("是否有客户信息权限",)),
    ),
    Kind.COURSES: (
        _COURSE,
        Column("title", "课程名称", cells.read_name, aliases=("名称",)),
        Column("topic", "主题", cells.choice_reader(_TOPIC_NAMES), aliases=("课程主题",)),
        _VERSION,
        Column("published_on", "发布日期", cells.read_day),
        Column(
            "within_days", "完成天数", cells.integer_reader(0, _MAX_DAYS), aliases=("完成期限(天)",)
        ),
        Column("repeat_months", "复训月数", cells.integer_reader(1, 120), optional=True),
        Column("due_each_year", "每年截止日", cells.read_day_of_year, optional=True),
        Column(
            "retake_within_days", "新版补学天数", cells.integer_reader(0, _MAX_DAYS), optional=True
        ),
    ),
    Kind.COMPLETIONS: (
        _PERSON,
        _COURSE,
        _VERSION,
        Column("completed_on", "完成日期", cells.read_day),
        Column("passed", "通过", cells.read_yes_no, aliases=("是否通过", "结果")),
    ),
}
"""The columns of each kind; a file has all of them, in any order."""


def columns_by_name(kind: Kind) -> Mapping[str, Column]:
    """Return the columns of a kind of file: accepted name -> column.

    The names are in the form that `normalize_name` returns.
    """
    return {
        normalize_name(name): column
        for column in COLUMNS[kind]
        for name in (column.name, column.chinese, *column.aliases)
    }


def normalize_name(name: str) -> str:
    """Return the name of a column in lower case and without separators, for comparisons."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(
        character
        for character in text
        if character not in "_-" and unicodedata.category(character)[0] not in "CZ"
    )


Row = Mapping[str, Value]


def find_contradictions(kind: Kind, row: Row) -> list[tuple[str, str]]:
    """Return the contradictions between values of a row, as pairs of column name and message.

    Combinations that are unlikely but possible are no contradictions, for example a course that was
    completed before the person joined. The workflow `remind_training` reports them later.
    """
    contradictions = []
    if kind is Kind.ROSTER:
        contradictions = [
            ("left_on", "is before joined_on") if _before(row, "left_on", "joined_on") else None,
            ("leave_until", "is before leave_from")
            if _before(row, "leave_until", "leave_from")
            else None,
            ("leave_from", "is empty, but leave_until is set")
            if row["leave_from"] is None and row["leave_until"] is not None
            else None,
        ]
    if kind is Kind.COURSES and row["repeat_months"] is not None and row["due_each_year"]:
        contradictions = [
            ("due_each_year", "is set together with repeat_months: leave one of them empty")
        ]
    return [contradiction for contradiction in contradictions if contradiction is not None]


def _before(row: Row, first: str, second: str) -> bool:
    day, later = row[first], row[second]
    return isinstance(day, date) and isinstance(later, date) and day < later


def template(kind: Kind, *, chinese: bool = False) -> bytes:
    """Return an empty CSV file for people to fill in. It contains only the header.

    Args:
        kind: kind of the file.
        chinese: whether the header has the Chinese names of the columns.
    """
    text = io.StringIO()
    csv.writer(text).writerow(
        [column.chinese if chinese else column.name for column in COLUMNS[kind]]
    )
    return text.getvalue().encode("utf-8-sig")  # Excel needs the byte order mark


_MAX_CACHED_CELLS = 4096  # parsed cells kept per column, because dates and courses repeat
_MAX_COURSES = 100_000  # kept in memory to find duplicates

_BLOCK = 1024 * 1024  # bytes

Values = tuple[Value, ...]


@dataclass
class Upload:
    """A file that a person uploads.

    Attributes:
        kind: kind of the file.
        name: name of the file.
        stream: content of the file; must be seekable.
        lines: number of rows that were read so far, without the header.
    """

    kind: Kind
    name: str
    stream: BinaryIO
    lines: int = 0
    _file_format: str = ""

    def digest(self) -> str:
        """Return the SHA-256 of the file, as hexadecimal text."""
        self.stream.seek(0)
        digest = hashlib.sha256()
        while block := self.stream.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()

    @property
    def file_format(self) -> str:
        """Return the encoding and the delimiter as text; empty if the file was not read yet."""
        return self._file_format

    def rows(self) -> Iterator[Values]:
        """Yield the values of each row, in the order of the columns in `COLUMNS`.

        After the first fault, no more rows are yielded. The rest of the file is read only to
        collect its faults.

        Raises:
            UploadRefused: the file has faults; raised after the last line was read.
        """
        faults = Faults()
        encoding = detect_encoding(self.stream, self.name)
        lines = Lines(self.stream, encoding, faults)
        try:
            records = lines.records()
            header = next(records, None)
            self._file_format = f"{encoding.name}, {DELIMITERS[lines.delimiter]}"
            if header is not None:
                yield from self._rows(_header(self.kind, header, faults), records, faults)
            if not self.lines and not faults.count:
                faults.add(0, "", "The file is empty.")
        finally:
            lines.close()
        if faults.count:
            raise UploadRefused(self.name, faults.first, faults.count)

    def _rows(
        self, positions: Sequence[int] | None, records: Iterator[Record], faults: Faults
    ) -> Iterator[Values]:
        if positions is None:  # without valid columns no cell can be parsed
            return
        read = _RowReader(self.kind, positions, faults)
        for line, row in records:
            values = read(line, row)
            self.lines += 1
            if self.lines > _MAX_COURSES and self.kind is Kind.COURSES:
                faults.add(line, "", f"there are more than {_MAX_COURSES:,} courses")
                return
            if not faults.count:
                yield values


def _header(kind: Kind, header: Record, faults: Faults) -> list[int] | None:
    """Return the position of each expected column in the header, or None if the header has faults.

    A fault is added for each missing, repeated or unknown column.

    Args:
        kind: kind of the file.
        header: line number and cells of the header.
        faults: faults of the file.
    """
    line, names = header
    before = faults.count
    columns = columns_by_name(kind)
    positions: dict[str, int] = {}
    for position, cell in enumerate(names):
        name = normalize_name(cell)
        column = columns.get(name)
        if column is None:
            if name or any(map(normalize_name, names[position:])):
                message = "is not a column of this file" if name else "has no name"
                faults.add(line, f"column {position + 1}", message)  # not quoted: it may be a name
        elif column.name in positions:
            faults.add(line, column.title, "appears twice")
        else:
            positions[column.name] = position
    expected = COLUMNS[kind]
    missing = [
        expected_column.title
        for expected_column in expected
        if expected_column.name not in positions
    ]
    if missing:
        faults.add(
            line,
            "",
            f"missing columns: {', '.join(missing)}; see ./parcelseal training template {kind}",
        )
    return (
        None
        if faults.count > before
        else [positions[expected_column.name] for expected_column in expected]
    )


class _RowReader:
    """Parses the rows of a file, and adds faults in the rows to the faults of the file."""

    def __init__(self, kind: Kind, positions: Sequence[int], faults: Faults) -> None:
        self._kind = kind
        self._width = max(positions) + 1
        self._faults = faults
        self._plan: list[tuple[Column, int, dict[str, Value]]] = [
            (column, position, {})
            for column, position in zip(COLUMNS[kind], positions, strict=True)
        ]
        self._courses: set[tuple[Value, Value]] = set()

    def __call__(self, line: int, row_cells: list[str]) -> Values:
        """Parse the cells of a row and return the values in the order of the columns in `COLUMNS`.

        Faults of the row are added to the faults of the file. If there are any, the returned values
        must not be used.

        Args:
            line: number of the first line of the row in the file.
            row_cells: cells of the row.
        """
        if len(row_cells) != self._width and not self._has_valid_length(line, row_cells):
            return ()
        row: list[Value] = []
        before = self._faults.count
        for column, position, cache in self._plan:
            cell = row_cells[position]
            try:
                row.append(cache[cell])
            except KeyError:
                row.append(self._value(line, column, cell, cache))
        if self._kind is not Kind.COMPLETIONS and self._faults.count == before:
            self._check_row(
                line, dict(zip((column.name for column, _, _ in self._plan), row, strict=True))
            )
        return tuple(row)

    def _has_valid_length(self, line: int, row_cells: list[str]) -> bool:
        """Return whether a row that is longer or shorter than the header can still be read.

        It can be read only if it has more cells than the header, and all extra cells are blank.
        Otherwise the method adds a fault to the faults of the file. For a row as long as the
        header, the method must not be called, because it would add a fault as well.

        Args:
            line: number of the first line of the row in the file.
            row_cells: cells of the row.
        """
        extra = row_cells[self._width :]
        if len(row_cells) > self._width and all(map(cells.is_blank, extra)):
            return True  # Excel appends empty cells
        self._faults.add(
            line,
            "",
            f"it has {len(row_cells)} cells, but the header has {self._width}",
        )
        return False

    def _value(self, line: int, column: Column, cell: str, cache: dict[str, Value]) -> Value:
        value: Value = None
        if cells.is_blank(cell):
            if not column.optional:
                self._faults.add(line, column.title, "is empty")
                return None
        else:
            try:
                value = column.read(cell)
            except InvalidCell as error:
                self._faults.add(line, column.title, str(error))
                return None
        if len(cache) >= _MAX_CACHED_CELLS:
            cache.clear()
        cache[cell] = value
        return value

    def _check_row(self, line: int, row: dict[str, Value]) -> None:
        for name, message in find_contradictions(self._kind, row):
            title = next(column.title for column in COLUMNS[self._kind] if column.name == name)
            self._faults.add(line, title, message)
        if self._kind is Kind.COURSES:
            key = (row["course"], row["version"])
            if key in self._courses:
                self._faults.add(line, "", "its course and version appear in an earlier line")
            self._courses.add(key)
