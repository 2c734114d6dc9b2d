"""Tests of reading the start of the oldest open transaction of a database."""

from __future__ import annotations

import psycopg

from include.expectations.check import Activity


def test_activity_read_treats_prepared_transaction_as_open_transaction(database: str) -> None:
    """A prepared transaction has no session, but its changes become visible if it is committed."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE parcel (id int)")
        connection.execute("BEGIN; INSERT INTO parcel VALUES (1); PREPARE TRANSACTION 'late'")
        (afterwards,) = connection.execute("SELECT now()").fetchone() or (None,)
        try:
            activity = Activity.read(connection)
            (is_older,) = connection.execute(
                "SELECT %s::timestamptz < %s", [activity.oldest, afterwards]
            ).fetchone() or (None,)
        finally:
            connection.execute("ROLLBACK PREPARED 'late'")
    assert is_older
