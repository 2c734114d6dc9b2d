"""Entries of the register that something else than a check settles."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from sqlalchemy import Connection, select

from include.quarantine.register import Place
from include.state.tables import quarantine

_RESOLVE = """
UPDATE quarantine SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND found_dag_id = %(dag_id)s
  AND resolved_at IS NULL AND key = ANY(%(keys)s)
"""


def open_by(conn: Connection, database: str, collection: str, dag_id: str) -> list[str]:
    """The keys of the open records that one workflow entered, each once, as they stand there."""
    query = (
        select(quarantine.c.key)
        .distinct()
        .where(
            quarantine.c.database == database,
            quarantine.c.collection == collection,
            quarantine.c.found_dag_id == dag_id,
            quarantine.c.resolved_at.is_(None),
        )
    )
    return list(conn.scalars(query))


def resolve(connection: psycopg.Connection, place: Place, keys: Sequence[str]) -> int:
    """Resolve what the place's workflow entered of these records, whatever the rule; how many.

    Args:
        connection: to the state database, in a transaction; may be repeated.
        place: database, collection, workflow and run.
        keys: as they stand in the register.
    """
    return connection.execute(_RESOLVE, {**place.__dict__, "keys": list(keys)}).rowcount
