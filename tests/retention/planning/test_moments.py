"""The moment of a plan, and whether the clocks agree by which records expire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import conninfo

from include.local.postgres import EmbeddedPostgres
from include.retention.planning.breaker import remember
from include.retention.planning.planner import moment_of
from include.retention.postgres.session import APART, require_agreement
from include.services.clock import FixedClock
from include.services.errors import ControlFailed, UsageError
from include.state.tables import disposition
from tests.retention.rig import OLD, TABLES, Rig
from tests.retention.yard import CLOCK, OVER, Yard, rule, yard
from tests.support.databases import fresh

NOW = datetime(2026, 3, 1, 17, 30, tzinfo=UTC)  # 2 March in Shanghai


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_moment_it_is_the_beginning_of_the_day(nothing: str | None) -> None:
    """In the timezone of the pack."""
    assert moment_of(nothing, NOW, "Asia/Shanghai") == datetime(2026, 3, 1, 16, tzinfo=UTC)
    assert moment_of(nothing, NOW, "UTC") == datetime(2026, 3, 1, tzinfo=UTC)
    assert moment_of(nothing, NOW, "America/New_York") == datetime(2026, 3, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-02", datetime(2026, 3, 1, 16, tzinfo=UTC)),
        ("20260302", datetime(2026, 3, 1, 16, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 28, 16, tzinfo=UTC)),
        ("2026-03-02T01:30:00+08:00", datetime(2026, 3, 1, 17, 30, tzinfo=UTC)),
        ("2026-03-01T17:30:00.000001Z", NOW + timedelta(microseconds=1)),
        ("2026-03-01 17:30+00:00", NOW),
    ],
)
def test_a_day_is_of_the_pack_and_a_moment_says_its_offset(text: str, moment: datetime) -> None:
    """By ISO 8601."""
    assert moment_of(text, NOW, "Asia/Shanghai") == moment


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-02-30", "2025-02-29", "2026-03-02T01:30:00", "2026-3-2", "02.03.2026",
     "2026-03-02T25:00:00Z", " ", "2026-03-02T01:30:00+99:00"],
)  # fmt: skip
def test_what_is_neither_is_refused(text: str) -> None:
    """A time without an offset might be meant in several timezones."""
    with pytest.raises(UsageError, match="no day and no moment"):
        moment_of(text, NOW, "Asia/Shanghai")


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    table = (
        f"CREATE TABLE item (id int PRIMARY KEY, at date); INSERT INTO item VALUES (1, '{OVER}')"
    )
    with yard(postgres, table) as made:
        made.rules = [rule("item")]
        yield made


@pytest.mark.parametrize("apart", [-APART - timedelta(minutes=1), APART + timedelta(minutes=1)])
def test_a_clock_that_differs_from_the_databases_stops_everything(
    place: Yard, apart: timedelta
) -> None:
    """Ahead or behind; the message has both times."""
    wrong = FixedClock(CLOCK.now() + apart)
    with pytest.raises(ControlFailed, match=r"clock here says .* mapped database") as caught:
        require_agreement(place.connection, place.state, wrong)
    assert f"{wrong.now():%Y-%m-%d %H:%M}" in str(caught.value)


def test_clocks_that_nearly_agree_do(place: Yard) -> None:
    """A few minutes are no matter; the moment is ours."""
    for apart in (-APART + timedelta(minutes=1), APART - timedelta(minutes=1)):
        ours = FixedClock(CLOCK.now() + apart)
        assert require_agreement(place.connection, place.state, ours) == ours.now()


def test_a_clock_that_was_set_back_behind_a_plan_stops_everything(place: Yard) -> None:
    """All three clocks may be wrong together; the plan was made by the one that was right."""
    later = FixedClock(CLOCK.now() + timedelta(days=1))
    with place.state.begin() as conn:
        remember(conn, place.plan(), ("enforce_retention", place.name), later)
    try:
        with pytest.raises(ControlFailed, match="a plan was made at"):
            require_agreement(place.connection, place.state, CLOCK)
        with pytest.raises(ControlFailed, match="a plan was made at"):
            place.execute(place.plan())
        assert place.keys("item") == {1}
    finally:
        with place.state.begin() as conn:
            conn.execute(disposition.delete().where(disposition.c.database == place.name))


def test_records_of_another_database_are_not_deleted(postgres: EmbeddedPostgres, rig: Rig) -> None:
    """The schedule of one database would be executed on the records of another one."""
    rig.insert("person", id=1, at=OLD, name="Ada")
    plan = rig.plan()
    with fresh(postgres) as name:
        other = postgres.conninfo(name)
        with psycopg.connect(other) as connection:
            connection.execute(TABLES.encode())
            connection.execute("INSERT INTO person (id, at, name) VALUES (1, '2020-01-01', 'Bob')")
        with pytest.raises(UsageError, match="leads to another database than customer_db"):
            rig.but(writer=other).execute(plan)
        with psycopg.connect(other) as connection:
            assert connection.execute("SELECT name FROM person").fetchall() == [("Bob",)]


def test_database_without_record_classes_is_only_read_by_its_own_login(
    postgres: EmbeddedPostgres, rig: Rig
) -> None:
    """With several mapped databases, the login that may delete leads to another one."""
    rig.insert("person", id=1, at=OLD, name="Ada")
    options = "-c default_transaction_read_only=on"
    read_only = conninfo.make_conninfo(rig.source, options=options)
    with fresh(postgres) as name:
        unscheduled = rig.but(rules=[], source=read_only, writer=postgres.conninfo(name))
        record = unscheduled.execute(unscheduled.plan())
    assert record.findings == []
    assert record.data["done"] == {}
