"""The state of training on a day, and the trend of coverage over runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.notify.outbox import Run
from include.training.keys import told_of
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


@dataclass
class Standing:
    """How training stands on a day.

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
        return sum(one.people for one in self.departments)

    @property
    def covered(self) -> int:
        """How many of them have no overdue course."""
        return sum(one.covered for one in self.departments)

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
            "department": one.name,
            "day": day,
            "at": at,
            "people": one.people,
            "covered": one.covered,
            "overdue": one.overdue,
        }
        for one in departments
    ]
    if rows:
        conn.execute(insert(table).values(rows))


def last(conn: Connection, now: datetime) -> int | None:
    """How many people the last run had to train; None before the first.

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
