"""Reading a file in flat memory: its encoding, its header, its rows; every fault is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from include.training.uploads import cells
from include.training.uploads.cells import Faults, Unreadable, UploadRefused, Value
from include.training.uploads.columns import (
    COLUMNS,
    Column,
    Kind,
    contradictions,
    known_names,
    same,
)
from include.training.uploads.lines import DELIMITERS, Lines, Record, recognise

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
    """Where each column of a kind stands; None where one is missing, or another one is there."""
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
    missing = [one.title for one in COLUMNS[kind] if one.name not in places]
    if missing:
        faults.add(
            line,
            "",
            f"there is no column {', '.join(missing)}; see ./parcelseal training template {kind}",
        )
    return None if faults.count > before else [places[one.name] for one in COLUMNS[kind]]


class _Row:
    """Makes values of the cells of one line after the other, and notes what is wrong with them."""

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
        """Whether a line of another length than the header is nevertheless complete."""
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
            title = next(one.title for one in COLUMNS[self._kind] if one.name == name)
            self._faults.add(line, title, what)
        if self._kind is Kind.COURSES:
            key = (row["course"], row["version"])
            if key in self._courses:
                self._faults.add(line, "", "its course and version stand in an earlier line")
            self._courses.add(key)
