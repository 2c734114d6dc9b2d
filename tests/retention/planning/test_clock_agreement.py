"""Tests of the time of a plan and of the comparison of system clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import conninfo

from include.local.postgres import EmbeddedPostgres
from include.retention.planning.breaker import enter_plan
from include.retention.planning.planner import parse_as_of
from include.retention.postgres.session import MAX_CLOCK_DIFFERENCE, require_clocks_agree
from include.services.clock import FixedClock
from include.services.errors import ControlFailed, UsageError
from include.state.tables import disposition
from tests.retention.retention_schema import CLOCK, OVER, RetentionSchema, retention_schema, rule
from tests.retention.runner import OLD, TABLES, RetentionRunner
from tests.support.databases import temporary_database

NOW = datetime(2026, 3, 1, 17, 30, tzinfo=UTC)  # 2 March in Shanghai


@pytest.mark.parametrize("nothing", [None, ""])
def test_parse_as_of_returns_midnight_in_timezone_of_policy_pack_for_empty_text(
    nothing: str | None,
) -> None:
    assert parse_as_of(nothing, NOW, "Asia/Shanghai") == datetime(2026, 3, 1, 16, tzinfo=UTC)
    assert parse_as_of(nothing, NOW, "UTC") == datetime(2026, 3, 1, tzinfo=UTC)
    assert parse_as_of(nothing, NOW, "America/New_York") == datetime(2026, 3, 1, 5, tzinfo=UTC)


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
def test_parse_as_of_accepts_date_alone_and_date_with_time(text: str, moment: datetime) -> None:
    assert parse_as_of(text, NOW, "Asia/Shanghai") == moment


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-02-30", "2025-02-29", "2026-03-02T01:30:00", "2026-3-2", "02.03.2026",
     "2026-03-02T25:00:00Z", " ", "2026-03-02T01:30:00+99:00"],
)  # fmt: skip
def test_parse_as_of_raises_usage_error_for_text_that_is_neither_date_nor_time(text: str) -> None:
    with pytest.raises(UsageError, match="neither a date nor a date and time"):
        parse_as_of(text, NOW, "Asia/Shanghai")


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    table = (
        f"CREATE TABLE item (id int PRIMARY KEY, at date); INSERT INTO item VALUES (1, '{OVER}')"
    )
    with retention_schema(postgres, table) as created:
        created.rules = [rule("item")]
        yield created


@pytest.mark.parametrize(
    "apart",
    [-MAX_CLOCK_DIFFERENCE - timedelta(minutes=1), MAX_CLOCK_DIFFERENCE + timedelta(minutes=1)],
)
def test_require_clocks_agree_raises_error_if_worker_and_database_clocks_differ_too_much(
    schema: RetentionSchema, apart: timedelta
) -> None:
    wrong = FixedClock(CLOCK.now() + apart)
    with pytest.raises(
        ControlFailed, match=r"clock of the worker shows .* mapped database"
    ) as caught:
        require_clocks_agree(schema.connection, schema.state, wrong)
    assert f"{wrong.now():%Y-%m-%d %H:%M}" in str(caught.value)


def test_require_clocks_agree_accepts_small_difference(schema: RetentionSchema) -> None:
    for apart in (
        -MAX_CLOCK_DIFFERENCE + timedelta(minutes=1),
        MAX_CLOCK_DIFFERENCE - timedelta(minutes=1),
    ):
        ours = FixedClock(CLOCK.now() + apart)
        assert require_clocks_agree(schema.connection, schema.state, ours) == ours.now()


def test_require_clocks_agree_raises_error_if_clock_is_earlier_than_last_plan(
    schema: RetentionSchema,
) -> None:
    later = FixedClock(CLOCK.now() + timedelta(days=1))
    with schema.state.begin() as conn:
        enter_plan(conn, schema.plan(), ("enforce_retention", schema.name), later)
    try:
        with pytest.raises(ControlFailed, match="a plan was made at"):
            require_clocks_agree(schema.connection, schema.state, CLOCK)
        with pytest.raises(ControlFailed, match="a plan was made at"):
            schema.execute(schema.plan())
        assert schema.keys("item") == {1}
    finally:
        with schema.state.begin() as conn:
            conn.execute(disposition.delete().where(disposition.c.database == schema.name))


def test_execution_fails_if_connection_leads_to_other_database(
    postgres: EmbeddedPostgres, runner: RetentionRunner
) -> None:
    runner.insert("person", id=1, at=OLD, name="Ada")
    plan = runner.plan()
    with temporary_database(postgres) as name:
        other = postgres.conninfo(name)
        with psycopg.connect(other) as connection:
            connection.execute(TABLES.encode())
            connection.execute("INSERT INTO person (id, at, name) VALUES (1, '2020-01-01', 'Bob')")
        with pytest.raises(UsageError, match="leads to another database than customer_db"):
            runner.but(writer=other).execute(plan)
        with psycopg.connect(other) as connection:
            assert connection.execute("SELECT name FROM person").fetchall() == [("Bob",)]


def test_execution_uses_read_only_login_for_database_without_record_classes(
    postgres: EmbeddedPostgres, runner: RetentionRunner
) -> None:
    """If several databases are mapped, the login that may delete may lead to another database."""
    runner.insert("person", id=1, at=OLD, name="Ada")
    options = "-c default_transaction_read_only=on"
    read_only = conninfo.make_conninfo(runner.source, options=options)
    with temporary_database(postgres) as name:
        unscheduled = runner.but(rules=[], source=read_only, writer=postgres.conninfo(name))
        record = unscheduled.execute(unscheduled.plan())
    assert record.findings == []
    assert record.data["done"] == {}
