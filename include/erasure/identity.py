"""Which server a transaction number counts on, and the number of the open transaction."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

UNKNOWN = "unknown"
# A promoted replica and a server that was set back may give a number that its twin gave before:
# they differ by the timeline. It is read from the log's present position, since the control file
# says the new one only after the next checkpoint.
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TIMELINE = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
# By its oid: a database that was dropped and restored under its name is another one.
_DATABASE = "SELECT oid::text FROM pg_database WHERE datname = current_database()"


def server_of(connection: psycopg.Connection[Any]) -> str:
    """Return the server's system identifier and timeline, and the database's oid.

    Functions of the first two are anybody's by default. Where they were revoked, or the server is a
    replica, ``unknown`` stands in their place, and `is_known` says so.

    Raises:
        psycopg.Error: the connection is gone.
    """
    system, timeline = (_asked(connection, query) for query in (_SYSTEM, _TIMELINE))
    return f"{system}/{timeline}/{_asked(connection, _DATABASE)}"


def is_known(server: str | None) -> bool:
    """Whether it says on which server a transaction number counts."""
    return server is not None and UNKNOWN not in server


def are_one_database(first: str, second: str) -> bool:
    """Return whether two sessions are on the same database, of one server or its standby.

    Parts that one of the sessions does not know are not compared.

    Args:
        first: the database of a session, as `server_of` returns it.
        second: the database of the other session.
    """
    system, _timeline, database = zip(first.split("/"), second.split("/"), strict=True)
    return all(UNKNOWN in pair or len(set(pair)) == 1 for pair in (system, database))


def transaction_of(connection: psycopg.Connection[Any]) -> str:
    """Return the number of the open transaction, 64 bits in decimal; it gets one if it has none.

    Raises:
        psycopg.Error: the server is a replica, or the connection is gone.
    """
    row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return str(row[0])


def _asked(connection: psycopg.Connection[Any], query: str) -> str:
    try:
        with connection.transaction():
            row = connection.execute(query).fetchone()
    except (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState):
        return UNKNOWN
    return UNKNOWN if row is None else str(row[0])
