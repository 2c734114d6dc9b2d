"""Tests that add recent waybills to a sample that was loaded earlier."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from include.sample_company import load
from include.sample_company.current_waybills import WAYBILLS_PER_DAY, add_current_waybills

LOADED = datetime(2026, 5, 20, 9, tzinfo=UTC)


def test_no_waybill_is_added_if_the_newest_waybill_is_recent(database: str) -> None:
    """Immediately after the load, the newest waybill of the sample is recent."""
    with psycopg.connect(database) as connection:
        load(connection, customers=300, as_of=LOADED)
        assert add_current_waybills(connection, LOADED + timedelta(hours=1)) == 0


def test_recent_waybills_are_added_once_to_a_sample_without_a_partition_for_the_current_month(
    database: str,
) -> None:
    """A second call adds no waybills."""
    now = LOADED + timedelta(days=125)
    with psycopg.connect(database) as connection:
        load(connection, customers=300, as_of=LOADED)
        added = add_current_waybills(connection, now)
        newest = connection.execute("SELECT max(created_at) FROM waybill").fetchone()
        assert 0 < added <= WAYBILLS_PER_DAY
        assert newest is not None
        assert now - timedelta(hours=1) < newest[0] <= now
        assert add_current_waybills(connection, now) == 0
