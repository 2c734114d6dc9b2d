"""The state of training on a day, the trend of coverage over runs, and the keys of reminders.

A key makes a reminder unique. It is one line of text, so that people can read it in the state
database; a slash inside a part is written as ``%2F``, and so are the other separators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from urllib.parse import quote, unquote

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.messages import _
from include.notify.outbox import Run
from include.training.obligations import (
    Department,
    Due,
    Topic,
    Untrained,
    Waiver,
    everything,
    of_people,
)
from include.training.rules import Reached, TrainingRules, reached
from include.training.sources import Sources
from include.training.tables import training_coverage
from include.workflow.run_context import RunContext

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
    """The obligation, due date and rung that a notification is about.

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
    """Return the identity of the reminder of an obligation."""
    return Told(due.person, due.course, due.cycle, due.due_on, due.rung)


def read(key: str) -> Told:
    """Parse a reminder's key, also that of a further address; raises ValueError for another key."""
    person, course, cycle, due, rung = key.partition("#")[0].split("/")
    return Told(
        person=unquote(person),
        course=unquote(course),
        cycle=unquote(cycle),
        due_on=date.fromisoformat(due),
        rung=int(rung),
    )


def weekly(department: str, week: str, head: str, about: Due | str = "") -> str:
    """Return the key of a line of a department's weekly summary.

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
    """Return a part of a key with separators and invisible characters escaped."""
    return "".join(
        quote(character, safe="")
        if character in _SIGNS or not character.isprintable()
        else character
        for character in text
    )


@dataclass
class Standing:
    """The obligations and the coverage of a day.

    Attributes:
        due: obligations that stand on a rung, by the key of their reminder; the oldest first.
        departments: of people who have to be trained.
        topics: of courses in force.
        untrained: who may open customer records without valid training.
    """

    due: dict[str, Due] = field(default_factory=dict)
    departments: list[Department] = field(default_factory=list)
    topics: list[Topic] = field(default_factory=list)
    untrained: list[Untrained] = field(default_factory=list)

    @property
    def people(self) -> int:
        """How many have to be trained; those on leave are not among them."""
        return sum(department.people for department in self.departments)

    @property
    def covered(self) -> int:
        """How many of them have no overdue course."""
        return sum(department.covered for department in self.departments)

    @property
    def coverage(self) -> float | None:
        """Their share, from 0 to 1; None where nobody has to be trained."""
        return self.covered / self.people if self.people else None

    def overdue(self, day: date) -> list[Due]:
        """Overdue obligations, the oldest first."""
        return [due for due in self.due.values() if due.due_on < day]


def _rungs(run: RunContext[TrainingRules]) -> Reached:
    return reached(run.rules.ladder, run.workdays, run.today)


def standing(
    run: RunContext[TrainingRules], sources: Sources, waived: Sequence[Waiver]
) -> Standing:
    """Work out how training stands today.

    Raises:
        UsageError: training.yaml's queries cannot be read.
        ServiceError: a database was lost.
    """
    current = Standing()
    due: list[Due] = []
    grace = run.rules.leave_grace
    for row in everything(sources, day=run.today, reached=_rungs(run), waived=waived, grace=grace):
        match row:
            case Due():
                due.append(row)
            case Department():
                current.departments.append(row)
            case Topic():
                current.topics.append(row)
            case Untrained():
                current.untrained.append(row)
    due.sort(key=lambda obligation: (obligation.due_on, obligation.person, obligation.course))
    current.due = {told_of(obligation).key: obligation for obligation in due}
    current.departments.sort(key=lambda department: department.name)
    current.untrained.sort(key=lambda person: person.person)
    return current


def reached_by(
    run: RunContext[TrainingRules],
    sources: Sources,
    people: Sequence[str],
    waived: Sequence[Waiver],
) -> set[str]:
    """Keys of the reminders that stand for some people now."""
    grace = run.rules.leave_grace
    due = of_people(sources, people, day=run.today, reached=_rungs(run), waived=waived, grace=grace)
    return {told_of(obligation).key for obligation in due}


_SHOWN = timedelta(days=90)  # of the trend


@dataclass(frozen=True)
class Point:
    """One measurement of the trend."""

    at: datetime
    people: int
    covered: int

    @property
    def share(self) -> float | None:
        """People without an overdue course, from 0 to 1; None where there was nobody."""
        return self.covered / self.people if self.people else None


def keep(
    conn: Connection, run: Run, day: date, at: datetime, departments: Sequence[Department]
) -> None:
    """Keep the figures of a run, in place of those of an earlier try."""
    table = training_coverage
    mine = (table.c.dag_id == run.dag_id) & (table.c.run_id == run.run_id)
    conn.execute(table.delete().where(mine))
    rows = [
        {
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "department": department.name,
            "day": day,
            "at": at,
            "people": department.people,
            "covered": department.covered,
            "overdue": department.overdue,
        }
        for department in departments
    ]
    if rows:
        conn.execute(insert(table).values(rows))


def last(conn: Connection, now: datetime) -> int | None:
    """Return how many people the last run had to train; None before the first.

    Measurements that lie in the future were made by a clock that was ahead: they are left out.
    """
    table = training_coverage
    query = (
        select(func.sum(table.c.people))
        .where(table.c.at <= now)
        .group_by(table.c.at, table.c.dag_id, table.c.run_id)
        .order_by(table.c.at.desc())
        .limit(1)
    )
    found = conn.scalar(query)
    return None if found is None else int(found)


def trend(conn: Connection, now: datetime) -> list[Point]:
    """Return the last measurement of each of the last days, the oldest first."""
    table = training_coverage
    runs = (
        select(table.c.day, table.c.at, func.sum(table.c.people), func.sum(table.c.covered))
        .where(table.c.at > now - _SHOWN, table.c.at <= now)
        .group_by(table.c.day, table.c.at, table.c.dag_id, table.c.run_id)
        .order_by(table.c.at)
    )
    last = {day: Point(at, int(all_), int(good)) for day, at, all_, good in conn.execute(runs)}
    return list(last.values())
