"""The circuit breaker, which decides whether a disposition plan needs an approval.

A plan needs an approval if it disposes of more records than its limits allow.
"""

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

RUNS_COMPARED = 10
MIN_RUNS = 3  # minimum number of past runs for a trend
ALWAYS_ALLOWED = 100  # records; the limits by percentage and trend do not apply to fewer
# Recent erasures of other runs count too. Otherwise a person could split a large plan by `as_of`.
# The period is shorter than a day, so that a daily run does not count the run of the day before.
RECENT = timedelta(hours=23)

Cause = Literal["records", "percent", "trend"]


@dataclass(frozen=True)
class ExceededLimit:
    """A limit that the planned disposition of a record class exceeds.

    Attributes:
        name: name of the record class.
        cause: type of the limit. A limit is a number of records, a percentage of the records of the
            record class, or a multiple of the number that past runs erased.
        planned: number of planned records.
        allowed: highest number of records that the limit allows.
        recent: number of records of the record class that other runs erased within `RECENT` and
            that count towards the limit; 0 if only planned records count.
    """

    name: str
    cause: Cause
    planned: int
    allowed: int
    recent: int = 0


def check_limit(
    planned: PlannedClass, limit: Limit, past: Sequence[int], recent: int = 0
) -> ExceededLimit | None:
    """Return the first limit that the planned disposition of a record class exceeds, or None.

    Args:
        planned: the record class in the plan.
        limit: limits of the record class, or the default limits of disposition.yaml.
        past: number of records of the record class that each of the last runs erased.
        recent: number of records of the record class that other runs erased within `RECENT`. The
            limits `records` and `percent` apply to the sum of these records and the planned
            records.
    """
    count = planned.planned
    if count == 0:
        return None
    together = count + recent
    allowed: dict[Cause, tuple[int, int]] = {"records": (together, limit.records)}
    if together > ALWAYS_ALLOWED:
        before = planned.records + (0 if planned.action == "mask" else recent)
        allowed["percent"] = (together, int(before * limit.percent / 100))
    if count > ALWAYS_ALLOWED and len(past) >= MIN_RUNS:
        allowed["trend"] = (count, int(limit.times_trend * median(past)))
    for cause, (number, most) in allowed.items():
        if number > most:
            return ExceededLimit(planned.name, cause, count, most, number - count)
    return None


def count_recent_erasures(
    conn: Connection, plan: Plan, run: tuple[str, str], now: datetime
) -> dict[str, int]:
    """Count the records that other runs erased recently without an approval, by record class.

    Recently means within `RECENT` before `now`. The numbers come from the erasure ledger, which
    contains the time of each erasure. The register of dispositions cannot be used, for two reasons.
    It contains only the time of the plan, and a run may wait long before it erases records. A
    killed run has no number of erased records in the register.

    Args:
        conn: connection to the state database.
        plan: a plan of the database whose erasures are counted.
        run: DAG id and run id of this run, whose erasures are not counted.
        now: end of the period.
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
            disposition.c.approval_required.is_(False),
            (disposition.c.dag_id != run[0]) | (disposition.c.run_id != run[1]),
        )
        .group_by(disposition.c.record_class)
    )
    return {name: int(done) for name, done in conn.execute(query)}


def read_past_runs(
    conn: Connection, plan: Plan, run: tuple[str, str], column: Literal["done", "expired"] = "done"
) -> dict[str, list[int]]:
    """Return the numbers of erased or of expired records in earlier runs, by record class.

    Args:
        conn: connection to the state database.
        plan: plan with the database and the record classes to read.
        run: DAG id and run id of this run, whose numbers are left out.
        column: ``done`` to return erased records, ``expired`` to return expired records.

    Returns:
        Record class -> number of records in each of the last `RUNS_COMPARED` executed runs, newest
        run first.
    """
    past_runs: dict[str, list[int]] = {}
    for planned in plan.classes:
        query = (
            select(disposition.c[column])
            .where(
                disposition.c.database == plan.database,
                disposition.c.record_class == planned.name,
                disposition.c.done.is_not(None),
                (disposition.c.dag_id != run[0]) | (disposition.c.run_id != run[1]),
            )
            .order_by(disposition.c.number.desc())
            .limit(RUNS_COMPARED)
        )
        past_runs[planned.name] = [int(records) for records in conn.scalars(query)]
    return past_runs


def enter_plan(
    conn: Connection,
    plan: Plan,
    run: tuple[str, str],
    clock: Clock,
    needing_approval: Collection[str] = (),
) -> None:
    """Store a plan in the register of dispositions.

    The plan replaces an earlier plan of the same run.

    Args:
        conn: connection to the state database.
        plan: the plan.
        run: DAG id and run id of this run.
        clock: source of the current time.
        needing_approval: names of the record classes that need an approval.
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
            "approval_required": planned.name in needing_approval,
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


def enter_execution(
    conn: Connection, database: str, run: tuple[str, str], done: Mapping[str, int]
) -> None:
    """Store in the register of dispositions how many records of each record class a run erased.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        run: DAG id and run id of the run.
        done: record class -> number of records that all attempts of the run erased.
    """
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
