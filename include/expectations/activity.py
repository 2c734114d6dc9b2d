"""Transactions that were open just before a snapshot, which does not contain their changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

# A standby does not know the transactions of its primary. A role without pg_read_all_stats
# (pg_monitor includes it) cannot see when other roles' transactions started. A prepared transaction
# started before it was prepared; the margin for late arrivals has to cover the difference.
_ISO = "YYYY-MM-DD HH24:MI:SS.US+00"  # independent of the server's DateStyle
_ACTIVITY = f"""
SELECT to_char(now() AT TIME ZONE 'UTC', '{_ISO}'),
    (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'),
    CASE WHEN NOT pg_is_in_recovery() AND pg_has_role('pg_read_all_stats', 'USAGE') THEN
        to_char(least(
            now(),
            (SELECT min(xact_start) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type IS DISTINCT FROM 'autovacuum worker'),
            (SELECT min(prepared) FROM pg_prepared_xacts WHERE database = current_database())
        ) AT TIME ZONE 'UTC', '{_ISO}')
    END
"""  # noqa: S608 - constants


@dataclass(frozen=True)
class Activity:
    """A server's clock and open transactions.

    Attributes:
        now: the server's present moment, in a form that PostgreSQL reads.
        timezone: in which the server's sessions write moments by default.
        oldest: start of the oldest open transaction of the database, or `now` when none was open;
            None where the role or a standby does not show it.
    """

    now: str
    timezone: str
    oldest: str | None

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Activity:
        """Read the activity, outside of a transaction and before the snapshot is taken.

        Transactions that begin after it begin after `now`.
        """
        row = connection.execute(_ACTIVITY).fetchone()
        assert row is not None
        return cls(*row)
