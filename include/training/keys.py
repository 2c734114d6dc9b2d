"""The keys of notices about training: what makes a reminder the same one.

One line of text, so that anybody can read it in the state database; a slash inside a part is
written as ``%2F``.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from include.training.obligations import Due


@dataclass(frozen=True)
class Told:
    """What a notice told: of which obligation, on which rung."""

    person: str
    course: str
    cycle: str
    rung: int

    @property
    def key(self) -> str:
        """The key of the reminder, and of the supervisor's copy."""
        return "/".join([*map(_part, (self.person, self.course, self.cycle)), f"{self.rung:+d}"])


def told_of(due: Due) -> Told:
    """What a reminder of an obligation tells."""
    return Told(due.person, due.course, due.cycle, due.rung)


def read(key: str) -> Told:
    """What a reminder's key says; raises ValueError for another key."""
    person, course, cycle, rung = key.split("/")
    return Told(unquote(person), unquote(course), unquote(cycle), int(rung))


def weekly(department: str, week: str, about: Due | None = None) -> str:
    """The key of a line of a department's summary of a week, ``2026-W48``.

    Args:
        department: its name.
        week: of the summary.
        about: the overdue obligation that the line names; None for the line of figures.
    """
    whose = f"{_part(department)}/{week}"
    return f"{whose}/{told_of(about).key}" if about else whose


def read_weekly(key: str) -> tuple[str, Told | None]:
    """The week of a summary's line, and what it tells; raises ValueError for another key."""
    _department, week, *about = key.split("/")
    return week, read("/".join(about)) if about else None


def _part(text: str) -> str:
    return quote(text, safe=" -:.")
