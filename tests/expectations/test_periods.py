"""Tests of periods that are subtracted from a time, in the timezone of the policy pack."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from include.expectations.types import Kind, before
from include.policy.period import Period

NOW = datetime(2026, 3, 29, 16, 30, tzinfo=UTC)  # in Shanghai the 30th, half past midnight


@pytest.mark.parametrize(
    ("kind", "period", "timezone", "expected"),
    [
        (Kind.DAY, "P1D", "Asia/Shanghai", "2026-03-29"),
        (Kind.DAY, "P1D", "UTC", "2026-03-28"),
        (Kind.DAY, "P1M", "Asia/Shanghai", "2026-02-28"),
        (Kind.LOCAL, "P1D", "Asia/Shanghai", "2026-03-29 00:30:00"),
        (Kind.MOMENT, "P1M", "Asia/Shanghai", "2026-02-27 16:30:00+00"),
        (Kind.MOMENT, "P1M", "UTC", "2026-02-28 16:30:00+00"),
        # Start of daylight saving time in Berlin: a day of 23 hours.
        (Kind.MOMENT, "P1D", "Europe/Berlin", "2026-03-28 17:30:00+00"),
        (Kind.MOMENT, "PT24H", "Europe/Berlin", "2026-03-28 16:30:00+00"),
        (Kind.LOCAL, "PT24H", "Europe/Berlin", "2026-03-28 17:30:00"),
    ],
)
def test_before_subtracts_days_and_months_of_period_in_timezone_of_policy_pack(
    database: str, kind: Kind, period: str, timezone: str, expected: str
) -> None:
    query = sa.select(sa.cast(before(NOW, Period.parse(period), timezone, kind), sa.Text))
    literal = {"literal_binds": True}
    text = str(query.compile(dialect=postgresql.dialect(), compile_kwargs=literal))
    with psycopg.connect(database, options="-c TimeZone=UTC") as connection:
        assert connection.execute(text.encode()).fetchone() == (expected,)
