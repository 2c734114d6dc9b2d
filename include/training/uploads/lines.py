"""Detect the encoding of a CSV file and read its records in constant memory.

Text in another encoding is rarely valid UTF-8 by chance, but nearly every file is valid GB18030. A
file is therefore read as GB18030 only in one case: it is not UTF-8, does not look like damaged or
concatenated UTF-8, and its multi-byte characters are mostly common Chinese characters.
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
MAX_LINE_BYTES = 64 * 1024  # far above the longest line of these files
_AS_UTF8 = 'Save it as "CSV UTF-8" in Excel and upload that file.'

_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_BYTE_ORDER_MARKS = (  # UTF-32 is checked before, because its mark begins like that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel workbook, not a CSV file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of an old version, not a CSV file",
    b"%PDF": "a PDF file, not a CSV file",
}
# Two-byte characters of GB18030, and the common ones in Chinese texts: the more frequent half of
# GB 2312 (rows 16 to 55) and its punctuation and full-width letters.
_PAIR = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]|[\x81-\xfe][0-9][\x81-\xfe][0-9]")
_COMMON = re.compile(rb"[\xa1\xa3\xb0-\xd7][\xa1-\xfe]")
# A line of Chinese in UTF-8: each character has three bytes with these first bytes
_CHINESE = re.compile(rb"(?:[\x00-\x7f]|[\xe3-\xe9\xef][\x80-\xbf]{2})*")
_TWO_BYTES_ONLY = re.compile("[\x00-\u07ff]*")
# Shares of common characters at which a text may be Chinese, or certainly is. Rosters have 0.9;
# Big5 read as GB18030 has 0.4.
_MIN_COMMON_SHARE, _SURE_COMMON_SHARE = 0.5, 0.7
_CHANCE_RATIO = 100  # lines that are not UTF-8 for each line that is valid by chance


@dataclass(frozen=True)
class Encoding:
    """The character encoding of a file.

    Attributes:
        name: name that is shown to people, such as ``UTF-8``.
        codec: name of Python's codec.
        skipped: length in bytes of the byte order mark at the start of the file.
    """

    name: str
    codec: str
    skipped: int


def detect_encoding(stream: BinaryIO, file: str) -> Encoding:
    """Return the character encoding of a file. The function reads the whole file.

    Args:
        stream: content of the file.
        file: name of the file, for error messages.

    Raises:
        UploadRefused: the file is not a text file or its encoding is not supported, the encoding is
            ambiguous, or a line is too long or cannot be decoded.
    """
    stream.seek(0)
    head = stream.read(4)
    for mark, description in _OTHER_FORMATS.items():
        if head.startswith(mark):
            raise refusal(file, 0, f"The file is {description}. {_AS_UTF8}")
    if head in _UTF32:
        raise refusal(file, 0, f"The file is in UTF-32. {_AS_UTF8}")
    for mark, codec in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            encoding = Encoding(
                codec.upper().removesuffix("-LE").removesuffix("-BE"), codec, len(mark)
            )
            if line := _decode_all(stream, encoding).line:
                raise refusal(
                    file,
                    line,
                    f"The line is not {encoding.name}, unlike the start of the file. {_AS_UTF8}",
                )
            return encoding
    if b"\x00" in head:
        raise refusal(
            file, 0, f"The file is UTF-16 without a byte order mark, or not text. {_AS_UTF8}"
        )
    return _detect_without_mark(stream, file)


def _detect_without_mark(stream: BinaryIO, file: str) -> Encoding:
    utf8, chinese = Encoding("UTF-8", "utf-8", 0), Encoding("GB18030", "gb18030", 0)
    as_utf8 = _decode_all(stream, utf8)
    if not as_utf8.line and not as_utf8.doubtful:
        return utf8
    # Either GB18030, or UTF-8 without three-byte characters, such as é or ü
    evidence = _count_evidence(stream, file)
    as_gb18030 = _decode_all(stream, chinese)
    if not as_utf8.line:
        if as_gb18030.line or evidence.common < evidence.multibyte_characters * _MIN_COMMON_SHARE:
            return utf8
        raise refusal(
            file,
            evidence.first_non_ascii_line,
            f"The line is valid as UTF-8 and as GB18030, with different words. {_AS_UTF8}",
        )
    if as_gb18030.line and not evidence.chinese_utf8:
        raise refusal(file, as_gb18030.line, f"The line is neither UTF-8 nor GB18030. {_AS_UTF8}")
    if evidence.chinese_utf8 * _CHANCE_RATIO > evidence.not_utf8:
        raise refusal(
            file,
            as_utf8.line,
            "The line is not UTF-8, but other lines are: the file is damaged, or was joined from "
            f"two files. {_AS_UTF8}",
        )
    if as_gb18030.line:
        raise refusal(file, as_gb18030.line, f"The line is neither UTF-8 nor GB18030. {_AS_UTF8}")
    if evidence.common < evidence.multibyte_characters * _SURE_COMMON_SHARE:
        raise refusal(
            file,
            as_utf8.line,
            f"The line is not UTF-8, and not plausible as GB18030. {_AS_UTF8}",
        )
    return chinese


@dataclass(frozen=True)
class _Decoded:
    line: int  # first undecodable line; 0 if all lines can be decoded
    doubtful: bool  # whether the file has non-ASCII characters, but none of three bytes in UTF-8


def _decode_all(stream: BinaryIO, encoding: Encoding) -> _Decoded:
    stream.seek(encoding.skipped)
    decoder = codecs.getincrementaldecoder(encoding.codec)("strict")
    lines, follows_carriage_return, beyond, long = 1, False, False, False
    while True:
        block = stream.read(_BLOCK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode(encoding.codec, "replace")
            return _Decoded(lines + _count_line_breaks(text, follows_carriage_return), False)
        if not block:
            return _Decoded(0, beyond and not long)
        lines += _count_line_breaks(text, follows_carriage_return)
        follows_carriage_return = text.endswith("\r") if text else follows_carriage_return
        if not text.isascii():
            beyond = True
            long = long or not _TWO_BYTES_ONLY.fullmatch(text)


def _count_line_breaks(text: str, follows_carriage_return: bool) -> int:
    """Count the line breaks in a block of text that was read from a file.

    Args:
        text: the block of text.
        follows_carriage_return: whether the previous block ended with a carriage return. If it did,
            a line feed at the start of this block belongs to a line break that is already counted.
    """
    pairs = text.count("\r\n") + (follows_carriage_return and text.startswith("\n"))
    return text.count("\n") + text.count("\r") - pairs


@dataclass
class _EncodingEvidence:
    """Counts of lines and characters in a file, to decide whether it is UTF-8 or GB18030.

    Attributes:
        first_non_ascii_line: number of the first line with a non-ASCII byte; 0 if all bytes are
            ASCII.
        chinese_utf8: number of lines that are Chinese text in UTF-8.
        not_utf8: number of lines that are not valid UTF-8.
        multibyte_characters: number of multi-byte characters if the file is read as GB18030.
        common: number of these characters that are common in Chinese.
    """

    first_non_ascii_line: int = 0
    chinese_utf8: int = 0
    not_utf8: int = 0
    multibyte_characters: int = 0
    common: int = 0


def _count_evidence(stream: BinaryIO, file: str) -> _EncodingEvidence:
    stream.seek(0)
    evidence = _EncodingEvidence()
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise refusal(file, number, f"The line is longer than {MAX_LINE_BYTES:,} bytes.")
        if line.isascii():
            continue
        evidence.first_non_ascii_line = evidence.first_non_ascii_line or number
        if _CHINESE.fullmatch(line):
            evidence.chinese_utf8 += 1
        elif not _is_utf8(line):
            evidence.not_utf8 += 1
        characters = _PAIR.findall(line)
        evidence.multibyte_characters += len(characters)
        evidence.common += sum(map(bool, map(_COMMON.fullmatch, characters)))
    return evidence


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_MAX_RECORD_LINES = 100  # lines of a record; more lines mean an unclosed quotation mark
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's delimiter line
_REST_NOT_READ = "the rest of the file was not read"
_QUOTED = re.compile(r'"[^"]*"?')

Record = tuple[int, list[str]]


class Lines:
    """Reads the records of a CSV file. The records can be read only once.

    Attributes:
        delimiter: character between the cells; detected when the first record is read.
    """

    def __init__(self, stream: BinaryIO, encoding: Encoding, faults: Faults) -> None:
        stream.seek(encoding.skipped)
        self._text = io.TextIOWrapper(
            stream, encoding.codec, errors="strict", newline="", write_through=True
        )
        self._faults = faults
        self._number = 0  # number of the last line that was read
        self._record_start = 0  # number of the first line of the current record
        self.delimiter = ","

    def close(self) -> None:
        """Detach from the file without closing it. The caller must close the file."""
        self._text.detach()

    def records(self) -> Iterator[Record]:
        """Yield the header, and each record that is not blank, as line number and cells.

        The line number is that of the first line of the record. If a line cannot be parsed, a fault
        is added to the faults of the file, and reading ends.
        """
        try:
            yield from self._records()
        except (csv.Error, _UnclosedQuote):
            self._faults.add(
                self._record_start,
                "",
                f"a quotation mark is not closed, or stands alone inside a cell; {_REST_NOT_READ}",
            )
        except _LineTooLong:
            message = f"it is longer than {MAX_LINE_BYTES:,} characters; {_REST_NOT_READ}"
            self._faults.add(self._number, "", message)

    def _records(self) -> Iterator[Record]:
        first = self._first_line()
        if first is None:
            return
        self._record_start = self._number
        reader = csv.reader(
            self._lines_from(first), delimiter=self.delimiter, strict=True, skipinitialspace=True
        )
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                yield self._record_start, cells
            self._record_start = self._number + 1

    def _first_line(self) -> str | None:
        """Detect the delimiter, and return the first line that is not blank.

        If the first line of the file only names the delimiter, such as ``sep=;``, return the second
        line. Return None if the file has only blank lines. If the named delimiter is not supported,
        add a fault and return None.
        """
        while line := self._next():
            match = _SEPARATOR.fullmatch(line.removeprefix("\ufeff"))
            if self._number == 1 and match:
                if match[1] not in DELIMITERS:
                    self._faults.add(1, "", "sep= names neither comma nor semicolon nor tab")
                    return None
                self.delimiter = match[1]
                return self._next()
            if line.strip(" \t\r\n,;\ufeff"):
                unquoted = _QUOTED.sub("", line)
                self.delimiter = max(DELIMITERS, key=unquoted.count)
                return line.removeprefix("\ufeff")
        return None

    def _lines_from(self, first: str) -> Iterator[str]:
        yield first
        while line := self._next():
            if self._number - self._record_start >= _MAX_RECORD_LINES:
                raise _UnclosedQuote
            yield line

    def _next(self) -> str:
        line = self._text.readline(MAX_LINE_BYTES + 1)
        if not line:
            return line
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise _LineTooLong
        if "\0" in line:
            self._faults.add(self._number, "", "it contains a NUL byte: the file is damaged")
            return line.replace("\0", " ")
        return line


class _LineTooLong(Exception):
    """An error that is raised if a line exceeds the maximum length."""


class _UnclosedQuote(Exception):
    """An error that is raised if a record spans more lines than are allowed.

    The usual cause is a quotation mark that is not closed.
    """
