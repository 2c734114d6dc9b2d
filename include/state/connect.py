"""Connections to the state database, and the locks that its users agree on."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from include.services.errors import ServiceError

# What is committed here allows what is done elsewhere: a record is deleted once the ledger has it.
# And a host that is gone has to be noticed before long, since locks go with its session.
SESSION = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
UNION ALL SELECT set_config(name, value, false) FROM (VALUES
    ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')
) AS s (name, value)
"""


class StateLock(IntEnum):
    """Advisory locks of the state database; one number per thing that must not run twice."""

    MIGRATIONS = 0x70617263_00000001
    EVIDENCE = 0x70617263_00000002
    HOLDS = 0x70617263_00000003  # shared by who deletes records, exclusive for who places a hold
    AUDIT = 0x70617263_00000004
    NOTICES = (
        0x70617263_00000006  # so that two who queue the same wait instead of blocking each other
    )


def engine(conninfo: str) -> Engine:
    """Return a SQLAlchemy engine for a libpq connection string or URL.

    libpq itself reads the string, so Unix sockets, service files and TLS settings work as in psql.
    Every connection is new: tasks are short, and Airflow forks its workers.

    Raises:
        ServiceError: on first use, the server does not answer or refuses.
    """

    def connect() -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(conninfo, application_name="parcelseal")
            connection.execute(SESSION)
            connection.commit()
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            raise ServiceError(
                f"The state database cannot be used: {reason}.", "Check the connection state_db."
            ) from error
        return connection

    return create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)


def lock_for_transaction(conn: Connection, lock: StateLock) -> None:
    """Wait for an exclusive lock that ends with the transaction, or with the process."""
    conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": int(lock)})
