"""Close SECURITY DEFINER functions to other roles while a copy is restored.

PostgreSQL lets PUBLIC execute each new function. A SECURITY DEFINER function reads tables for
whoever executes it, so it would show rows before their erasure is replayed, and to roles to which
the original database gave no right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg

from include.erasure.suspended import FIRST_OWN_OBJECT
from include.services.database import DatabaseAddress, connected

# Functions of the database's users: an extension's script sets the rights of its own functions.
_FUNCTIONS = f"""
SELECT p.oid::int8, p.oid::regprocedure::text FROM pg_proc p
WHERE p.prosecdef AND p.oid >= {FIRST_OWN_OBJECT} AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""  # noqa: S608 - fixed text


def definer_functions(connection: psycopg.Connection[Any]) -> dict[int, str]:
    """Return the SECURITY DEFINER functions and procedures of a database: oid and SQL name."""
    return dict(connection.execute(_FUNCTIONS).fetchall())


def definers_of(target: DatabaseAddress) -> frozenset[int]:
    """Return the oids of a database's SECURITY DEFINER functions, before a restore adds others.

    Raises:
        ServiceError: the database failed.
    """
    with connected(target) as connection:
        return frozenset(definer_functions(connection))


def close_functions(target: DatabaseAddress, existing: Collection[int]) -> None:
    """Take EXECUTE from PUBLIC on the SECURITY DEFINER functions that a restore created.

    Args:
        target: the database that is restored.
        existing: oids of functions that it had before the restore.

    Raises:
        ServiceError: the database failed.
    """
    with connected(target) as connection:
        _change(connection, "REVOKE EXECUTE ON ROUTINE {} FROM PUBLIC", existing)


def open_functions(connection: psycopg.Connection[Any], existing: Collection[int]) -> None:
    """Give EXECUTE on these functions back to PUBLIC, in the connection's transaction.

    Run the archive's grants and revocations afterwards: pg_dump writes them for functions that
    PUBLIC may execute, as PostgreSQL creates them.

    Args:
        connection: to the restored database.
        existing: oids of functions that it had before the restore.

    Raises:
        psycopg.Error: the database refuses.
    """
    _change(connection, "GRANT EXECUTE ON ROUTINE {} TO PUBLIC", existing)


def _change(connection: psycopg.Connection[Any], statement: str, existing: Collection[int]) -> None:
    for oid, name in definer_functions(connection).items():
        if oid not in existing:
            connection.execute(statement.format(name).encode())  # quoted by regprocedure
