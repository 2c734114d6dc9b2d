"""When a plan waits for a second person."""

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
    FEWEST,
    LOOKED_BACK,
    NEVER,
    RECENT,
    executed,
    past_runs,
    recent_runs,
    remember,
    trips,
)
from include.retention.planning.plan import Plan, PlannedClass
from include.services.clock import FixedClock
from include.state.tables import disposition, erasure_batch
from tests.retention.yard import state_of

CLOCK = FixedClock(datetime(2026, 3, 2, tzinfo=UTC))


def planned(count: int, records: int = 10**6, name: str = "a", masks: bool = False) -> PlannedClass:
    """A class of which some records go."""
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
        (100, 100, (), None),  # so few are no event
        (101, 101, (), "percent"),
        (500, 10**6, (100, 100, 100), None),
        (501, 10**6, (100, 100, 100), "trend"),
        (501, 10**6, (100, 100), None),  # two runs are no trend
        (101, 10**6, (0, 0, 0), "trend"),
        (100, 10**6, (0, 0, 0), None),
        (501, 10**6, (100, 1, 10_000), "trend"),  # the median counts, not one large run
        (10_001, 100, (1, 1, 1), "records"),  # the first of several
        (0, 0, (), None),
    ],
)
def test_a_class_trips_beyond_its_limits(
    count: int, records: int, past: Sequence[int], cause: str | None
) -> None:
    """By records, by share of the class, by its last runs; deleting and masking alike."""
    for masks in (False, True):
        found = trips(planned(count, records, masks=masks), Limit(), past)
        assert (found.cause if found else None) == cause
        if found:
            assert (found.name, found.planned) == ("a", count)
            assert found.allowed < count


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**5), max_size=10),
    st.builds(
        Limit, records=st.integers(0, 10**6), percent=st.decimals(0, 100, places=2),
        times_trend=st.integers(1, 10),
    ),
)  # fmt: skip
def test_more_never_trips_less(count: int, records: int, past: list[int], limit: Limit) -> None:
    """And what does not trip is within every limit that applies."""
    records = max(count, records)
    found = trips(planned(count, records), limit, past)
    within = count <= limit.records and (
        count <= NEVER
        or (
            Decimal(count) * 100 <= records * limit.percent
            and (len(past) < FEWEST or count <= limit.times_trend * median(past))
        )
    )
    assert (found is None) is within
    if found:
        assert trips(planned(count + 1, records + 1000), limit.model_copy(), past) or (
            found.cause == "percent"  # of more records the share may be less
        )


@pytest.fixture
def state(postgres: EmbeddedPostgres) -> Engine:
    return state_of(postgres)


@pytest.fixture
def database() -> str:
    """The name of a database that nothing was ever planned for."""
    return f"d{uuid.uuid4().hex[:8]}"


def test_the_trend_is_of_runs_that_executed_and_not_of_this_one(
    state: Engine, database: str
) -> None:
    """The last ten, the newest first; another database's and another class's are none of it."""
    a, b = planned(5), planned(7, name="b")
    with state.begin() as conn:
        for number in range(LOOKED_BACK + 3):
            run = ("enforce_retention", f"{database} {number}")
            remember(conn, plan(a, b, database=database), run, CLOCK)
            if number != 4:  # one that was never executed
                executed(conn, database, run, {"a": number})
        this = ("enforce_retention", f"{database} 12")
        found = past_runs(conn, plan(a, b, database=database), this)
        assert found == {"a": [11, 10, 9, 8, 7, 6, 5, 3, 2, 1], "b": []}
        assert past_runs(conn, plan(a, database=f"{database}x"), this) == {"a": []}


@pytest.mark.parametrize(
    ("count", "records", "masks", "recent", "cause"),
    [
        (4_000, 10**6, False, 6_000, None),
        (4_001, 10**6, False, 6_000, "records"),
        (0, 10**6, False, 20_000, None),  # nothing goes
        (50, 950, False, 50, None),  # a hundred together are no event
        (51, 950, False, 50, "percent"),  # of the thousand that there were
        (51, 2_000, False, 50, None),
        (51, 2_019, True, 50, "percent"),  # masked ones are still there
        (51, 2_020, True, 50, None),
    ],
)
def test_what_went_the_last_day_counts_too(
    count: int, records: int, masks: bool, recent: int, cause: str | None
) -> None:
    """By records and by share; the trend is of each run alone."""
    found = trips(planned(count, records, masks=masks), Limit(), (), recent)
    assert (found.cause if found else None) == cause
    if found:
        assert (found.planned, found.recent) == (count, recent)
    assert trips(planned(101, 10**6), Limit(), (100, 100, 100), 5_000) is None


def test_recent_runs_are_others_of_this_database_that_erased(state: Engine, database: str) -> None:
    """Neither this run, nor one that was not executed, nor what was erased the day before.

    When the plan was made does not matter: a run may wait for days until it is approved.
    """
    made = plan(planned(5), planned(7, name="b"), database=database)
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
            remember(conn, made, run, FixedClock(planned_at))
            conn.execute(
                erasure_batch.insert().values(
                    database=database, collection="t", action="delete", record_class="a",
                    rule="0", dag_id=run[0], run_id=run[1], erased_at=erased_at, records=done,
                )
            )  # fmt: skip
            executed(conn, database, run, {"a": done})
        remember(conn, made, ("enforce_retention", f"{database} x"), CLOCK)
        assert recent_runs(conn, made, ("enforce_retention", f"{database} 8"), now) == {"a": 3}
        other = plan(planned(5), database=f"{database}x")
        assert recent_runs(conn, other, ("enforce_retention", "x"), now) == {}


def test_a_plan_that_is_made_again_takes_the_place_of_the_first(
    state: Engine, database: str
) -> None:
    """The run's number stays, so that its place among the runs does."""
    run = ("enforce_retention", database)
    later = FixedClock(CLOCK.now() + timedelta(hours=1))
    with state.begin() as conn:
        remember(conn, plan(planned(5), database=database), run, CLOCK)
        query = select(disposition).where(disposition.c.database == database)
        first = conn.execute(query).mappings().one()
        remember(conn, plan(planned(6), database=database), run, later)
        second = conn.execute(query).mappings().one()
        executed(conn, database, run, {"a": 6, "other": 3})
        third = conn.execute(query).mappings().one()
    assert (first["planned"], second["planned"], third["done"]) == (5, 6, 6)
    assert first["number"] == second["number"]
    assert second["planned_at"] == later.now()
    assert first["plan_sha256"] != second["plan_sha256"]
