"""Who may read what of the state database without being its owner."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql
from sqlalchemy import Connection, Table, text

from include.services.errors import UsageError
from include.state.findings import finding, finding_event
from include.state.migrate import VERSION_TABLE
from include.state.tables import (
    evidence_checkpoint,
    evidence_intent,
    evidence_ledger,
    legal_hold,
    restore_point_begun,
)

READ_BY_PAGES = (
    evidence_checkpoint,
    evidence_ledger,
    finding,
    finding_event,
    legal_hold,
    restore_point_begun,
)
"""The tables that the compliance pages read, besides those that workflows declare. The pages have
no right to letters, lists of affected people, records of steps and the erasure ledger."""

COLUMNS_READ_BY_PAGES = {evidence_intent.name: ("bundle", "signature")}
"""Columns of further tables: the signature of a bundle that waits for its upload."""


def tables_read(workflow_tables: Iterable[Table]) -> list[str]:
    """Return the names of all tables that the pages read."""
    tables = sorted((*READ_BY_PAGES, *workflow_tables), key=lambda table: table.name)
    return [VERSION_TABLE, *(table.name for table in tables)]


def grant_pages(conn: Connection, role: str, workflow_tables: Iterable[Table]) -> None:
    """Let a role read the tables of the compliance pages, and nothing else; safe to repeat.

    Args:
        conn: the state database as its owner, migrated, in a transaction.
        role: of PostgreSQL.
        workflow_tables: those that workflows declare for the pages.

    Raises:
        UsageError: there is no such role.
    """
    there = text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    if conn.scalar(there, {"role": role}) is None:
        raise UsageError(f"There is no role {role} on the server.", "Create it first.")
    tables = sql.SQL(", ").join(map(sql.Identifier, tables_read(workflow_tables)))
    statements = [
        sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(role)),
        sql.SQL("GRANT SELECT ON {} TO {}").format(tables, sql.Identifier(role)),
    ]
    for table, names in COLUMNS_READ_BY_PAGES.items():
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        statements.append(
            sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(
                columns, sql.Identifier(table), sql.Identifier(role)
            )
        )
    for words in statements:
        conn.exec_driver_sql(words.as_string())
