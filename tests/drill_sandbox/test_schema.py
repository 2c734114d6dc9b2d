"""Test that a drill's state is a separate schema that works like the live state.

After the drill, nothing of the schema remains.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from include.drill_sandbox import schema
from include.drill_sandbox.schema import Sandbox, find_sandbox, name_of, open_sandbox
from include.partners.tables import partner_answer, partner_review
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.state.connect import StateLock, engine, lock_for_transaction
from include.state.locks import hold_exclusive_lock
from include.state.migrate import current_revision, newest_revision
from include.state.tables import run_step
from tests.support.state_snapshot import differences, snapshot

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
RUN = ("respond_to_incident", "manual__1")
OTHER = ("respond_to_incident", "manual__2")
OPEN = """
import sys
from datetime import UTC, datetime
from include.drill_sandbox.schema import open_sandbox
sys.stdin.read()
sandbox = open_sandbox(sys.argv[1], *sys.argv[2:4], datetime.now(UTC), lambda conn: None)
with sandbox.begin() as conn:
    conn.exec_driver_sql("INSERT INTO run_step VALUES ('d', 'r', %s, '', now(), '{}')",
                         (sys.argv[4],))
"""
KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from include.drill_sandbox import schema
migrated = schema.migrate_here
schema.migrate_here = lambda conn: (migrated(conn), os.kill(os.getpid(), signal.SIGKILL))
schema.open_sandbox(sys.argv[1], *sys.argv[2:4], datetime.now(UTC), lambda conn: None)
"""


def anybody(_conn: Connection) -> None:
    """Accept every run. The tests pass this function to `open_sandbox` as its check."""


def opened(conninfo: str, run: tuple[str, str] = RUN, at: datetime = NOW) -> Engine:
    return open_sandbox(conninfo, *run, at, anybody)


def dropped(conninfo: str, run: tuple[str, str] = RUN) -> bool:
    return schema.drop_sandbox(engine(conninfo), *run)


def a_step(conn: Connection, step: str, at: datetime = NOW) -> None:
    row = {"dag_id": "d", "run_id": "r", "step": step, "part": "", "recorded_at": at}
    conn.execute(run_step.insert().values(**row, record={}))


def steps(state: Engine) -> int:
    with state.connect() as conn:
        return conn.scalar(select(func.count()).select_from(run_step)) or 0


def test_drill_schema_has_the_same_tables_triggers_and_functions_as_the_live_schema(
    migrated_database: str,
) -> None:
    """These are the definitions of tables, keys, checks, indexes, triggers and functions."""
    state = opened(migrated_database)
    name = name_of(*RUN)
    live, mine = _definitions(migrated_database, "public"), _definitions(migrated_database, name)
    assert live
    assert any(line.startswith("trigger") for line in live)
    assert mine == live
    with state.connect() as conn:
        assert current_revision(conn) == newest_revision()


def _definitions(conninfo: str, schema: str) -> set[str]:
    """Return all definitions of a schema, without the schema's name."""
    query = """
    SELECT format('%%s %%s', relkind, relname) FROM pg_class
    WHERE relnamespace = to_regnamespace(%(schema)s)
    UNION ALL SELECT format('column %%s %%s %%s %%s %%s', attrelid::regclass, attname, attnotnull,
        format_type(atttypid, atttypmod), attidentity) FROM pg_attribute
    JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = to_regnamespace(%(schema)s)
        AND attnum > 0
    UNION ALL SELECT format('default %%s %%s %%s', adrelid::regclass, adnum,
        pg_get_expr(adbin, adrelid)) FROM pg_attrdef JOIN pg_class c ON c.oid = adrelid
    WHERE relnamespace = to_regnamespace(%(schema)s)
    UNION ALL SELECT format('constraint %%s %%s %%s', conrelid::regclass, conname,
        pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = to_regnamespace(%(schema)s)
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = %(schema)s
    UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger t
    JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = to_regnamespace(%(schema)s)
        AND NOT tgisinternal
    UNION ALL SELECT format('function %%s %%s %%s', proname, pg_get_function_arguments(oid), prosrc)
    FROM pg_proc WHERE pronamespace = to_regnamespace(%(schema)s)
    """
    with psycopg.connect(conninfo) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [schema])
        rows = connection.execute(query.encode(), {"schema": schema}).fetchall()
    return {line.replace(f"{schema}.", "") for (line,) in rows}


