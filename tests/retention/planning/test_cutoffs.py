"""Tests of cutoffs: periods end by the calendar of the policy pack's timezone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.local.postgres import EmbeddedPostgres
from include.policy.period import Period
from include.retention.planning.classes import BoundClock
from include.retention.planning.schedule import bind_classes
from include.retention.postgres.relations import Relation, read_relations
from include.services.errors import UsageError
from tests.retention.retention_schema import AS_OF, RetentionSchema, retention_schema, rule

ZONES = ["Asia/Shanghai", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
         "Asia/Kolkata", "America/St_Johns", "Pacific/Apia"]  # fmt: skip
PERIODS = st.one_of(
    st.sampled_from(["P0D", "P1M", "P6M", "P1Y", "P2Y", "P3Y", "P90D", "PT24H", "P1MT4H", "P100Y"]),
    st.builds(
        lambda months, days, hours: f"P{months}M{days}DT{hours}H",
        st.integers(0, 50), st.integers(0, 800), st.integers(0, 100),
    ),
).map(Period.parse)  # fmt: skip
# All times, and more often ends of months and changes of daylight saving time.
MOMENTS = st.one_of(
    st.datetimes(datetime(1995, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - UTC below
    st.builds(
        lambda year, month, seconds: datetime(year, month, 1) + timedelta(seconds=seconds),  # noqa: DTZ001
        st.integers(1995, 2039), st.integers(1, 12), st.integers(-4 * 86_400, 86_400),
    ),
    st.sampled_from([
        datetime(2025, 3, 30, 1), datetime(2025, 10, 26, 1), datetime(2025, 3, 9, 7),  # noqa: DTZ001
        datetime(2025, 11, 2, 6), datetime(2025, 4, 5, 15), datetime(2025, 10, 4, 15, 30),  # noqa: DTZ001
    ]).flatmap(lambda at: st.integers(-7300, 7300).map(lambda s: at + timedelta(seconds=s))),
).map(lambda moment: moment.replace(tzinfo=UTC))  # fmt: skip


@pytest.fixture(scope="module")
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    table = "CREATE TABLE t (id int PRIMARY KEY, d date, l timestamp, z timestamptz, at date)"
    with retention_schema(postgres, table) as new_rule:
        yield new_rule


@dataclass
class Bench:
    connection: psycopg.Connection[Any]
    relation: Relation

    def clock(self, column: Any, period: str, as_of: datetime, timezone: str) -> BoundClock:
        new_rule = rule("t", clock=column, period=period)
        (found,) = bind_classes(
            self.connection,
            [new_rule],
            {"t": self.relation},
            as_of=as_of,
            now=as_of,
            timezone=timezone,
        )
        return found.clock

    def over(self, clock: BoundClock, moments: dict[str, datetime | str | None]) -> bool | None:
        """Return whether the retention period of a record with these start dates has ended.

        Return None if the start date is null.
        """
        self.connection.execute("DELETE FROM t")
        self.connection.execute(
            "INSERT INTO t (id, d, l, z) VALUES (1, %(d)s, %(l)s, %(z)s)",
            {"d": None, "l": None, "z": None} | moments,
        )
        query = psycopg.sql.SQL("SELECT {} FROM t").format(clock.ended)
        row = self.connection.execute(query, {}).fetchone()
        assert row is not None
        found: bool | None = row[0]
        return found


@pytest.fixture(scope="module")
def bench(schema: RetentionSchema) -> Iterator[Bench]:
    with schema.session() as connection:
        yield Bench(connection, read_relations(connection, schema.database).by_collection["t"])


@settings(max_examples=150, deadline=None)
@given(
    moment=MOMENTS, period=PERIODS, as_of=MOMENTS, zone=st.sampled_from(ZONES),
    column=st.sampled_from("dlz"), near=st.none() | st.integers(-3 * 86_400, 3 * 86_400),
    about=st.sampled_from([0, 1]),
)  # fmt: skip
def test_record_is_expired_exactly_if_start_plus_period_in_postgresql_is_before_time_of_plan(
    bench: Bench, moment: datetime, period: Period, as_of: datetime, zone: str, column: str,
    near: int | None, about: int,
) -> None:  # fmt: skip
    connection = bench.connection
    interval = "make_interval(months => %(m)s, days => %(days)s, secs => %(s)s)"
    kind = {"d": "date", "l": "timestamp", "z": "timestamptz"}[column]
    values = {"m": period.months, "days": period.days, "s": period.seconds, "as_of": as_of,
              "moment": moment, "near": near or 0, "one": about}  # fmt: skip
    clock = bench.clock([column], period.text, as_of, zone)
    with connection.transaction():
        connection.execute("SELECT set_config('TimeZone', %s, true)", [zone])
        new_rule = "%(moment)s::timestamptz" if near is None else (
            f"(%(as_of)s::timestamptz - {interval} + make_interval(secs => %(near)s) "
            "- %(one)s * interval '1 microsecond')"
        )  # fmt: skip
        row = connection.execute(
            f"SELECT c, c::timestamptz + {interval} < %(as_of)s::timestamptz "
            f"FROM (SELECT {new_rule}::{kind} AS c) AS x".encode(),
            values,
        ).fetchone()
    assert row is not None
    assert bench.over(clock, {column: row[0]}) is row[1]


def test_three_year_retention_period_from_29_february_ends_on_28_february_at_same_time_of_day(
    bench: Bench,
) -> None:
    """At noon of 28 February three years later, only the period that started later has ended.

    That period started in the morning of 29 February. The other period started in the afternoon of
    28 February.
    """
    as_of = datetime(2027, 2, 28, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
    clock = bench.clock(["l"], "P3Y", as_of, "Asia/Shanghai")
    for text, over in {
        "2024-02-28 11:59:59.999999": True, "2024-02-28 12:00": False, "2024-02-28 23:59": False,
        "2024-02-29 00:00": True, "2024-02-29 11:59:59.999999": True, "2024-02-29 12:00": False,
        "-infinity": True, "infinity": False,
    }.items():  # fmt: skip
        assert bench.over(clock, {"l": text}) is over, text


def test_retention_period_from_date_column_starts_at_midnight_in_timezone_of_policy_pack(
    bench: Bench,
) -> None:
    midnight = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)  # 2 March in Shanghai
    for as_of, over in ((midnight, False), (midnight + timedelta(microseconds=1), True)):
        clock = bench.clock(["d"], "P1Y", as_of, "Asia/Shanghai")
        assert bench.over(clock, {"d": "2025-03-02"}) is over
        assert bench.over(clock, {"d": "2025-03-01"}) is True


def test_retention_period_with_several_start_columns_starts_at_the_latest_value(
    bench: Bench,
) -> None:
    as_of = datetime(2026, 3, 1, 16, 0, 1, tzinfo=UTC)
    clock = bench.clock(["d", "l", "z"], "P1Y", as_of, "Asia/Shanghai")
    assert bench.over(clock, {}) is None
    assert bench.over(clock, {"d": "2025-03-02", "z": "2025-03-01 16:00+00"}) is True
    assert bench.over(clock, {"d": "2025-03-02", "z": "2025-03-01 16:00:01+00"}) is False
    assert bench.over(clock, {"l": "2025-03-02 00:00:00"}) is True
    assert bench.over(clock, {"l": "2025-03-02 00:00:01"}) is False
    assert bench.over(clock, {"d": "2025-03-03", "l": "2020-01-01"}) is False


def test_retention_period_counts_from_value_of_sql_expression(bench: Bench) -> None:
    as_of = datetime(2026, 3, 2, tzinfo=UTC)
    sql = "CASE WHEN '{%s} 5%' LIKE '{\\%s}%' AND t.id % 2 = 1 THEN t.d + 1 END"
    clock = bench.clock({"sql": sql}, "P1Y", as_of, "Asia/Shanghai")
    assert bench.over(clock, {"d": "2025-02-28"}) is True
    assert bench.over(clock, {"d": "2025-03-01"}) is True
    assert bench.over(clock, {"d": "2025-03-02"}) is False
    assert bench.over(clock, {}) is None


@pytest.mark.parametrize(
    "sql",
    ["t.id", "'2020-01-01'", "t.nothing", "t.d +", "(SELECT d FROM nowhere)", "now() - now()"],
)
def test_bind_classes_raises_usage_error_if_start_of_retention_period_is_no_date_or_time(
    bench: Bench, sql: str
) -> None:
    with pytest.raises(UsageError, match="class t "):
        bench.clock({"sql": sql}, "P1Y", datetime(2026, 1, 1, tzinfo=UTC), "Asia/Shanghai")


def test_bind_classes_fails_if_record_class_masks_primary_key(bench: Bench) -> None:
    new_rule = rule("t", action="mask", mask={"id": "erase"})
    with pytest.raises(UsageError, match="class t masks a column of the primary key: id"):
        bind_classes(
            bench.connection, [new_rule], {"t": bench.relation},
            as_of=AS_OF, now=AS_OF, timezone="Asia/Shanghai",
        )  # fmt: skip
