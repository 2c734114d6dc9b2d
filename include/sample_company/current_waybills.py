"""Add recent waybills to a sample database whose newest waybills have become old."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

WAYBILLS_PER_DAY = 40  # a day with few waybills
MAX_AGE = timedelta(hours=12)
ZONE = ZoneInfo("Asia/Shanghai")  # partitions are months of this zone

NEW_WAYBILLS = """
INSERT INTO waybill (created_at, number, carrier, status, sender_id, sender_address_id, sender_name,
    sender_phone, sender_address, receiver_id, receiver_address_id, receiver_name, receiver_phone,
    receiver_address, weight_grams, fee)
SELECT %(now)s - (n * interval '1 minute'),
    'SF9' || lpad((extract(epoch FROM %(now)s::timestamptz)::bigint * 100 + n)::text, 12, '0'),
    'SF', status, sender_id, sender_address_id, sender_name, sender_phone, sender_address,
    receiver_id, receiver_address_id, receiver_name, receiver_phone, receiver_address,
    weight_grams, fee
FROM (SELECT row_number() OVER (ORDER BY waybill_id) n, w.* FROM waybill w
      WHERE delivered_at IS NULL ORDER BY created_at DESC LIMIT %(today)s) latest
"""


def add_current_waybills(connection: psycopg.Connection, now: datetime) -> int:
    """Add copies of the newest undelivered waybills if no waybill is younger than 12 hours.

    The answer sheet of the sample database, which lists its expected results, does not cover the
    added rows.

    Args:
        connection: connection of the owner of the sample's tables. The function ends its
            transaction.
        now: current time, timezone-aware.

    Returns:
        The number of added rows.
    """
    row = connection.execute("SELECT max(created_at) FROM waybill").fetchone()
    newest = row[0] if row else None
    if newest is None or newest > now - MAX_AGE:
        connection.rollback()
        return 0
    for moment in (now - timedelta(minutes=WAYBILLS_PER_DAY), now):
        _ensure_partition(connection, moment)
    added = connection.execute(NEW_WAYBILLS, {"now": now, "today": WAYBILLS_PER_DAY}).rowcount
    connection.commit()
    return added


def _ensure_partition(connection: psycopg.Connection, moment: datetime) -> None:
    start = moment.astimezone(ZONE).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=32)).replace(day=1)
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} PARTITION OF waybill FOR VALUES FROM ({}) TO ({})"
        ).format(sql.Identifier(f"waybill_{start:%Y_%m}"), sql.Literal(start), sql.Literal(end))
    )
