"""Migrations create the tables of the code, may run concurrently, and refuse unknown schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, DateTime, inspect, text
from sqlalchemy.exc import IntegrityError

from include import registry
from include.services.errors import ServiceError, UsageError
from include.state import findings
from include.state.connect import engine
from include.state.migrate import VERSION_TABLE, ensure_current, migrate, newest_revision
from include.state.tables import metadata

ROOT = Path(__file__).parents[2]
MIGRATE = """
import sys
from include.state.connect import engine
from include.state.migrate import migrate
sys.stdin.read()
migrate(engine(sys.argv[1]))
"""


MODULES = (findings, registry.workflows())  # their tables join the metadata on import


def test_migrations_create_exactly_the_tables_that_the_code_defines(database: str) -> None:
    """The test compares check constraints, which Alembic's comparison omits."""
    db = engine(database)
    migrate(db)
    with db.connect() as conn:
        context = MigrationContext.configure(
            conn,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: kind != "table" or name != VERSION_TABLE,
            },
        )
        assert compare_metadata(context, metadata) == []
        inspector = inspect(conn)
        for table in metadata.tables.values():
            checks = [
                constraint
                for constraint in table.constraints
                if isinstance(constraint, CheckConstraint)
            ]
            declared = {
                conn.dialect.identifier_preparer.format_constraint(check) for check in checks
            }
            assert declared == {
                constraint["name"] for constraint in inspector.get_check_constraints(table.name)
            }


def test_every_timestamp_column_has_a_timezone() -> None:
    moments = [
        column
        for table in metadata.tables.values()
        for column in table.c
        if isinstance(column.type, DateTime)
    ]
    assert moments
    assert all(column.type.timezone for column in moments)


def test_concurrent_migrations_succeed(database: str) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, database],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.stdin = None
    errors = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], errors
    ensure_current(engine(database))


def test_rows_of_incident_tables_cannot_be_changed_or_deleted(migrated_database: str) -> None:
    """The tables may be truncated as long as there is no incident."""
    db = engine(migrated_database)
    with db.begin() as conn:
        conn.execute(text("TRUNCATE incident CASCADE"))
        incident_id = conn.scalar(
            text(
                "INSERT INTO incident (number, dag_id, run_id, type, what, noticed_by, opened_by,"
                " opened_at, aware_at, selection, fingerprint, clocks, state) VALUES ('INC-1', 'd',"
                " 'r', 't', 'w', '', '', now(), now(), '{}', 'f', '[]', 'open') RETURNING id"
            )
        )
        row = {"incident": incident_id}
        conn.execute(text("INSERT INTO incident_subject VALUES (:incident, 'd', '1', 1)"), row)
    for statement in (
        "TRUNCATE incident CASCADE",
        "TRUNCATE incident_subject",
        "DELETE FROM incident_subject",
        "UPDATE incident_subject SET key = '2'",
        "UPDATE incident SET kept = '{}'",
    ):
        with db.begin() as conn, pytest.raises(IntegrityError, match="is history"):
            conn.execute(text(statement))


def test_failed_migration_is_rolled_back(database: str) -> None:
    """An existing table makes a later statement of the migration fail."""
    db = engine(database)
    with db.begin() as conn:
        conn.execute(text("CREATE TABLE training_waiver (x int)"))
    with pytest.raises(Exception, match="already exists"):
        migrate(db)
    with db.connect() as conn:
        assert inspect(conn).get_table_names() == ["training_waiver"]


def test_ensure_current_raises_usage_error_if_database_is_empty_or_has_unknown_revision(
    database: str,
) -> None:
    db = engine(database)
    with pytest.raises(UsageError, match="revision none"):
        ensure_current(db)
    migrate(db)
    with db.begin() as conn:
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for refused in (ensure_current, migrate):
        with pytest.raises(UsageError, match="revision 9999"):
            refused(db)
    assert newest_revision() < "9999"


def test_error_for_unreachable_state_database_has_a_single_line_and_no_password() -> None:
    """The error contains no traceback and no password."""
    db = engine("host=/nonexistent-folder dbname=x user=x password=secret-word")
    with pytest.raises(ServiceError, match="state database cannot be used") as caught:
        db.connect()
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
