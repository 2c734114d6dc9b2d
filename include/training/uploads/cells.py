"""Parse the cells of a CSV file. A fault states its line and column, and quotes no personal data.

People, Excel and other programs write the same value in different ways. Unambiguous notations are
accepted. Ambiguous notations (5/1/2026) and values that Excel has converted (1.2E+05, 46027) are
refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

from include.reports.i18n import visible
from include.services.errors import UsageError

MAX_FAULTS_SHOWN = 50
# A date or a short number, but nothing that could be a telephone number, ID number or name.
_QUOTABLE = re.compile(r"-?\d{1,4}(?:[-/.年]\d{1,2}(?:[-/.月]\d{1,4}日?)?)?")


@dataclass(frozen=True)
class Fault:
    """A fault in an uploaded file, for which the file is refused.

    Attributes:
        line: number of the line in the file, from 1; 0 if the fault concerns the whole file.
        column: name of the column; empty if the fault concerns the whole line.
        message: description of the fault, with the correction.
    """

    line: int
    column: str
    message: str

    @property
    def text(self) -> str:
        """Return the line, the column and the message as one text."""
        column = f"{self.column}: " if self.column else ""
        return f"line {self.line}: {column}{self.message}" if self.line else self.message


@dataclass
class Faults:
    """The faults of an uploaded file.

    Attributes:
        first: the first `MAX_FAULTS_SHOWN` faults.
        count: number of all faults.
    """

    first: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, column: str, message: str) -> None:
        """Count a fault. The first `MAX_FAULTS_SHOWN` faults are kept in `first`."""
        self.count += 1
        if len(self.first) < MAX_FAULTS_SHOWN:
            self.first.append(Fault(line, column, message))


class UploadRefused(UsageError):
    """An error that is raised if a file is refused. None of the file's rows was stored.

    Attributes:
        faults: the first `MAX_FAULTS_SHOWN` faults of the file.
        count: number of all faults.
    """

    def __init__(self, name: str, faults: Sequence[Fault], count: int) -> None:
        self.faults = tuple(faults)
        self.count = count
        summary = "a fault" if count == 1 else f"{count:,} faults"
        lines = [f"- {fault.text}" for fault in faults]
        if count > len(faults):
            lines.append(f"- and {count - len(faults):,} more")
        head = f"{visible(name)} has {summary}, so nothing of it was stored:"
        super().__init__("\n".join([head, *lines]))


def refusal(name: str, line: int, message: str) -> UploadRefused:
    """Return the error for a file that cannot be read further because of a fault.

    Args:
        name: name of the file.
        line: number of the line with the fault.
        message: description of the fault.
    """
    return UploadRefused(name, [Fault(line, "", message)], 1)


def quotable(cell: str) -> str:
    """Return the text of a cell, followed by a space, if an error message may quote it.

    A date or a short number may be quoted, because it is no personal data. For any other cell, the
    result is empty.
    """
    return f"{cell} " if _QUOTABLE.fullmatch(cell) else ""


Value = str | int | bool | date | None
MAX_TEXT_LENGTH = 300  # characters
_MAX_CODE_LENGTH = 100

# Control characters, unassigned code points, surrogates
_FORBIDDEN_CATEGORIES = ("Cc", "Cn", "Cs")
_FORMAT_CATEGORY = "Cf"  # marks of direction and of bytes, soft hyphens, joiners
_FORMULA_TEXT = re.compile(r'="(.*)"', re.DOTALL)  # ="007", which keeps zeros in Excel
_CODE = re.compile(r"\w[\w.@/\-]*")
_TIME = (
    r"(?:[ T](?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?)?"  # of an export
)
_DAY = re.compile(
    r"([0-9]{4})(?:-([0-9]{1,2})-|/([0-9]{1,2})/|\.([0-9]{1,2})\.|年([0-9]{1,2})月)([0-9]{1,2})"
    rf"(日?){_TIME}"
)
_DAY_OF_YEAR = re.compile(r"([0-9]{1,2})(?:[-/.]|月)([0-9]{1,2})日?")
_INTEGER = re.compile(r"([0-9]{1,9})(?:\.0{1,6})?")
_YEARS = range(1900, 2200)
_YES = {"yes", "y", "true", "1", "是", "有", "通过", "合格", "pass", "passed"}
_NO = {"no", "n", "false", "0", "否", "无", "未通过", "不合格", "fail", "failed"}


class InvalidCell(ValueError):
    """An error that is raised if a cell has no valid value for its column.

    The text of the error describes the fault.
    """


def is_blank(cell: str) -> bool:
    """Return whether a cell has no visible character."""
    if not cell or cell.isspace():
        return True
    return not cell.isascii() and not _without_format_characters(cell).strip()


def read_code(cell: str) -> str:
    """Parse a staff number or the code of a course. Leading zeros are kept.

    Raises:
        InvalidCell: the cell is empty, is too long, or has characters other than letters, digits
            and ``. _ - / @``.
    """
    text = normalize_cell(cell)
    if not _CODE.fullmatch(text) or len(text) > _MAX_CODE_LENGTH:
        raise InvalidCell(
            f"is not a valid number or code: use at most {_MAX_CODE_LENGTH} letters, digits and "
            ". _ - / @, without spaces"
        )
    return text


def read_name(cell: str) -> str:
    """Parse the name of a person or the title of a course.

    Full-width characters are kept. Line breaks become spaces.

    Raises:
        InvalidCell: the cell is empty or too long, or has control characters.
    """
    return _single_line(cell)


def read_text(cell: str) -> str:
    """Parse the name of a department or a mail address. Full-width characters become ASCII.

    Raises:
        InvalidCell: the cell is empty or too long, or has control characters.
    """
    return _single_line(normalize_cell(cell))


def read_day(cell: str) -> date:
    """Parse a date such as 2026-01-05, 2026/1/5, 2026.1.5 or 2026年1月5日.

    If a time follows the date, the time is ignored.

    Raises:
        InvalidCell: the cell is not a date in one of these formats. Other formats are ambiguous.
    """
    text = normalize_cell(cell)
    match = _DAY.fullmatch(text)
    if not match or (match[7] and not match[5]):
        raise InvalidCell(f"{quotable(text)}is not a date: write 2026-01-05")
    month = match[2] or match[3] or match[4] or match[5]
    try:
        parsed = date(int(match[1]), int(month), int(match[6]))
    except ValueError:
        raise InvalidCell(f"{quotable(text)}is a date that does not exist") from None
    if parsed.year not in _YEARS:
        raise InvalidCell(f"{quotable(text)}is not between {_YEARS[0]} and {_YEARS[-1]}")
    return parsed


def read_day_of_year(cell: str) -> str:
    """Parse a month and day that exist in every year, and return them as ``03-31``.

    Raises:
        InvalidCell: the cell is not a month and day, or is 29 February.
    """
    text = normalize_cell(cell)
    match = _DAY_OF_YEAR.fullmatch(text)
    if not match:
        raise InvalidCell(f"{quotable(text)}is not a month and day: write 03-31")
    try:
        parsed = date(2026, int(match[1]), int(match[2]))  # a year in which February has 28 days
    except ValueError:
        raise InvalidCell(f"{quotable(text)}is not a day of every year") from None
    return f"{parsed:%m-%d}"


def integer_reader(least: int, most: int) -> Callable[[str], int]:
    """Return a function that parses a cell with an integer from ``least`` to ``most``.

    The function also accepts an integer with decimal zeros, such as 5.0. It raises InvalidCell for
    any other text.
    """

    def read(cell: str) -> int:
        text = normalize_cell(cell)
        match = _INTEGER.fullmatch(text)
        if not match or not least <= int(match[1]) <= most:
            raise InvalidCell(f"{quotable(text)}is not a whole number from {least} to {most}")
        return int(match[1])

    return read


def read_yes_no(cell: str) -> bool:
    """Parse yes or no in English or Chinese, or an equivalent such as true or 1.

    Raises:
        InvalidCell: the cell means neither yes nor no.
    """
    text = normalize_cell(cell).casefold()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise InvalidCell(f"{quotable(text)}is neither yes nor no")


def choice_reader(choices: dict[str, str]) -> Callable[[str], str]:
    """Return a function that converts the word in a cell to a value.

    The function raises InvalidCell if the cell has another text.

    Args:
        choices: accepted word in lower case (casefolded) -> value.
    """
    names = ", ".join(dict.fromkeys(choices.values()))

    def read(cell: str) -> str:
        value = choices.get(normalize_cell(cell).casefold())
        if value is None:
            raise InvalidCell(f"is not in the list {names}")
        return value

    return read


def normalize_cell(cell: str) -> str:
    """Return the text of a cell without invisible characters and without the marks of Excel.

    Excel marks a cell as text with an apostrophe before the text, or with ``=""`` around it.
    Full-width characters are converted to ASCII. White space of any length becomes one space.
    """
    text = " ".join(_without_invisible(cell).split())
    if not text.isascii():
        text = " ".join(unicodedata.normalize("NFKC", text).split())
    match = _FORMULA_TEXT.fullmatch(text)
    return (match[1] if match else text).removeprefix("'").strip()


def _single_line(text: str) -> str:
    line = " ".join(_without_invisible(text).split())
    if len(line) > MAX_TEXT_LENGTH:
        raise InvalidCell(f"is longer than {MAX_TEXT_LENGTH} characters")
    if not line:
        raise InvalidCell("is empty")
    return line


def _without_invisible(cell: str) -> str:
    """Return the text of a cell without invisible format characters.

    Raises:
        InvalidCell: the cell has control characters or unassigned characters, which do not occur in
            ordinary text.
    """
    if cell.isprintable() and cell.isascii():
        return cell
    text = _without_format_characters(cell)
    for character in text:
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES and not character.isspace():
            raise InvalidCell("contains a character that is not part of text; check the encoding")
    return text


def _without_format_characters(cell: str) -> str:
    return "".join(
        character for character in cell if unicodedata.category(character) != _FORMAT_CATEGORY
    )
