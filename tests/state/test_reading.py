"""Read-only access to the state database."""

from __future__ import annotations

import uuid

import psycopg
import pytest
from psycopg import sql

from include.local.postgres import EmbeddedPostgres
from include.registry import pages_tables
from include.services.errors import UsageError
from include.state.connect import engine, reading_engine
from include.state.reading import grant_pages


def test_grant_pages_raises_usage_error_if_role_does_not_exist(
    postgres: EmbeddedPostgres, migrated_database: str
) -> None:
    role = f"pages_{uuid.uuid4().hex[:8]}"
    state = engine(migrated_database)
    with pytest.raises(UsageError, match=f"no role {role}"), state.begin() as conn:
        grant_pages(conn, role, pages_tables())
    with psycopg.connect(migrated_database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        for _again in range(2):
            with state.begin() as conn:
                grant_pages(conn, role, pages_tables())
        admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        assert admin.execute("SELECT count(*) FROM evidence_ledger").fetchone() == (0,)
        admin.execute("SELECT bundle, signature FROM evidence_intent")
        for query in ("SELECT count(*) FROM run_step", "SELECT started_at FROM evidence_intent"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute(query)


def test_write_through_reading_engine_raises_error_even_for_the_table_owner(
    migrated_database: str,
) -> None:
    """Even the owner of the tables cannot write through this engine."""
    reader = reading_engine(migrated_database, 1)
    with reader.connect() as conn:
        with pytest.raises(Exception, match="read-only transaction"):
            conn.exec_driver_sql("DELETE FROM evidence_ledger")
        conn.rollback()
    reader.dispose()
