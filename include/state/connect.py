"""Connections to the state database, and the locks that its users agree on."""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from include.services.database import is_refusal
from include.services.errors import ServiceError, UsageError

# What is committed here allows what is done elsewhere: a record is deleted once the ledger has it.
# And a host that is gone has to be noticed before long, since locks go with its session.
SESSION = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
UNION ALL SELECT set_config(name, value, false) FROM (VALUES
    ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')
) AS s (name, value)
"""


SEARCH_PATH = "SELECT set_config('search_path', quote_ident(%s), false)"
_SCHEMA = "parcelseal_schema"  # execution option of an engine that works in one schema only


class StateLock(IntEnum):
    """Advisory locks of the state database; one number per thing that must not run twice."""

    MIGRATIONS = 0x70617263_00000001
    EVIDENCE = 0x70617263_00000002
    HOLDS = 0x70617263_00000003  # shared by who deletes records, exclusive for who places a hold
    AUDIT = 0x70617263_00000004
    NOTICES = (
        0x70617263_00000006  # so that two who queue the same wait instead of blocking each other
    )


# For a server of pages: what somebody waits for who looks at a page, and nobody writes there.
READING = """
SELECT set_config(name, value, false) FROM (VALUES
    ('default_transaction_read_only', 'on'), ('statement_timeout', '10s'), ('lock_timeout', '3s')
) AS s (name, value)
"""
PATIENCE = 5  # seconds for which a page waits for the server, or for a connection to be free


def engine(conninfo: str, schema: str = "") -> Engine:
    """Return a SQLAlchemy engine for a libpq connection string or URL.

    libpq itself reads the string, so Unix sockets, service files and TLS settings work as in psql.
    Every connection is new: tasks are short, and Airflow forks its workers.

    Args:
        conninfo: of the state database.
        schema: the only one in which names are looked up, and whose locks are its own; empty for
            the database's usual ones.

    Raises:
        ServiceError: on first use, the server does not answer or refuses.
    """

    def connect() -> psycopg.Connection[Any]:
        connection = _connected(conninfo, "state_db")
        if schema:
            connection.execute(SEARCH_PATH, [schema])
        connection.commit()
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=NullPool,
        execution_options={_SCHEMA: schema},
    )


def reading_engine(conninfo: str, connections: int) -> Engine:
    """Return an engine for a process that lives long, serves many and only reads.

    Args:
        conninfo: of the state database.
        connections: how many are kept; as many more are made where they are all in use.

    Raises:
        ServiceError: on first use, the server does not answer or refuses.
    """

    def connect() -> psycopg.Connection[Any]:
        connection = _connected(conninfo, "pages_db", connect_timeout=PATIENCE)
        connection.execute(READING)
        connection.commit()
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        pool_size=connections,
        max_overflow=connections,
        pool_timeout=PATIENCE,
        pool_pre_ping=True,  # one that a restart of the server ended is replaced unseen
    )


def _connected(conninfo: str, conn_id: str, **more: Any) -> psycopg.Connection[Any]:
    try:
        connection = psycopg.connect(conninfo, application_name="parcelseal", **more)
        connection.execute(SESSION)
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split()).partition(" Is the server running")[0].rstrip(".")
        if is_refusal(reason):
            raise UsageError(
                f"The server refused the connection to the state database: {reason}.",
                f"Check user, password and database name of the connection {conn_id}.",
            ) from error
        raise ServiceError(
            f"The state database cannot be used: {reason}.", f"Check the connection {conn_id}."
        ) from error
    return connection


def schema_of(conn: Connection) -> str:
    """Return the only schema in which a connection works; empty where it has the usual ones."""
    return str(conn.get_execution_options().get(_SCHEMA, ""))


def lock_number(conn: Connection, lock: StateLock) -> int:
    """Return the key of an advisory lock as this connection means it.

    Advisory locks are those of the whole database: what works in a schema of its own has its own,
    or a drill would keep deletions waiting, and they it.
    """
    schema = schema_of(conn)
    if not schema:
        return int(lock)
    digest = sha256(f"{schema}:{lock.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # a bigint that is not negative


def lock_for_transaction(conn: Connection, lock: StateLock) -> None:
    """Wait for an exclusive lock that ends with the transaction, or with the process."""
    conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock_number(conn, lock)})
