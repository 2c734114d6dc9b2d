"""Who reads the state database without owning it."""

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


def test_rights_are_given_to_a_role_that_is_there(
    postgres: EmbeddedPostgres, migrated_database: str
) -> None:
    """As often as one likes; one that nobody created is named, and nothing is given."""
    role = f"pages_{uuid.uuid4().hex[:8]}"
    made = engine(migrated_database)
    with pytest.raises(UsageError, match=f"no role {role}"), made.begin() as conn:
        grant_pages(conn, role, pages_tables())
    with psycopg.connect(migrated_database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        for _again in range(2):
            with made.begin() as conn:
                grant_pages(conn, role, pages_tables())
        admin.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        assert admin.execute("SELECT count(*) FROM evidence_ledger").fetchone() == (0,)
        admin.execute("SELECT bundle, signature FROM evidence_intent")
        for query in ("SELECT count(*) FROM run_step", "SELECT begun_at FROM evidence_intent"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute(query)


def test_readers_cannot_write_whoever_they_are(migrated_database: str) -> None:
    """The owner's connection too, where no other was configured."""
    made = reading_engine(migrated_database, 1)
    with made.connect() as conn:
        with pytest.raises(Exception, match="read-only transaction"):
            conn.exec_driver_sql("DELETE FROM evidence_ledger")
        conn.rollback()
    made.dispose()
