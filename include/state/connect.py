"""Connections to the state database, and its advisory locks."""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from include.services.database import is_refusal
from include.services.errors import ServiceError, UsageError

# Commits must be durable, since later work in other databases relies on them: a record is deleted
# once the ledger has it. Keepalives detect a dead host, whose session would keep its locks.
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
    """Advisory locks of the state database, for work that processes must not do at the same time.

    The value is the number of the lock, from which `lock_number` computes the key for a schema.
    """

    MIGRATIONS = 0x70617263_00000001
    EVIDENCE = 0x70617263_00000002
    HOLDS = 0x70617263_00000003  # shared by deletions, exclusive for the entry of a hold
    AUDIT = 0x70617263_00000004
    FINDINGS = 0x70617263_00000005  # one process at a time follows the ledger
    NOTIFICATIONS = (
        0x70617263_00000006  # prevents a deadlock of processes that queue the same messages
    )


# For a server of pages, which has to answer soon.
QUICK = """
SELECT set_config(name, value, false) FROM (VALUES
    ('default_transaction_read_only', %s), ('statement_timeout', '10s'), ('lock_timeout', '3s')
) AS s (name, value)
"""
PATIENCE = 5  # seconds for which a page waits for the server, or for a free connection


def engine(conninfo: str, schema: str = "") -> Engine:
    """Return a SQLAlchemy engine for a libpq connection string or URL.

    libpq itself reads the string, so Unix sockets, service files and TLS settings work as in psql.
    Connections are not pooled, because tasks are short and Airflow forks its workers.

    Args:
        conninfo: libpq connection string of the state database.
        schema: the only schema that is used for tables and locks; empty for the default search
            path.

    Raises:
        ServiceError: on first use, the server does not answer or refuses the connection.
    """

    def connect() -> psycopg.Connection[Any]:
        connection = _connect(conninfo, "state_db")
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
    """Return a read-only engine with a connection pool, for the server of the compliance pages.

    Args:
        conninfo: libpq connection string of the state database.
        connections: size of the pool. Under load, up to twice as many connections are opened.

    Raises:
        ServiceError: on first use, the server does not answer or refuses the connection.
    """
    return _pages_engine(conninfo, connections, read_only=True)


def recording_engine(conninfo: str, connections: int) -> Engine:
    """Return an engine that may write, for the few rows that the compliance pages insert.

    Args:
        conninfo: libpq connection string of the state database.
        connections: size of the pool. Under load, up to twice as many connections are opened.

    Raises:
        ServiceError: on first use, the server does not answer or refuses the connection.
    """
    return _pages_engine(conninfo, connections, read_only=False)


def _pages_engine(conninfo: str, connections: int, *, read_only: bool) -> Engine:
    def connect() -> psycopg.Connection[Any]:
        connection = _connect(conninfo, "pages_db", connect_timeout=PATIENCE)
        connection.execute(QUICK, ["on" if read_only else "off"])
        connection.commit()
        return connection

    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        pool_size=connections,
        max_overflow=connections,
        pool_timeout=PATIENCE,
        pool_pre_ping=True,  # replaces connections that a restart of the server closed
    )


def _connect(conninfo: str, conn_id: str, **parameters: Any) -> psycopg.Connection[Any]:
    try:
        connection = psycopg.connect(conninfo, application_name="parcelseal", **parameters)
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
    """Return the only schema that a connection uses; empty if it uses the default search path."""
    return str(conn.get_execution_options().get(_SCHEMA, ""))


def lock_number(conn: Connection, lock: StateLock) -> int:
    """Return the key of an advisory lock for the schema of a connection.

    PostgreSQL shares advisory locks among all schemas of a database. If the schemas had the same
    keys, a drill in its own schema would block deletions, and deletions would block the drill.
    """
    schema = schema_of(conn)
    if not schema:
        return int(lock)
    digest = sha256(f"{schema}:{lock.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # a non-negative bigint


def lock_for_transaction(conn: Connection, lock: StateLock) -> None:
    """Take an exclusive advisory lock until the current transaction ends.

    The function waits while another session has the lock.

    PostgreSQL releases the lock when the transaction ends or the process dies.
    """
    conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock_number(conn, lock)})