def test_creating_and_dropping_drill_schema_leaves_database_unchanged(
    migrated_database: str,
) -> None:
    """Outside the schema, all rows, objects, sequence numbers and comments are as before."""
    with engine(migrated_database).begin() as conn:
        a_step(conn, "live")
    before = snapshot(migrated_database)
    state = opened(migrated_database)
    with state.begin() as conn:
        a_step(conn, "drilled")
        conn.execute(partner_review.insert().values(partner="1", opened_at=NOW, opened_by="E1"))
    during = differences(before, snapshot(migrated_database))
    assert during
    name = name_of(*RUN)
    assert [difference for difference in during if name not in difference] == []
    assert dropped(migrated_database)
    assert differences(before, snapshot(migrated_database)) == {}
    assert not dropped(migrated_database)


def test_database_snapshots_differ_after_change_of_a_row_a_table_or_a_sequence_number(
    migrated_database: str,
) -> None:
    """Cases: a new row, a changed row, a used sequence number and a new table.

    Other tests compare such snapshots to show that nothing changed.
    """
    state = engine(migrated_database)
    first = snapshot(migrated_database)
    with state.begin() as conn:
        a_step(conn, "live")
    second = snapshot(migrated_database)
    assert differences(first, second) == {"public.run_step": 1}
    with state.begin() as conn:
        conn.execute(run_step.update().values(recorded_at=NOW + timedelta(seconds=1)))
    assert differences(second, snapshot(migrated_database)) == {"public.run_step": 0}
    with state.begin() as conn:
        conn.execute(run_step.update().values(recorded_at=NOW))
        conn.exec_driver_sql("SELECT nextval(pg_get_serial_sequence('partner_review', 'id'))")
        conn.exec_driver_sql("CREATE TABLE another (id integer)")
    third = differences(second, snapshot(migrated_database))
    assert {"sequence public.partner_review_id_seq 1", "r public.another"} <= set(third)


def test_sql_statement_of_a_drill_fails_if_its_table_exists_only_in_the_live_schema(
    migrated_database: str,
) -> None:
    """A drill's statement fails if its object exists only in the live state.

    It also fails after the drill has ended.
    """
    live = engine(migrated_database)
    with live.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE only_live (id integer)")
        conn.exec_driver_sql("CREATE FUNCTION live_only() RETURNS integer RETURN 1")
        a_step(conn, "live")
    state = opened(migrated_database)
    assert steps(state) == 0
    for _again in range(2):
        for statement in ("SELECT * FROM only_live", "SELECT live_only()"):
            with pytest.raises(ProgrammingError, match="does not exist"), state.connect() as conn:
                conn.exec_driver_sql(statement)
    with state.connect() as conn:
        conn.rollback()  # the setting belongs to the session, not to a transaction
        assert conn.scalar(text("SELECT current_schemas(false)")) == [name_of(*RUN)]
    dropped(migrated_database)
    with pytest.raises(ProgrammingError, match="does not exist"), state.begin() as conn:
        a_step(conn, "late")
    with pytest.raises(ProgrammingError, match="no schema"), state.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE late (id integer)")
    assert steps(live) == 1


def test_triggers_of_a_drill_schema_check_the_tables_of_that_schema_and_not_the_live_tables(
    migrated_database: str,
) -> None:
    """A trigger protects reviews that were decided from changes.

    If a review is decided in a drill, it is protected only in the drill's schema.
    """
    live, state = engine(migrated_database), opened(migrated_database)
    review: dict[str, Any] = {"partner": "1", "opened_at": NOW, "opened_by": "E1"}
    answer = {"review_id": 1, "question": "q", "answer": "yes", "note": ""}
    for database in (live, state):
        with database.begin() as conn:
            conn.execute(partner_review.insert().values(**review))
            conn.execute(partner_answer.insert().values(**answer))
    decided = {"decided_at": NOW, "decided_by": "E2", "passed": False, "reason": "r"}
    with state.begin() as conn:
        conn.execute(partner_review.update().values(**decided))
    changes = [
        partner_review.update().values(opened_by="E3"),
        partner_answer.update().values(answer="no"),
        text("TRUNCATE partner_answer"),
    ]
    for change in changes:
        with pytest.raises(IntegrityError, match="history"), state.begin() as conn:
            conn.execute(change)
        with live.begin() as conn:
            conn.execute(change)


