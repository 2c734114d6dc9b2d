"""Lines of a CSV file as records of cells, decoded without a guess, in constant memory.

UTF-8 is recognised by its form, which texts in other encodings do not have by chance. GB18030 has
no such form: nearly every file could be it. So a file is read as GB18030 only where it is no UTF-8,
does not look like UTF-8 that was damaged or pasted together, and reads as common Chinese.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from include.training.uploads.cells import Faults, refusal

_BLOCK = 1024 * 1024  # bytes
LONGEST_LINE = 64 * 1024  # bytes; no line of these files comes near it
_AS_UTF8 = 'Save it as "CSV UTF-8" in Excel and upload that file.'

_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_MARKS = (  # in this order: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook, not a CSV file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of an old version, not a CSV file",
    b"%PDF": "a PDF file, not a CSV file",
}
# Two-byte characters of GB18030, and those of them that make up nearly all of a Chinese text: the
# more frequent half of GB 2312 (rows 16 to 55) and its punctuation and full-width letters.
_PAIR = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]|[\x81-\xfe][0-9][\x81-\xfe][0-9]")
_COMMON = re.compile(rb"[\xa1\xa3\xb0-\xd7][\xa1-\xfe]")
# A line in UTF-8 whose characters are Chinese: each has three bytes and begins like this.
_CHINESE = re.compile(rb"(?:[\x00-\x7f]|[\xe3-\xe9\xef][\x80-\xbf]{2})*")
_TWO_BYTES_ONLY = re.compile("[\x00-\u07ff]*")
# Shares of frequent characters from which a text may be Chinese, and is. In rosters nine of ten are
# frequent; of Big5 read as GB18030 four of ten look so.
_PERHAPS, _CERTAIN = 0.5, 0.7
_SEVERAL = 100  # a line that reads as both to so many that are not UTF-8: chance


@dataclass(frozen=True)
class Encoding:
    """How a file is to be read.

    Attributes:
        name: for people: ``UTF-8``.
        codec: Python's.
        skipped: bytes of the mark at its beginning.
    """

    name: str
    codec: str
    skipped: int


def recognise(stream: BinaryIO, file: str) -> Encoding:
    """Say which encoding a file is in; all of it can be decoded then.

    Args:
        stream: the file, which is read from its beginning to its end.
        file: its name, for the refusal.

    Raises:
        UploadRefused: it cannot be told, or a line cannot be decoded.
    """
    stream.seek(0)
    head = stream.read(4)
    for mark, what in _OTHERS.items():
        if head.startswith(mark):
            raise refusal(file, 0, f"It is {what}. {_AS_UTF8}")
    if head in _UTF32:
        raise refusal(file, 0, f"It is in UTF-32. {_AS_UTF8}")
    for mark, codec in _MARKS:
        if head.startswith(mark):
            found = Encoding(
                codec.upper().removesuffix("-LE").removesuffix("-BE"), codec, len(mark)
            )
            if line := _undecodable(stream, found).line:
                raise refusal(file, line, f"It is no {found.name}, as the file begins. {_AS_UTF8}")
            return found
    if b"\x00" in head:
        raise refusal(file, 0, f"It is in UTF-16 without its mark, or no text. {_AS_UTF8}")
    return _without_mark(stream, file)


def _without_mark(stream: BinaryIO, file: str) -> Encoding:
    utf8, chinese = Encoding("UTF-8", "utf-8", 0), Encoding("GB18030", "gb18030", 0)
    seen = _undecodable(stream, utf8)
    if not seen.line and not seen.doubtful:
        return utf8
    # From here on a file that is GB18030, or one in UTF-8 that holds nothing of three bytes: é, ü.
    looks = _look(stream, file)
    wrong = _undecodable(stream, chinese)
    if not seen.line:
        if wrong.line or looks.common < looks.pairs * _PERHAPS:
            return utf8
        raise refusal(
            file, looks.first, f"It could be UTF-8 as well as GB18030, of other words. {_AS_UTF8}"
        )
    if wrong.line and not looks.both:
        raise refusal(file, wrong.line, f"It is neither UTF-8 nor GB18030. {_AS_UTF8}")
    if looks.both * _SEVERAL > looks.neither:
        raise refusal(
            file,
            seen.line,
            "It is no UTF-8, but other lines are: the file is damaged, or was put together from "
            f"two. {_AS_UTF8}",
        )
    if wrong.line:
        raise refusal(file, wrong.line, f"It is neither UTF-8 nor GB18030. {_AS_UTF8}")
    if looks.common < looks.pairs * _CERTAIN:
        raise refusal(
            file, seen.line, f"It is no UTF-8, and read as GB18030 it makes no sense. {_AS_UTF8}"
        )
    return chinese


@dataclass(frozen=True)
class _Decoded:
    line: int  # the first that cannot be decoded; 0 where all can
    doubtful: bool  # it holds characters beyond ASCII, none of which has three bytes in UTF-8


def _undecodable(stream: BinaryIO, encoding: Encoding) -> _Decoded:
    stream.seek(encoding.skipped)
    decoder = codecs.getincrementaldecoder(encoding.codec)("strict")
    lines, ended, beyond, long = 1, False, False, False
    while True:
        block = stream.read(_BLOCK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode(encoding.codec, "replace")
            return _Decoded(lines + _breaks(text, ended), False)
        if not block:
            return _Decoded(0, beyond and not long)
        lines += _breaks(text, ended)
        ended = text.endswith("\r") if text else ended
        if not text.isascii():
            beyond = True
            long = long or not _TWO_BYTES_ONLY.fullmatch(text)


def _breaks(text: str, ended: bool) -> int:
    """How many lines end in a text; ``ended`` says that a carriage return before it counted."""
    both = text.count("\r\n") + (ended and text.startswith("\n"))
    return text.count("\n") + text.count("\r") - both


@dataclass
class _Looks:
    """What the bytes look like, line by line.

    Attributes:
        first: line with the first byte beyond ASCII.
        both: lines of Chinese in UTF-8.
        neither: lines that are no UTF-8.
        pairs: characters of GB18030.
        common: of them those that are frequent in Chinese.
    """

    first: int = 0
    both: int = 0
    neither: int = 0
    pairs: int = 0
    common: int = 0


def _look(stream: BinaryIO, file: str) -> _Looks:
    stream.seek(0)
    looks = _Looks()
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise refusal(file, number, f"It is longer than {LONGEST_LINE:,} bytes.")
        if line.isascii():
            continue
        looks.first = looks.first or number
        if _CHINESE.fullmatch(line):
            looks.both += 1
        elif not _is_utf8(line):
            looks.neither += 1
        pairs = _PAIR.findall(line)
        looks.pairs += len(pairs)
        looks.common += sum(map(bool, map(_COMMON.fullmatch, pairs)))
    return looks


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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
            match = _SEPARATOR.fullmatch(line.removeprefix("\ufeff"))
            if self._number == 1 and match:
                if match[1] not in DELIMITERS:
                    self._faults.add(1, "", "sep= names no comma, semicolon or tab")
                    return None
                self.delimiter = match[1]
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
