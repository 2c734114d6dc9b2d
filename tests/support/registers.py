"""Get past the triggers that keep registers, as the owner of the tables can; read requests."""

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
    """SQL that empties tables as if nothing had ever been in them, registers too; a superuser's."""
    names = ", ".join(f'"{one}"' for one in tables)
    return f"{UNGUARDED}; TRUNCATE {names} RESTART IDENTITY"


@contextmanager
def unguarded(conn: Connection | psycopg.Connection[Any], *tables: str) -> Iterator[None]:
    """Take their triggers from tables for a moment, which their owner can."""
    execute = conn.exec_driver_sql if isinstance(conn, Connection) else conn.execute
    for one in tables:
        execute(f"ALTER TABLE {one} DISABLE TRIGGER USER")
    try:
        yield
    finally:
        for one in tables:
            execute(f"ALTER TABLE {one} ENABLE TRIGGER USER")


def tamper(conninfo: str, statement: str) -> list[tuple[Any, ...]]:
    """Change the erasure ledger or requests as the owner of their tables can, past triggers."""
    tables = ("erasure", "erasure_batch", "erasure_request")
    with psycopg.connect(conninfo) as connection, unguarded(connection, *tables):
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def content_of(state: Engine, record: StepRecord) -> str:
    """Return what the form of a record's request carries."""
    with state.connect() as conn:
        return registry.request(conn, record.data["request"]).content
