"""Values of a CSV file's cells; faults name line and column and no value of a person.

Excel, other programs and people write the same in many ways. What can be read in one way only is
read; what could be two things (5/1/2026) is refused, and so is what Excel has made of something
else (1.2E+05, 46027).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

from include.reports.i18n import visible
from include.services.errors import UsageError

SHOWN = 50
# A day or a short number, and nothing that could be a telephone or ID number or a name.
_HARMLESS = re.compile(r"-?\d{1,4}(?:[-/.年]\d{1,2}(?:[-/.月]\d{1,4}日?)?)?")


@dataclass(frozen=True)
class Fault:
    """A fault for which a file is refused.

    Attributes:
        line: of the file, from 1; 0 for the file itself.
        column: its name; empty for the whole line.
        what: what is wrong, and what to do about it.
    """

    line: int
    column: str
    what: str

    @property
    def said(self) -> str:
        """Place and fault as one text."""
        column = f"{self.column}: " if self.column else ""
        return f"line {self.line}: {column}{self.what}" if self.line else self.what


@dataclass
class Faults:
    """The faults of a file: the first of them, and how many there are.

    Attributes:
        first: those that are shown.
        count: of all.
    """

    first: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, column: str, what: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(Fault(line, column, what))


class UploadRefused(UsageError):
    """A file cannot be taken; nothing of it was stored.

    Attributes:
        faults: the first of them.
        count: of all.
    """

    def __init__(self, name: str, faults: Sequence[Fault], count: int) -> None:
        self.faults = tuple(faults)
        self.count = count
        said = "a fault" if count == 1 else f"{count:,} faults"
        lines = [f"- {fault.said}" for fault in faults]
        if count > len(faults):
            lines.append(f"- and {count - len(faults):,} more")
        head = f"{visible(name)} has {said}, and nothing of it was taken:"
        super().__init__("\n".join([head, *lines]))


def refusal(name: str, line: int, what: str) -> UploadRefused:
    """A file with one fault, after which no other can be looked for."""
    return UploadRefused(name, [Fault(line, "", what)], 1)


def shown(cell: str) -> str:
    """A day or number as it was written, for the words of a fault; empty for everything else."""
    return f"{cell} " if _HARMLESS.fullmatch(cell) else ""


Value = str | int | bool | date | None
LONGEST = 300  # characters of words
_LONGEST_CODE = 100

# Control characters, what is no character at all, and halves of one.
_IMPOSSIBLE = ("Cc", "Cn", "Cs")
_INVISIBLE = "Cf"  # marks of direction and of bytes, soft hyphens, joiners
_GUARDED = re.compile(r'="(.*)"', re.DOTALL)  # ="007", which keeps zeros in Excel
_CODE = re.compile(r"\w[\w.@/\-]*")
_TIME = (
    r"(?:[ T](?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?)?"  # of an export
)
_DAY = re.compile(
    r"([0-9]{4})(?:-([0-9]{1,2})-|/([0-9]{1,2})/|\.([0-9]{1,2})\.|年([0-9]{1,2})月)([0-9]{1,2})"
    rf"(日?){_TIME}"
)
_DAY_OF_YEAR = re.compile(r"([0-9]{1,2})(?:[-/.]|月)([0-9]{1,2})日?")
_WHOLE = re.compile(r"([0-9]{1,9})(?:\.0{1,6})?")
_YEARS = range(1900, 2200)
_YES = {"yes", "y", "true", "1", "是", "有", "通过", "合格", "pass", "passed"}
_NO = {"no", "n", "false", "0", "否", "无", "未通过", "不合格", "fail", "failed"}


class Unreadable(ValueError):
    """A cell has no valid value of its column; the text names the fault."""


def blank(cell: str) -> bool:
    """Return whether a cell has no visible character."""
    if not cell or cell.isspace():
        return True
    return not cell.isascii() and not _visible(cell).strip()


def code(cell: str) -> str:
    """Read a staff number or a course's code; leading zeros are part of it.

    Raises:
        Unreadable: it has blanks or signs of formulas in it, or is too long.
    """
    text = plain(cell)
    if not _CODE.fullmatch(text) or len(text) > _LONGEST_CODE:
        raise Unreadable(
            "is no number or code: write letters, digits and . _ - / @ without blanks, at most "
            f"{_LONGEST_CODE}"
        )
    return text


def name(cell: str) -> str:
    """Read a person's name or a title as written, in one line."""
    return _words(cell)


