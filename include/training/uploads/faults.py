"""What is wrong with a file: each fault with its line and column, and no value of a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from include.reports.i18n import visible
from include.services.errors import UsageError

SHOWN = 50
# A day or a short number, and nothing that could be a telephone or ID number or a name.
_HARMLESS = re.compile(r"-?\d{1,4}(?:[-/.年]\d{1,2}(?:[-/.月]\d{1,4}日?)?)?")


@dataclass(frozen=True)
class Fault:
    """One thing for which a file is refused.

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
        lines = [f"- {one.said}" for one in faults]
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
