"""One consistent view: what is locked, who may read, what disappears, how fresh it is."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import errors

from include.backup import snapshot as module
from include.backup.snapshot import Clock, Snapshot, open_snapshot
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import ServiceError, UsageError
from tests.backup.support import rows, run


@pytest.fixture
def reader(server: DatabaseAddress, source: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """A role without any privilege, as it logs in to ``source``."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    run(server, f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield DatabaseAddress({**source.parameters, "user": name}, "pw")
    run(source, f"DROP OWNED BY {name}")
    run(server, f"DROP ROLE {name}")


def test_counts_are_those_of_the_snapshot(source: DatabaseAddress):
    """Rows that come, go or change while it is open do not matter."""
    run(source, "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 10)")
    with open_snapshot(source) as snapshot:
        run(source, "INSERT INTO t VALUES (11); DELETE FROM t WHERE id < 5; CREATE TABLE u ()")
        assert snapshot.count("public", "t") == 10
        with source.connect() as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot.name}'")
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (10,)
    assert rows(source, "SELECT count(*) FROM t") == [(7,)]


def test_snapshot_refuses_to_write(source: DatabaseAddress) -> None:
    """A backup's role may own the tables, and nothing of a backup changes a row."""
    run(source, "CREATE TABLE t (id int)")
    with open_snapshot(source) as snapshot, pytest.raises(errors.ReadOnlySqlTransaction):
        snapshot.connection.execute("INSERT INTO t VALUES (1)")


def test_it_says_when_and_where_it_was_taken(source: DatabaseAddress):
    """Server's time, WAL position, version and timezone; a second one is later."""
    with open_snapshot(source) as first, open_snapshot(source) as second:
        assert first.taken_at <= second.taken_at
        assert "/" in first.lsn
        assert first.server_version.startswith("18")
        assert first.timezone == "UTC"
        assert first.name != second.name


def test_a_table_cannot_be_dropped_or_rewritten_while_it_is_open(source: DatabaseAddress):
    """As with pg_dump alone; writers are not held up."""
    run(source, "CREATE TABLE t (id int); CREATE TABLE p (id int) PARTITION BY LIST (id)")
    run(source, "CREATE TABLE p1 PARTITION OF p DEFAULT")
    with open_snapshot(source), source.connect() as conn:
        conn.execute("SET lock_timeout = '100ms'")
        conn.commit()
        for statement in ("DROP TABLE t", "TRUNCATE t", "DROP TABLE p1", "VACUUM FULL t"):
            with pytest.raises((errors.LockNotAvailable, errors.ActiveSqlTransaction)):
                conn.execute(statement)
            conn.rollback()
        conn.execute("INSERT INTO t VALUES (1)")


@pytest.mark.parametrize("dropped", ["DROP TABLE gone.t", "DROP SCHEMA gone CASCADE"])
def test_a_table_that_disappears_while_it_is_listed_makes_it_look_again(
    source: DatabaseAddress, dropped: str
):
    """Seen in the list, gone when it is to be locked: the second look succeeds."""
    run(source, "CREATE SCHEMA gone; CREATE TABLE gone.t (); CREATE TABLE kept ()")
    migration = source.connect()
    migration.execute(dropped)
    finish = threading.Timer(0.5, migration.commit)
    finish.start()
    with open_snapshot(source) as snapshot:
        assert snapshot.count("public", "kept") == 0
        with pytest.raises((errors.UndefinedTable, errors.InvalidSchemaName)):
            snapshot.count("gone", "t")
    finish.join()
    migration.close()


def test_tables_that_keep_disappearing_are_an_error(
    source: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
):
    """Not for ever: after some attempts a migration is said to run."""
    ghost = "SELECT 'public', 'ghost'"
    monkeypatch.setattr(module, "ALL_TABLES", ghost)
    with pytest.raises(ServiceError, match="keep disappearing"), open_snapshot(source):
        pass


def test_a_table_that_stays_locked_is_said(
    source: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
):
    """After a while, with where to look."""
    monkeypatch.setattr(module, "LOCK_TIMEOUT", "200ms")
    run(source, "CREATE TABLE t ()")
    with source.connect() as other:
        other.execute("LOCK TABLE t")
        began = time.monotonic()
        with pytest.raises(ServiceError, match="stays locked"), open_snapshot(source):
            pass
        assert time.monotonic() - began < 5