def test_closing_a_live_finding_fails_if_its_required_event_exists_only_in_a_drill(
    migrated_database: str,
) -> None:
    """The trigger that protects open findings reads the events of its own schema."""
    live, state = engine(migrated_database), opened(migrated_database)
    for database in (live, state):
        with database.begin() as conn:
            conn.exec_driver_sql(
                "INSERT INTO finding (kind, reference, description, owner, opened_at, due_on)"
                " VALUES ('audit', 'r', '{}', 'o', now(), now())"
            )
    with state.begin() as conn:
        conn.exec_driver_sql(
            "INSERT INTO finding_event (finding_id, kind, by, at) VALUES (1, 'met', 'b', now())"
        )
    close = "UPDATE finding SET closed_at = now()"
    with pytest.raises(IntegrityError, match="stays"), live.begin() as conn:
        conn.exec_driver_sql(close)
    with state.begin() as conn:
        conn.exec_driver_sql(close)


def test_concurrent_drills_have_separate_schemas_and_end_independently(
    migrated_database: str,
) -> None:
    """If a drill ends, other drills continue with their own state."""
    database, other = opened(migrated_database), opened(migrated_database, OTHER)
    with database.begin() as conn:
        a_step(conn, "one")
    assert (steps(database), steps(other)) == (1, 0)
    assert dropped(migrated_database)
    assert steps(other) == 0
    assert schema.sandboxes(engine(migrated_database)) == [Sandbox(name_of(*OTHER), *OTHER, NOW)]
    with pytest.raises(ControlFailed, match="no longer exists"):
        find_sandbox(migrated_database, *RUN)


def test_concurrent_tasks_open_the_same_drill_schema(migrated_database: str) -> None:
    """Four processes start at once. A single process creates the schema, and all use it."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, migrated_database, *RUN, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    errors = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, errors
    assert steps(find_sandbox(migrated_database, *RUN)) == 4
    assert len(schema.sandboxes(engine(migrated_database))) == 1


def test_process_killed_during_creation_leaves_no_drill_schema(migrated_database: str) -> None:
    """The next attempt creates the schema, and does not have to wait."""
    before = snapshot(migrated_database)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, migrated_database, *RUN], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == -9
    assert differences(before, snapshot(migrated_database)) == {}
    assert steps(opened(migrated_database)) == 0


def test_drill_schema_is_not_created_if_the_check_of_live_tables_fails(
    migrated_database: str,
) -> None:
    """The check reads the live tables while a lock prevents that the drill ends."""

    def refuse(conn: Connection) -> None:
        assert conn.scalar(text("SELECT count(*) FROM evidence_ledger")) == 0  # the live ledger
        raise ControlFailed("sealed")

    before = snapshot(migrated_database)
    with pytest.raises(ControlFailed, match="sealed"):
        open_sandbox(migrated_database, *RUN, NOW, refuse)
    assert differences(before, snapshot(migrated_database)) == {}


def test_opening_or_dropping_a_drill_schema_fails_if_the_schema_does_not_belong_to_the_run(
    migrated_database: str,
) -> None:
    """A schema belongs to a run only if it has the right name and a comment that names the run."""
    live, name = engine(migrated_database), name_of(*RUN)
    comments = [
        None,
        "somebody's",
        "[]",
        '{"kind": "other"}',
        f'{{"kind": "{schema.KIND}", "dag_id": "d", "run_id": "r", "made_at": "yesterday"}}',
    ]
    with psycopg.connect(migrated_database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        for comment in comments:
            query = sql.SQL("COMMENT ON SCHEMA {} IS {}")
            admin.execute(query.format(sql.Identifier(name), sql.Literal(comment)))
            for use in (opened, dropped):
                with pytest.raises(ControlFailed, match="was not changed"):
                    use(migrated_database)
            assert schema.sandboxes(live) == []
        theirs = (
            f'{{"kind": "{schema.KIND}", "dag_id": "d", "run_id": "r",'
            f' "made_at": "{NOW.isoformat()}"}}'
        )
        admin.execute(query.format(sql.Identifier(name), sql.Literal(theirs)))
    with pytest.raises(ControlFailed, match="was not changed"):
        opened(migrated_database)
    for other in ("public", "tabletop_1", f"{name}; DROP SCHEMA public", name.upper()):
        with pytest.raises(ControlFailed, match="was not changed"):
            schema.drop(live, other)


def test_opening_drill_schema_raises_error_with_grant_statement_if_role_may_not_create_schemas(
    database: str, migrated_once: str
) -> None:
    del migrated_once
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE ROLE reader_of_state LOGIN PASSWORD 'x'")
        try:
            weak = psycopg.conninfo.make_conninfo(database, user="reader_of_state", password="x")
            with pytest.raises(UsageError, match="GRANT CREATE ON DATABASE"):
                opened(weak)
        finally:
            admin.execute("DROP ROLE reader_of_state")


def test_missing_migrations_are_applied_to_a_drill_schema_of_an_older_version(
    migrated_database: str,
) -> None:
    """The first task of the newer version applies the missing migrations to the drill's schema."""
    sandbox = Sandbox(name_of(*RUN), *RUN, NOW)
    state = engine(migrated_database, sandbox.name)
    with engine(migrated_database).begin() as conn:
        schema._make(conn, sandbox)
    assert steps(find_sandbox(migrated_database, *RUN)) == 0
    with state.connect() as conn:
        assert current_revision(conn) == newest_revision()


