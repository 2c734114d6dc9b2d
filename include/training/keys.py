"""Names of `remind_training`, and the keys by which a reminder is sent once.

One line of text, so that anybody can read it in the state database; a slash inside a part is
written as ``%2F``, and so are the other signs that mean something here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, unquote

from include.messages import _
from include.training.obligations import Due

CLAUSE = "6.2"
STEP_PLAN = "plan"
OVERDUE_FILE = "overdue.csv"

REMINDER = "training.reminder"  # kinds of notices
COPY = "training.copy"
DEPARTMENT = "training.department"

TOPICS = {
    "onboarding": _("onboarding"),
    "law": _("law"),
    "protection": _("protection skills"),
    "emergency": _("emergency handling"),
}


def week_of(day: date) -> str:
    """The ISO week of a day, ``2026-W48``; the first days of January may lie in the year before."""
    year, week, _weekday = day.isocalendar()
    return f"{year}-W{week:02d}"


_SIGNS = "%/#"


@dataclass(frozen=True)
class Told:
    """What a notice told: of which obligation, due when, on which rung.

    The due day is a part of it: where a leave moves it, the ladder of the new day begins anew.
    """

    person: str
    course: str
    cycle: str
    due_on: date
    rung: int

    @property
    def obligation(self) -> str:
        """The key without its rung."""
        return "/".join([*map(_part, (self.person, self.course, self.cycle)), f"{self.due_on}"])

    @property
    def key(self) -> str:
        """The key of the reminder, and of the supervisor's copy."""
        return f"{self.obligation}/{self.rung:+d}"


def told_of(due: Due) -> Told:
    """What a reminder of an obligation tells."""
    return Told(due.person, due.course, due.cycle, due.due_on, due.rung)


def read(key: str) -> Told:
    """What a reminder's key says, also that of a further address; ValueError for another key."""
    person, course, cycle, due, rung = key.partition("#")[0].split("/")
    return Told(
        person=unquote(person),
        course=unquote(course),
        cycle=unquote(cycle),
        due_on=date.fromisoformat(due),
        rung=int(rung),
    )


def weekly(department: str, week: str, head: str, about: Due | str = "") -> str:
    """The key of a line of a department's summary of a week.

    Args:
        department: its name.
        week: of the summary, ``2026-W48``.
        head: staff number of who is told.
        about: the overdue obligation that the line names, or a word for another line; empty for the
            line of figures.
    """
    line = told_of(about).key if isinstance(about, Due) else about
    return "/".join([_part(department), week, _part(head), *([line] if line else [])])


def read_weekly(key: str) -> tuple[str, Told | None]:
    """The week of a summary's line, and the obligation it names; ValueError for another key."""
    _department, week, _head, *about = key.split("/")
    return week, read("/".join(about)) if len(about) > 1 else None


def _part(text: str) -> str:
    """A part as it stands in a key: what means something there, or is unseen, is written out."""
    return "".join(
        quote(one, safe="") if one in _SIGNS or not one.isprintable() else one for one in text
    )
