"""The circuit breaker: a plan that is larger than usual needs approval by a second person."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.policy.retention import Limit
from include.retention.planning.plan import Plan, PlannedClass
from include.services.clock import Clock
from include.state.tables import disposition, erasure_batch

LOOKED_BACK = 10  # runs
FEWEST = 3  # runs for a trend
NEVER = 100  # records; at most so many exceed neither a percentage nor the trend
# Recent erasures of other runs count too, or one person could slice a large plan by `as_of`. The
# period is less than a day, so that a daily run never counts the run of the day before.
RECENT = timedelta(hours=23)

Cause = Literal["records", "percent", "trend"]


@dataclass(frozen=True)
class Tripped:
    """A class that exceeds a limit, so that it needs approval.

    Attributes:
        name: of the class.
        cause: the limit.
        planned: planned records.
        allowed: records that the limit allows.
        recent: records that other runs of the last day erased, if they count too.
    """

    name: str
    cause: Cause
    planned: int
    allowed: int
    recent: int = 0


def trips(
    planned: PlannedClass, limit: Limit, past: Sequence[int], recent: int = 0
) -> Tripped | None:
    """Return the limit that a class exceeds, or None.

    Args:
        planned: of the plan.
        limit: of the class, else of disposition.yaml.
        past: records that its last runs erased.
        recent: records that other runs erased within `RECENT`; `records` and `percent` are of these
            and the planned ones together.
    """
    count = planned.planned
    if count == 0:
        return None
    together = count + recent
    allowed: dict[Cause, tuple[int, int]] = {"records": (together, limit.records)}
    if together > NEVER:
        before = planned.records + (0 if planned.action == "mask" else recent)
        allowed["percent"] = (together, int(before * limit.percent / 100))
    if count > NEVER and len(past) >= FEWEST:
        allowed["trend"] = (count, int(limit.times_trend * median(past)))
    for cause, (number, most) in allowed.items():
        if number > most:
            return Tripped(planned.name, cause, count, most, number - count)
    return None


def recent_runs(
    conn: Connection, plan: Plan, run: tuple[str, str], now: datetime
) -> dict[str, int]:
    """Count the records that other runs erased within `RECENT`, by class.

    Erasures are counted from the ledger by the moment of erasure: a run that waited for approval
    erases long after its plan, and a killed run left no result. Records that a second person
    approved do not count. Classes of the same plan that needed no approval do count.

    Args:
        conn: the state database.
        plan: a plan of the database.
        run: DAG id and run id of this run, which does not count.
        now: the end of the period.
    """
    batch = erasure_batch
    query = (
        select(disposition.c.record_class, func.sum(batch.c.records))
        .join(
            batch,
            (batch.c.dag_id == disposition.c.dag_id)
            & (batch.c.run_id == disposition.c.run_id)
            & (batch.c.database == disposition.c.database)
            & (batch.c.record_class == disposition.c.record_class),
        )
        .where(
            disposition.c.database == plan.database,
            batch.c.erased_at > now - RECENT,
            disposition.c.asked.is_(False),
            (disposition.c.dag_id != run[0]) | (disposition.c.run_id != run[1]),
        )
        .group_by(disposition.c.record_class)
    )
    return {name: int(done) for name, done in conn.execute(query)}


def past_runs(
    conn: Connection, plan: Plan, run: tuple[str, str], what: Literal["done", "expired"] = "done"
) -> dict[str, list[int]]:
    """Return the erased or expired records of the last executed runs by class, without this run."""
    found: dict[str, list[int]] = {}
    for planned in plan.classes:
        query = (
            select(disposition.c[what])
            .where(
                disposition.c.database == plan.database,
                disposition.c.record_class == planned.name,
                disposition.c.done.is_not(None),
                (disposition.c.dag_id != run[0]) | (disposition.c.run_id != run[1]),
            )
            .order_by(disposition.c.number.desc())
            .limit(LOOKED_BACK)
        )
        found[planned.name] = [int(records) for records in conn.scalars(query)]
    return found


def remember(
    conn: Connection, plan: Plan, run: tuple[str, str], clock: Clock, asked: Collection[str] = ()
) -> None:
    """Enter a plan; it replaces an earlier plan of the same run.

    Classes in ``asked`` need approval.
    """
    dag_id, run_id = run
    for planned in plan.classes:
        values = {
            "planned_at": clock.now(),
            "as_of": plan.as_of,
            "plan_sha256": plan.sha256,
            "expired": planned.expired,
            "held": planned.held + planned.suspended,
            "planned": planned.planned,
            "asked": planned.name in asked,
        }
        conn.execute(
            insert(disposition)
            .values(
                dag_id=dag_id,
                run_id=run_id,
                database=plan.database,
                record_class=planned.name,
                **values,
            )
            .on_conflict_do_update(constraint=disposition.primary_key, set_=values)
        )


def executed(
    conn: Connection, database: str, run: tuple[str, str], done: Mapping[str, int]
) -> None:
    """Enter the number of records of each class that a run has erased in all its tries."""
    for name, records in done.items():
        conn.execute(
            disposition.update()
            .where(
                disposition.c.dag_id == run[0],
                disposition.c.run_id == run[1],
                disposition.c.database == database,
                disposition.c.record_class == name,
            )
            .values(done=records)
        )
