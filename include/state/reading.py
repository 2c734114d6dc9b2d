"""Grant the compliance pages rights on tables of the state database."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql
from sqlalchemy import Connection, Table, text

from include.services.errors import UsageError
from include.state.findings import finding, finding_event, finding_progress, finding_report
from include.state.migrate import VERSION_TABLE
from include.state.tables import (
    approval_decision,
    approval_request,
    evidence_checkpoint,
    evidence_control,
    evidence_intent,
    evidence_ledger,
    legal_hold,
    policy_control,
    restore_point_operation,
)

READ_BY_PAGES = (
    approval_decision,
    approval_request,
    evidence_checkpoint,
    evidence_control,
    evidence_ledger,
    finding,
    finding_event,
    finding_progress,
    finding_report,
    legal_hold,
    policy_control,
    restore_point_operation,
)
"""The tables that the compliance pages read, besides those that workflows declare. The pages may
not read letters, lists of affected people, records of steps and the erasure ledger."""

COLUMNS_READ_BY_PAGES = {evidence_intent.name: ("bundle", "signature")}
"""Columns of further tables: the signature of a bundle that waits for its upload."""

INSERTED_BY_PAGES = ("use_opening",)
"""Tables into which the pages insert rows: a download of an extract is recorded before its first
byte. The pages may not change or delete these rows."""


def tables_read(workflow_tables: Iterable[Table]) -> list[str]:
    """Return the names of all tables that the compliance pages read.

    Args:
        workflow_tables: tables that workflows declare for the pages.
    """
    tables = sorted((*READ_BY_PAGES, *workflow_tables), key=lambda table: table.name)
    return [VERSION_TABLE, *(table.name for table in tables)]


def grant_pages(conn: Connection, role: str, workflow_tables: Iterable[Table]) -> None:
    """Grant a database role the rights of the compliance pages.

    The role may read the tables of the pages, and insert rows into `INSERTED_BY_PAGES`. No other
    right is granted. The call can be repeated.

    Args:
        conn: connection to the migrated state database with its owner's login, on which a
            transaction is open.
        role: name of the PostgreSQL role.
        workflow_tables: tables that workflows declare for the pages.

    Raises:
        UsageError: the role does not exist.
    """
    query = text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    if conn.scalar(query, {"role": role}) is None:
        raise UsageError(f"There is no role {role} on the server.", "Create it first.")
    tables = sql.SQL(", ").join(map(sql.Identifier, tables_read(workflow_tables)))
    statements = [
        sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(role)),
        sql.SQL("GRANT SELECT ON {} TO {}").format(tables, sql.Identifier(role)),
    ]
    inserted = sql.SQL(", ").join(map(sql.Identifier, INSERTED_BY_PAGES))
    statements.append(sql.SQL("GRANT INSERT ON {} TO {}").format(inserted, sql.Identifier(role)))
    for table, names in COLUMNS_READ_BY_PAGES.items():
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        statements.append(
            sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(
                columns, sql.Identifier(table), sql.Identifier(role)
            )
        )
    for statement in statements:
        conn.exec_driver_sql(statement.as_string())