def test_a_role_that_may_not_read_everything_is_told_what_to_grant(
    source: DatabaseAddress, reader: DatabaseAddress
):
    """A table, a schema; with pg_read_all_data it is enough."""
    run(source, "CREATE TABLE t (); CREATE SCHEMA s; CREATE TABLE s.t ()")
    with (
        pytest.raises(UsageError, match=r"permission denied.*pg_read_all_data"),
        open_snapshot(reader),
    ):
        pass
    run(source, f"GRANT SELECT ON t TO {reader.parameters['user']}")
    with pytest.raises(UsageError, match="permission denied for schema s"), open_snapshot(reader):
        pass
    run(source, f"GRANT pg_read_all_data TO {reader.parameters['user']}")
    with open_snapshot(reader) as snapshot:
        assert snapshot.count("s", "t") == 0


def test_rows_that_a_policy_hides_are_an_error(source: DatabaseAddress, reader: DatabaseAddress):
    """A backup of the visible rows would look complete."""
    user = reader.parameters["user"]
    run(source, f"CREATE TABLE t (id int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
                f"CREATE POLICY few ON t USING (id > 1); INSERT INTO t VALUES (1), (2); "
                f"GRANT pg_read_all_data TO {user}")  # fmt: skip
    with (
        pytest.raises(UsageError, match="hides rows from the role, for example rows of t"),
        open_snapshot(reader),
    ):
        pass
    run(source, f"ALTER ROLE {user} BYPASSRLS")
    with open_snapshot(reader) as snapshot:
        assert snapshot.count("public", "t") == 2


def test_a_server_that_goes_away_is_unavailable(source: DatabaseAddress, server: DatabaseAddress):
    """One line that says so."""
    others = f"FROM pg_stat_activity WHERE datname = '{source.name}'"

    def lose(snapshot: Snapshot) -> None:
        run(server, f"SELECT pg_terminate_backend(pid, 5000) {others}")
        snapshot.count("pg_catalog", "pg_class")

    with pytest.raises(DatabaseUnavailable, match="was lost"), open_snapshot(source) as snapshot:
        lose(snapshot)


CLOCKS = """
CREATE TABLE t (at timestamptz, local timestamp, day date, n int, flag bool, word text, j json);
INSERT INTO t
VALUES ('2026-11-24 10:00+08', '2026-11-24 10:00', '2026-11-24', 5, true, 'wörd', '1');
CREATE TABLE empty (at timestamptz);
CREATE TABLE forever (at timestamptz); INSERT INTO forever VALUES ('infinity');
CREATE SCHEMA "Odd ""s"; CREATE TABLE "Odd ""s"."客 户" ("At ""x" date);
INSERT INTO "Odd ""s"."客 户" VALUES ('2026-11-23'), ('2026-11-22'), (NULL);
"""


def test_the_newest_moment_of_each_clock(source: DatabaseAddress):
    """Moments, local times in the session's timezone, days, odd names, no rows at all."""
    run(source, CLOCKS)
    with open_snapshot(source) as snapshot:
        found = snapshot.newest(
            [
                Clock("t", "public", "t", "at"),
                Clock("t", "public", "t", "local"),
                Clock("t", "public", "t", "day"),
                Clock("odd", 'Odd "s', "客 户", 'At "x'),
                Clock("empty", "public", "empty", "at"),
            ]
        )
    assert [one.moment for one in found] == [
        datetime(2026, 11, 24, 2, tzinfo=UTC),
        datetime(2026, 11, 24, 10, tzinfo=UTC),
        datetime(2026, 11, 24, tzinfo=UTC),
        datetime(2026, 11, 23, tzinfo=UTC),
        None,
    ]
    assert [(one.collection, one.field) for one in found][3] == ("odd", 'At "x')


@pytest.mark.parametrize(
    ("table", "field"),
    [("t", "nothing"), ("nowhere", "at"), ("t", "n"), ("t", "flag"), ("t", "word"), ("t", "j"),
     ("forever", "at")],
)  # fmt: skip
def test_a_clock_that_is_none_is_named_without_its_value(
    new_database: Callable[..., DatabaseAddress], source: DatabaseAddress, table: str, field: str
):
    """The data map's mistake, with where to correct it."""
    run(source, CLOCKS)
    with (
        pytest.raises(UsageError, match=f"newest record coll.{field} cannot be read") as error,
        open_snapshot(source) as snapshot,
    ):
        snapshot.newest([Clock("coll", "public", table, field)])
    assert "wörd" not in str(error.value)
