"""Compute the training status of a day, store the coverage of runs, and build keys of reminders.

Each reminder has a key, and a reminder with the same key is queued only once. The key is a line of
text that people can read in the state database. Separator characters within a value are
percent-encoded (``%2F``).
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
    compute_obligations,
    obligations_of_people,
    share_of,
)
from include.training.rules import DueThresholds, TrainingRules, thresholds_on
from include.training.sources import Sources
from include.training.tables import training_coverage
from include.workflow.run_context import RunContext

CLAUSE = "6.2"
STEP_PLAN = "plan"
OVERDUE_FILE = "overdue.csv"

REMINDER = "training.reminder"  # kinds of notifications
COPY = "training.copy"
DEPARTMENT = "training.department"

TOPICS = {
    "onboarding": _("onboarding"),
    "law": _("law"),
    "protection": _("protection skills"),
    "emergency": _("emergency handling"),
}


def week_of(day: date) -> str:
    """Return the ISO week of a day, such as ``2026-W48``.

    The first days of January may belong to the last ISO week of the previous year.
    """
    year, week, _weekday = day.isocalendar()
    return f"{year}-W{week:02d}"


_SEPARATORS = "%/#"


@dataclass(frozen=True)
class ReminderId:
    """The obligation, due date and reminder stage that identify a reminder.

    The due date is part of the id. If a leave moves the due date, all reminder stages are therefore
    sent again.

    Attributes:
        person: staff number.
        course: code of the course.
        cycle: text that names the day or version from which the due date is counted.
        due_on: due date.
        rung: reminder stage, in days from the due date; negative before the due date.
    """

    person: str
    course: str
    cycle: str
    due_on: date
    rung: int

    @property
    def obligation(self) -> str:
        """Return a text that identifies the obligation and its due date."""
        return "/".join(
            [*map(_escape_part, (self.person, self.course, self.cycle)), f"{self.due_on}"]
        )

    @property
    def key(self) -> str:
        """Return the key of the reminder. The copy for the superior has the same key."""
        return f"{self.obligation}/{self.rung:+d}"


def reminder_id(due: Due) -> ReminderId:
    """Return the id of the reminder for an obligation at its present reminder stage."""
    return ReminderId(due.person, due.course, due.cycle, due.due_on, due.rung)


def parse_key(key: str) -> ReminderId:
    """Parse the key of a reminder.

    A suffix such as ``#1`` is ignored. Keys have different suffixes if a notification goes to
    several addresses.

    Raises:
        ValueError: the text is not the key of a reminder.
    """
    person, course, cycle, due, rung = key.partition("#")[0].split("/")
    return ReminderId(
        person=unquote(person),
        course=unquote(course),
        cycle=unquote(cycle),
        due_on=date.fromisoformat(due),
        rung=int(rung),
    )


def summary_key(department: str, week: str, head: str, subject: Due | str = "") -> str:
    """Return the key of one line of a department's weekly summary.

    Args:
        department: name of the department.
        week: ISO week of the summary, such as ``2026-W48``.
        head: staff number of the head of the department, who receives the summary.
        subject: overdue obligation that the line is about; ``more`` for the line with the number of
            further overdue courses; empty for the first line, which states the coverage.
    """
    line = reminder_id(subject).key if isinstance(subject, Due) else subject
    return "/".join([_escape_part(department), week, _escape_part(head), *([line] if line else [])])


def parse_summary_key(key: str) -> tuple[str, ReminderId | None]:
    """Return the ISO week and the reminder of one line of a weekly summary.

    The reminder is None if the line is not about an obligation.

    Raises:
        ValueError: the text is not the key of a summary line.
    """
    _department, week, _head, *subject = key.split("/")
    return week, parse_key("/".join(subject)) if len(subject) > 1 else None


def _escape_part(text: str) -> str:
    """Return a value as it appears in a key.

    Separators of keys and invisible characters in the value are percent-encoded.
    """
    return "".join(
        quote(character, safe="")
        if character in _SEPARATORS or not character.isprintable()
        else character
        for character in text
    )


@dataclass
class TrainingStatus:
    """The training obligations and the training coverage of a day.

    Attributes:
        due_courses: key of the reminder -> obligation that has reached a reminder stage. The
            obligations are sorted by due date.
        departments: coverage of each department.
        topics: coverage of each topic.
        untrained: people who may access customer records but have no valid training.
    """

    due_courses: dict[str, Due] = field(default_factory=dict)
    departments: list[Department] = field(default_factory=list)
    topics: list[Topic] = field(default_factory=list)
    untrained: list[Untrained] = field(default_factory=list)

    @property
    def people(self) -> int:
        """Return the number of people who need training, without people on leave."""
        return sum(department.people for department in self.departments)

    @property
    def covered(self) -> int:
        """Return the number of people who need training and have no overdue course."""
        return sum(department.covered for department in self.departments)

    @property
    def coverage(self) -> float | None:
        """Return the share of people without an overdue course, from 0 to 1.

        Return None if no person needs training.
        """
        return share_of(self.covered, self.people)

    def overdue(self, day: date) -> list[Due]:
        """Return the obligations whose due date is before the given day, oldest first."""
        return [due for due in self.due_courses.values() if due.due_on < day]


def _thresholds(run: RunContext[TrainingRules]) -> DueThresholds:
    return thresholds_on(run.rules.ladder, run.workdays, run.today)


def compute_status(
    run: RunContext[TrainingRules], sources: Sources, waived: Sequence[Waiver]
) -> TrainingStatus:
    """Compute today's training obligations and training coverage.

    Args:
        run: context of the run.
        sources: relations with people, courses and completions.
        waived: waivers in force.

    Raises:
        UsageError: the rows of a query in training.yaml cannot be read.
        ServiceError: the connection to a database was lost.
    """
    status = TrainingStatus()
    due: list[Due] = []
    grace = run.rules.leave_grace
    for row in compute_obligations(
        sources, day=run.today, thresholds=_thresholds(run), waived=waived, grace=grace
    ):
        match row:
            case Due():
                due.append(row)
            case Department():
                status.departments.append(row)
            case Topic():
                status.topics.append(row)
            case Untrained():
                status.untrained.append(row)
    due.sort(key=lambda obligation: (obligation.due_on, obligation.person, obligation.course))
    status.due_courses = {reminder_id(obligation).key: obligation for obligation in due}
    status.departments.sort(key=lambda department: department.name)
    status.untrained.sort(key=lambda person: person.person)
    return status


def current_reminder_keys(
    run: RunContext[TrainingRules],
    sources: Sources,
    people: Sequence[str],
    waived: Sequence[Waiver],
) -> set[str]:
    """Return the keys of the reminders that are due today for the given people.

    Args:
        run: context of the run.
        sources: relations with people, courses and completions.
        people: staff numbers of the people.
        waived: waivers in force.
    """
    grace = run.rules.leave_grace
    due = obligations_of_people(
        sources, people, day=run.today, thresholds=_thresholds(run), waived=waived, grace=grace
    )
    return {reminder_id(obligation).key for obligation in due}


_TREND_PERIOD = timedelta(days=90)


@dataclass(frozen=True)
class CoveragePoint:
    """The training coverage that a run measured: how many people had no overdue course.

    Attributes:
        at: time of the measurement.
        people: number of people who need training, without people on leave.
        covered: number of these people who have no overdue course.
    """

    at: datetime
    people: int
    covered: int

    @property
    def share(self) -> float | None:
        """Return the share of people without an overdue course, from 0 to 1.

        Return None if no person needs training.
        """
        return share_of(self.covered, self.people)


def store_coverage(
    conn: Connection, run: Run, day: date, at: datetime, departments: Sequence[Department]
) -> None:
    """Store the training coverage that a run measured.

    The coverage that an earlier attempt of the same run stored is replaced.

    Args:
        conn: connection to the state database, in a transaction.
        run: the run.
        day: day of the measurement in the policy pack's timezone.
        at: time of the measurement.
        departments: coverage of each department.
    """
    table = training_coverage
    is_own_run = (table.c.dag_id == run.dag_id) & (table.c.run_id == run.run_id)
    conn.execute(table.delete().where(is_own_run))
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


def last_people_count(conn: Connection, now: datetime) -> int | None:
    """Return the number of people who needed training in the last run.

    The result is None before the first run. A measurement whose time is in the future is ignored,
    because the system clock was wrong when it was stored.

    Args:
        conn: connection to the state database.
        now: current time.
    """
    table = training_coverage
    query = (
        select(func.sum(table.c.people))
        .where(table.c.at <= now)
        .group_by(table.c.at, table.c.dag_id, table.c.run_id)
        .order_by(table.c.at.desc())
        .limit(1)
    )
    total = conn.scalar(query)
    return None if total is None else int(total)


def coverage_trend(conn: Connection, now: datetime) -> list[CoveragePoint]:
    """Return the training coverage of the last 90 days, oldest first.

    Days without a run are left out. If a day has several runs, the coverage of its last run is
    returned.
    """
    table = training_coverage
    runs = (
        select(table.c.day, table.c.at, func.sum(table.c.people), func.sum(table.c.covered))
        .where(table.c.at > now - _TREND_PERIOD, table.c.at <= now)
        .group_by(table.c.day, table.c.at, table.c.dag_id, table.c.run_id)
        .order_by(table.c.at)
    )
    points = {
        day: CoveragePoint(at, int(people), int(covered))
        for day, at, people, covered in conn.execute(runs)
    }
    return list(points.values())
