"""Tests of the circuit breaker: the limits above which a plan needs approval."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from include.local.postgres import EmbeddedPostgres
from include.policy.retention import Limit
from include.retention.planning.breaker import (
    ALWAYS_ALLOWED,
    MIN_RUNS,
    RECENT,
    RUNS_COMPARED,
    check_limit,
    count_recent_erasures,
    enter_execution,
    enter_plan,
    read_past_runs,
)
from include.retention.planning.plan import Plan, PlannedClass
from include.services.clock import FixedClock
from include.state.tables import disposition, erasure_batch
from tests.retention.retention_schema import state_of

CLOCK = FixedClock(datetime(2026, 3, 2, tzinfo=UTC))


def planned_class(
    count: int, records: int = 10**6, name: str = "a", masks: bool = False
) -> PlannedClass:
    """Return the plan for a record class with a number of records to delete or mask."""
    return PlannedClass(
        name=name, collection="t", action="mask" if masks else "delete", rule_sha256="0" * 64,
        records=records, expired=count,
        to_delete=0 if masks else count, to_mask=count if masks else 0,
    )  # fmt: skip


def plan(*classes: PlannedClass, database: str) -> Plan:
    return Plan(database=database, as_of=CLOCK.now(), key_id="1", classes=classes)


@pytest.mark.parametrize(
    ("count", "records", "past", "cause"),
    [
        (10_000, 10**6, (), None),  # the limit itself is allowed
        (10_001, 10**6, (), "records"),
        (500, 10_000, (), None),
        (501, 10_000, (), "percent"),
        (501, 10_019, (), "percent"),  # five per cent are 500.95
        (501, 10_020, (), None),
        (100, 100, (), None),  # limits by share do not apply to so few records
        (101, 101, (), "percent"),
        (500, 10**6, (100, 100, 100), None),
        (501, 10**6, (100, 100, 100), "trend"),
        (501, 10**6, (100, 100), None),  # two runs are no trend
        (101, 10**6, (0, 0, 0), "trend"),
        (100, 10**6, (0, 0, 0), None),
        (501, 10**6, (100, 1, 10_000), "trend"),  # the median decides, not one large run
        (10_001, 100, (1, 1, 1), "records"),  # the first of several exceeded limits
        (0, 0, (), None),
    ],
)
def test_check_limit_returns_first_exceeded_limit(
    count: int, records: int, past: Sequence[int], cause: str | None
) -> None:
    for masks in (False, True):
        result = check_limit(planned_class(count, records, masks=masks), Limit(), past)
        assert (result.cause if result else None) == cause
        if result:
            assert (result.name, result.planned) == ("a", count)
            assert result.allowed < count


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**5), max_size=10),
    st.builds(
        Limit, records=st.integers(0, 10**6), percent=st.decimals(0, 100, places=2),
        times_trend=st.integers(1, 10),
    ),
)  # fmt: skip
def test_check_limit_accepts_plan_only_if_it_is_within_all_limits(
    count: int, records: int, past: list[int], limit: Limit
) -> None:
    records = max(count, records)
    result = check_limit(planned_class(count, records), limit, past)
    within = count <= limit.records and (
        count <= ALWAYS_ALLOWED
        or (
            Decimal(count) * 100 <= records * limit.percent
            and (len(past) < MIN_RUNS or count <= limit.times_trend * median(past))
        )
    )
    assert (result is None) is within
    if result:
        assert check_limit(planned_class(count + 1, records + 1000), limit.model_copy(), past) or (
            result.cause == "percent"  # the share of more records may be lower
        )


@pytest.fixture
def state(postgres: EmbeddedPostgres) -> Engine:
    return state_of(postgres)


@pytest.fixture
def database() -> str:
    """The name of a database for which no plan is stored."""
    return f"d{uuid.uuid4().hex[:8]}"


def test_read_past_runs_returns_last_ten_executed_runs(state: Engine, database: str) -> None:
    a, b = planned_class(5), planned_class(7, name="b")
    with state.begin() as conn:
        for number in range(RUNS_COMPARED + 3):
            run = ("enforce_retention", f"{database} {number}")
            enter_plan(conn, plan(a, b, database=database), run, CLOCK)
            if number != 4:  # a run that was never executed
                enter_execution(conn, database, run, {"a": number})
        this = ("enforce_retention", f"{database} 12")
        result = read_past_runs(conn, plan(a, b, database=database), this)
        assert result == {"a": [11, 10, 9, 8, 7, 6, 5, 3, 2, 1], "b": []}
        assert read_past_runs(conn, plan(a, database=f"{database}x"), this) == {"a": []}


@pytest.mark.parametrize(
    ("count", "records", "masks", "recent", "cause"),
    [
        (4_000, 10**6, False, 6_000, None),
        (4_001, 10**6, False, 6_000, "records"),
        (0, 10**6, False, 20_000, None),  # no record is to be deleted
        (50, 950, False, 50, None),  # limits by share do not apply to a hundred records
        (51, 950, False, 50, "percent"),  # a share of the 1,000 records before the recent erasures
        (51, 2_000, False, 50, None),
        (51, 2_019, True, 50, "percent"),  # masked records still exist
        (51, 2_020, True, 50, None),
    ],
)
def test_check_limit_adds_recent_erasures_of_other_runs_to_the_planned_number(
    count: int, records: int, masks: bool, recent: int, cause: str | None
) -> None:
    result = check_limit(planned_class(count, records, masks=masks), Limit(), (), recent)
    assert (result.cause if result else None) == cause
    if result:
        assert (result.planned, result.recent) == (count, recent)
    assert check_limit(planned_class(101, 10**6), Limit(), (100, 100, 100), 5_000) is None


def test_count_recent_erasures_returns_number_of_erasures_by_other_runs_in_the_database(
    state: Engine, database: str
) -> None:
    """The time of the erasure decides, since a run may wait days for its approval."""
    new_plan = plan(planned_class(5), planned_class(7, name="b"), database=database)
    now = CLOCK.now()
    days = timedelta(days=3)
    runs = [
        (1, now, now),
        (2, now - days, now - RECENT + timedelta(seconds=1)),
        (4, now - RECENT + timedelta(seconds=1), now - RECENT),
        (8, now, now),
    ]
    with state.begin() as conn:
        for done, planned_at, erased_at in runs:
            run = ("enforce_retention", f"{database} {done}")
            enter_plan(conn, new_plan, run, FixedClock(planned_at))
            conn.execute(
                erasure_batch.insert().values(
                    database=database, collection="t", action="delete", record_class="a",
                    rule="0", dag_id=run[0], run_id=run[1], erased_at=erased_at, records=done,
                )
            )  # fmt: skip
            enter_execution(conn, database, run, {"a": done})
        enter_plan(conn, new_plan, ("enforce_retention", f"{database} x"), CLOCK)
        assert count_recent_erasures(
            conn, new_plan, ("enforce_retention", f"{database} 8"), now
        ) == {"a": 3}
        other = plan(planned_class(5), database=f"{database}x")
        assert count_recent_erasures(conn, other, ("enforce_retention", "x"), now) == {}


def test_second_plan_of_run_replaces_first_plan_and_keeps_its_register_number(
    state: Engine, database: str
) -> None:
    run = ("enforce_retention", database)
    later = FixedClock(CLOCK.now() + timedelta(hours=1))
    with state.begin() as conn:
        enter_plan(conn, plan(planned_class(5), database=database), run, CLOCK)
        query = select(disposition).where(disposition.c.database == database)
        first = conn.execute(query).mappings().one()
        enter_plan(conn, plan(planned_class(6), database=database), run, later)
        second = conn.execute(query).mappings().one()
        enter_execution(conn, database, run, {"a": 6, "other": 3})
        third = conn.execute(query).mappings().one()
    assert (first["planned"], second["planned"], third["done"]) == (5, 6, 6)
    assert first["number"] == second["number"]
    assert second["planned_at"] == later.now()
    assert first["plan_sha256"] != second["plan_sha256"]
