"""A sample that was loaded days ago gets waybills of today, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from include.sample_company import load
from include.sample_company.carry_on import TODAY, carry_on

LOADED = datetime(2026, 5, 20, 9, tzinfo=UTC)


def test_a_fresh_sample_is_left_alone(database: str) -> None:
    """Right after loading nothing is added."""
    with psycopg.connect(database) as connection:
        load(connection, customers=300, as_of=LOADED)
        assert carry_on(connection, LOADED + timedelta(hours=1)) == 0


def test_an_old_sample_goes_on_in_a_month_that_has_no_partition_yet(database: str) -> None:
    """Four months later the newest waybill is of today, and asking again adds nothing."""
    later = LOADED + timedelta(days=125)
    with psycopg.connect(database) as connection:
        load(connection, customers=300, as_of=LOADED)
        added = carry_on(connection, later)
        newest = connection.execute("SELECT max(created_at) FROM waybill").fetchone()
        assert 0 < added <= TODAY
        assert newest is not None
        assert later - timedelta(hours=1) < newest[0] <= later
        assert carry_on(connection, later) == 0
