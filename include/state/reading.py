"""Who may read what of the state database without being its owner."""

from __future__ import annotations

from psycopg import sql
from sqlalchemy import Connection, text

from include.services.errors import UsageError
from include.state.findings import finding, finding_event
from include.state.incidents import incident, incident_entry
from include.state.migrate import VERSION_TABLE
from include.state.tables import (
    evidence_checkpoint,
    evidence_intent,
    evidence_ledger,
    legal_hold,
    restore_point_begun,
)

READ_BY_PAGES = (
    VERSION_TABLE,
    *(
        one.name
        for one in (
            evidence_checkpoint,
            evidence_ledger,
            finding,
            finding_event,
            incident,
            incident_entry,
            legal_hold,
            restore_point_begun,
        )
    ),
)
"""The tables that the compliance pages read. No others: letters, lists of affected people, records
of steps and the erasure ledger are none of their business."""

COLUMNS_READ_BY_PAGES = {evidence_intent.name: ("bundle", "signature")}
"""Columns of further tables: the signature of a bundle that waits for its upload."""


def grant_pages(conn: Connection, role: str) -> None:
    """Let a role read what the compliance pages show, and nothing else; safe to repeat.

    Args:
        conn: the state database as its owner, migrated, in a transaction.
        role: of PostgreSQL.

    Raises:
        UsageError: there is no such role.
    """
    there = text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    if conn.scalar(there, {"role": role}) is None:
        raise UsageError(f"There is no role {role} on the server.", "Create it first.")
    tables = sql.SQL(", ").join(map(sql.Identifier, READ_BY_PAGES))
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