def words(cell: str) -> str:
    """Read a department or an address: full-width letters are the same as others."""
    return _words(plain(cell))


def day(cell: str) -> date:
    """Read a day: 2026-01-05, 2026/1/5, 2026.1.5, 2026年1月5日; a time after it is left out.

    Raises:
        Unreadable: it is none, or is written in an order that cannot be told.
    """
    text = plain(cell)
    match = _DAY.fullmatch(text)
    if not match or (match[7] and not match[5]):
        raise Unreadable(f"{shown(text)}is no day: write 2026-01-05")
    month = match[2] or match[3] or match[4] or match[5]
    try:
        parsed = date(int(match[1]), int(month), int(match[6]))
    except ValueError:
        raise Unreadable(f"{shown(text)}is a day that does not exist") from None
    if parsed.year not in _YEARS:
        raise Unreadable(f"{shown(text)}is not between {_YEARS[0]} and {_YEARS[-1]}")
    return parsed


def day_of_year(cell: str) -> str:
    """Read a day of every year, ``03-31``.

    Raises:
        Unreadable: it is none, or not one of every year.
    """
    text = plain(cell)
    match = _DAY_OF_YEAR.fullmatch(text)
    if not match:
        raise Unreadable(f"{shown(text)}is no day of a year: write 03-31")
    try:
        parsed = date(2026, int(match[1]), int(match[2]))  # in which February has 28 days
    except ValueError:
        raise Unreadable(f"{shown(text)}is not a day of every year") from None
    return f"{parsed:%m-%d}"


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within limits; 5.0 is one."""

    def read(cell: str) -> int:
        text = plain(cell)
        match = _WHOLE.fullmatch(text)
        if not match or not least <= int(match[1]) <= most:
            raise Unreadable(f"{shown(text)}is no whole number from {least} to {most}")
        return int(match[1])

    return read


def yes_no(cell: str) -> bool:
    """Read yes or no, 是 or 否, and their like.

    Raises:
        Unreadable: it is neither.
    """
    text = plain(cell).casefold()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise Unreadable(f"{shown(text)}is neither yes nor no")


def one_of(known: dict[str, str]) -> Callable[[str], str]:
    """Return a reader of one of some words."""
    names = ", ".join(dict.fromkeys(known.values()))

    def read(cell: str) -> str:
        found = known.get(plain(cell).casefold())
        if found is None:
            raise Unreadable(f"is none of {names}")
        return found

    return read


def plain(cell: str) -> str:
    """Return a cell as a program would have written it.

    Without what Excel puts around (an apostrophe, =""), full-width characters as usual ones.
    """
    text = " ".join(_checked(cell).split())
    if not text.isascii():
        text = " ".join(unicodedata.normalize("NFKC", text).split())
    guarded = _GUARDED.fullmatch(text)
    return (guarded[1] if guarded else text).removeprefix("'").strip()


def _words(text: str) -> str:
    said = " ".join(_checked(text).split())
    if len(said) > LONGEST:
        raise Unreadable(f"is longer than {LONGEST} characters")
    if not said:
        raise Unreadable("is empty")
    return said


def _checked(cell: str) -> str:
    """Return the cell without invisible characters.

    Raises:
        Unreadable: it holds what is no character of a text.
    """
    if cell.isprintable() and cell.isascii():
        return cell
    text = _visible(cell)
    for character in text:
        if unicodedata.category(character) in _IMPOSSIBLE and not character.isspace():
            raise Unreadable("holds a character that no text has; is it the right encoding?")
    return text


def _visible(cell: str) -> str:
    return "".join(character for character in cell if unicodedata.category(character) != _INVISIBLE)
