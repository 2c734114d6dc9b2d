"""How many people were trained, run by run: the trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.notify.outbox import Run
from include.state.training import training_coverage
from include.training.obligations import Department

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