def test_drill_and_live_run_can_hold_locks_of_the_same_name_at_the_same_time(
    migrated_database: str,
) -> None:
    """A drill and live runs do not delay each other's deletions or backups."""
    live, state = engine(migrated_database), opened(migrated_database)
    with live.begin() as conn, state.begin() as drilled, state.begin() as again:
        for lock in StateLock:
            lock_for_transaction(conn, lock)
            drilled.execute(text("SET LOCAL lock_timeout = '2s'"))
            lock_for_transaction(drilled, lock)
        again.execute(text("SET LOCAL lock_timeout = '20ms'"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            lock_for_transaction(again, StateLock.HOLDS)
    with (
        hold_exclusive_lock(live, "x", "x"),
        hold_exclusive_lock(state, "x", "x"),
        pytest.raises(ServiceError, match="busy"),
        hold_exclusive_lock(state, "x", "x"),
    ):
        pass


def test_function_drills_without_steps_since_omits_drills_with_a_recent_step(
    migrated_database: str,
) -> None:
    """A drill with a recent step is not listed."""
    live = engine(migrated_database)
    opened(migrated_database)
    with opened(migrated_database, OTHER).begin() as conn:
        a_step(conn, "played", NOW + timedelta(days=9))
    early = NOW + timedelta(days=1)
    assert schema.drills_without_steps_since(live, NOW) == []
    assert schema.drills_without_steps_since(live, early) == [Sandbox(name_of(*RUN), *RUN, NOW)]
    assert len(schema.drills_without_steps_since(live, NOW + timedelta(days=10))) == 2
    assert schema.drop(live, name_of(*RUN))
    assert schema.drills_without_steps_since(live, early) == []


def test_dropping_a_drill_schema_raises_service_error_if_a_transaction_uses_it(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a timeout the attempt fails with an error, and the schema is still complete."""
    monkeypatch.setattr(schema, "_PATIENCE", "50ms")
    state = opened(migrated_database)
    with state.begin() as conn:
        a_step(conn, "busy")
        with pytest.raises(ServiceError, match="still uses it"):
            dropped(migrated_database)
    assert steps(state) == 1
    assert dropped(migrated_database)
