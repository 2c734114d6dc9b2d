"""The state database: migrations agree with the tables, survive races, and guard old schemas."""

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


MODULES = (findings, registry)  # their tables join the metadata when they are imported


def test_migrations_make_exactly_the_tables_that_the_code_uses(database: str) -> None:
    """Autogenerate finds nothing to add, and every check constraint is there."""
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
        found = inspect(conn)
        for table in metadata.tables.values():
            checks = [one for one in table.constraints if isinstance(one, CheckConstraint)]
            declared = {conn.dialect.identifier_preparer.format_constraint(one) for one in checks}
            assert declared == {one["name"] for one in found.get_check_constraints(table.name)}


def test_every_moment_has_a_timezone() -> None:
    """A naive column would read a moment differently on every server."""
    moments = [
        column
        for table in metadata.tables.values()
        for column in table.c
        if isinstance(column.type, DateTime)
    ]
    assert moments
    assert all(column.type.timezone for column in moments)


def test_two_processes_migrate_at_once(database: str) -> None:
    """Both wait for the start signal, both end well, one did the work."""
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


def test_history_of_an_incident_stays(migrated_database: str) -> None:
    """The list of people too; while there is no incident, its tables may be emptied."""
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


def test_a_failed_migration_leaves_nothing_behind(database: str) -> None:
    """A table in the way of one of the baseline: those before it are not kept either."""
    db = engine(database)
    with db.begin() as conn:
        conn.execute(text("CREATE TABLE training_waiver (x int)"))
    with pytest.raises(Exception, match="already exists"):
        migrate(db)
    with db.connect() as conn:
        assert inspect(conn).get_table_names() == ["training_waiver"]


def test_an_empty_or_newer_database_is_refused_with_what_to_do(database: str) -> None:
    """Never migrated, and migrated by a version of the future."""
    db = engine(database)
    with pytest.raises(UsageError, match="revision none"):
        ensure_current(db)
    migrate(db)
    with db.begin() as conn:
        conn.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for refused in (ensure_current, migrate):
        with pytest.raises(UsageError, match="revision 9999, which this version does not know"):
            refused(db)
    assert newest_revision() < "9999"


def test_a_server_that_is_not_there_gives_one_line() -> None:
    """No traceback of the driver, no password."""
    db = engine("host=/nonexistent-folder dbname=x user=x password=secret-word")
    with pytest.raises(ServiceError, match="state database cannot be used") as caught:
        db.connect()
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
