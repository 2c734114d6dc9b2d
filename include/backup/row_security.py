"""Row-level security that binds even the owner of a table: the role that restores.

``FORCE ROW LEVEL SECURITY`` hides rows from the owner, unless the role has BYPASSRLS. Foreign keys
are then refused while pg_restore creates them, and counting, comparing and erasing need every row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import sql

from include.services.database import DatabaseAddress, connected
from include.services.errors import ParcelSealError, UsageError

FORCED = """
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles r ON r.rolname = current_user AND NOT (r.rolsuper OR r.rolbypassrls)
WHERE c.relkind IN ('r', 'p') AND c.relforcerowsecurity ORDER BY 1, 2
"""


def forced_tables(copy: DatabaseAddress) -> list[tuple[str, str]]:
    """Return the tables, (schema, name), whose policies bind the role although it owns them.

    A role with BYPASSRLS, and a superuser, is bound by none.
    """
    with connected(copy) as connection:
        return _forced(connection)


@contextmanager
def policies_lifted(
    copy: DatabaseAddress, only: Collection[tuple[str, str]] | None = None
) -> Iterator[None]:
    """Let the owner of a restored copy's tables read and change all rows inside the block.

    The tables have ``NO FORCE ROW LEVEL SECURITY`` meanwhile, for every session. A process that is
    killed in the block leaves them so.

    Args:
        copy: a database that is not in use yet.
        only: tables, (schema, name), that may be changed; None for all.

    Raises:
        UsageError: the role is not the owner of such a table.
        ServiceError: the server failed.
    """
    with connected(copy) as connection:
        tables = [table for table in _forced(connection) if only is None or table in only]
        try:
            _alter(connection, tables, "NO FORCE")
        except psycopg.errors.InsufficientPrivilege:
            raise UsageError(
                f"Row-level security of {copy.place} is forced on tables that the role does not "
                "own, and may hide rows from it.",
                "Use the role that owns the tables, or let it read everything: "
                "ALTER ROLE ... BYPASSRLS.",
            ) from None
    try:
        yield
    except BaseException:
        with suppress(ParcelSealError):  # the first error is the one to report
            _force(copy, tables)
        raise
    _force(copy, tables)


def _force(copy: DatabaseAddress, tables: list[tuple[str, str]]) -> None:
    if tables:
        with connected(copy) as connection:
            _alter(connection, tables, "FORCE")


def _forced(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return [(schema, name) for schema, name in connection.execute(FORCED)]


def _alter(connection: psycopg.Connection, tables: list[tuple[str, str]], force: str) -> None:
    for table in tables:
        connection.execute(
            sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY").format(
                sql.Identifier(*table),
                sql.SQL(force),
            )
        )
