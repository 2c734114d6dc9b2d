"""Change registers despite their triggers, as the owner of the tables can, and read requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine

from include.approvals import registry
from include.evidence.model import StepRecord

UNGUARDED = "SET LOCAL session_replication_role = replica"  # for superusers, until the commit


def emptying(tables: Iterable[str]) -> str:
    """Return SQL that empties tables, including registers, and resets their sequences.

    Only a superuser can execute it.
    """
    names = ", ".join(f'"{table}"' for table in tables)
    return f"{UNGUARDED}; TRUNCATE {names} RESTART IDENTITY"


@contextmanager
def unguarded(conn: Connection | psycopg.Connection[Any], *tables: str) -> Iterator[None]:
    """Disable the triggers of tables during the block, as the tables' owner can."""
    execute = conn.exec_driver_sql if isinstance(conn, Connection) else conn.execute
    for table in tables:
        execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    try:
        yield
    finally:
        for table in tables:
            execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def tamper(conninfo: str, statement: str) -> list[tuple[Any, ...]]:
    """Change tables of erasures or erasure requests with their triggers disabled.

    Returns:
        The rows that the statement returns.
    """
    tables = ("erasure", "erasure_batch", "erasure_request")
    with psycopg.connect(conninfo) as connection, unguarded(connection, *tables):
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def content_of(state: Engine, record: StepRecord) -> str:
    """Return the content of the approval request that a step record names."""
    with state.connect() as conn:
        return registry.load_request(conn, record.data["request"]).content
