"""The lines of a file as records of cells, each with the line it begins on; in flat memory."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from include.training.uploads.encodings import LONGEST_LINE, Encoding
from include.training.uploads.faults import Faults

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_MOST_LINES = 100  # of one record: a cell with more line breaks is a quotation mark without its end
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a first line that Excel understands
_NOT_SEEN = "what follows was not looked at"
_QUOTED = re.compile(r'"[^"]*"?')

Record = tuple[int, list[str]]


class Lines:
    """The records of a file, to be gone through once.

    Attributes:
        delimiter: between cells; known once the first record was read.
    """

    def __init__(self, stream: BinaryIO, encoding: Encoding, faults: Faults) -> None:
        stream.seek(encoding.skipped)
        self._text = io.TextIOWrapper(
            stream, encoding.codec, errors="strict", newline="", write_through=True
        )
        self._faults = faults
        self._number = 0  # of the line that was read last
        self._begun = 0  # the line on which the present record begins
        self.delimiter = ","

    def close(self) -> None:
        """Let go of the file, which stays open."""
        self._text.detach()

    def records(self) -> Iterator[Record]:
        """Go through the records that are not blank, the header first.

        Where the file cannot be read any further, that is noted as a fault, and it ends there.
        """
        try:
            yield from self._records()
        except (csv.Error, _Endless):
            self._faults.add(
                self._begun,
                "",
                f"a quotation mark is not closed, or stands alone inside a cell; {_NOT_SEEN}",
            )
        except _TooLong:
            what = f"it is longer than {LONGEST_LINE:,} characters; {_NOT_SEEN}"
            self._faults.add(self._number, "", what)

    def _records(self) -> Iterator[Record]:
        first = self._first_line()
        if first is None:
            return
        self._begun = self._number
        reader = csv.reader(
            self._from(first), delimiter=self.delimiter, strict=True, skipinitialspace=True
        )
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                yield self._begun, cells
            self._begun = self._number + 1

    def _first_line(self) -> str | None:
        """The first line with something in it, and the delimiter that it has."""
        while line := self._next():
            said = _SEPARATOR.fullmatch(line.removeprefix("\ufeff"))
            if self._number == 1 and said:
                if said[1] not in DELIMITERS:
                    self._faults.add(1, "", "sep= names no comma, semicolon or tab")
                    return None
                self.delimiter = said[1]
                return self._next()
            if line.strip(" \t\r\n,;\ufeff"):
                bare = _QUOTED.sub("", line)
                self.delimiter = max(DELIMITERS, key=bare.count)
                return line.removeprefix("\ufeff")
        return None

    def _from(self, first: str) -> Iterator[str]:
        yield first
        while line := self._next():
            if self._number - self._begun >= _MOST_LINES:
                raise _Endless
            yield line

    def _next(self) -> str:
        line = self._text.readline(LONGEST_LINE + 1)
        if not line:
            return line
        self._number += 1
        if len(line) > LONGEST_LINE:
            raise _TooLong
        if "\0" in line:
            self._faults.add(self._number, "", "it holds a NUL byte: the file is damaged")
            return line.replace("\0", " ")
        return line


class _TooLong(Exception):
    """A line is longer than any line of these files."""


class _Endless(Exception):
    """A record goes over more lines than any record has."""
