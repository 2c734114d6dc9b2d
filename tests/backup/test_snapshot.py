"""Test consistent snapshots: locks, privileges, dropped tables and newest values."""

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
from include.backup.snapshot import NewestRecordColumn, Snapshot, open_snapshot
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import ServiceError, UsageError
from tests.backup.support import rows, run


@pytest.fixture
def reader(server: DatabaseAddress, source: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """Return a login of ``source`` with a role that has no privileges."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    run(server, f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield DatabaseAddress({**source.parameters, "user": name}, "pw")
    run(source, f"DROP OWNED BY {name}")
    run(server, f"DROP ROLE {name}")


def test_snapshot_row_counts_ignore_later_changes(source: DatabaseAddress):
    """Later inserts, deletes and updates do not affect the counts."""
    run(source, "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 10)")
    with open_snapshot(source) as snapshot:
        run(source, "INSERT INTO t VALUES (11); DELETE FROM t WHERE id < 5; CREATE TABLE u ()")
        assert snapshot.count("public", "t") == 10
        with source.connect() as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot.name}'")
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (10,)
    assert rows(source, "SELECT count(*) FROM t") == [(7,)]


def test_write_in_snapshot_transaction_raises_read_only_error(source: DatabaseAddress) -> None:
    """The role of a backup may own the tables, but a backup must not change rows."""
    run(source, "CREATE TABLE t (id int)")
    with open_snapshot(source) as snapshot, pytest.raises(errors.ReadOnlySqlTransaction):
        snapshot.connection.execute("INSERT INTO t VALUES (1)")


def test_snapshot_has_time_wal_position_version_and_timezone(source: DatabaseAddress):
    """A second snapshot has a later time."""
    with open_snapshot(source) as first, open_snapshot(source) as second:
        assert first.taken_at <= second.taken_at
        assert "/" in first.lsn
        assert first.server_version.startswith("18")
        assert first.timezone == "UTC"
        assert first.name != second.name


def test_tables_cannot_be_dropped_or_rewritten_during_snapshot(source: DatabaseAddress):
    """A running pg_dump would also prevent this. Writing to the tables is not blocked."""
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
def test_snapshot_omits_table_that_is_dropped_before_it_is_locked(
    source: DatabaseAddress, dropped: str
):
    """The table is dropped after it was listed and before it is locked.

    The second attempt succeeds.
    """
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


def test_snapshot_raises_service_error_if_tables_disappear_at_each_attempt(
    source: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
):
    """After several attempts, the error names a running migration as the likely cause."""
    ghost = "SELECT 'public', 'ghost'"
    monkeypatch.setattr(module, "ALL_TABLES", ghost)
    with pytest.raises(ServiceError, match="keep disappearing"), open_snapshot(source):
        pass


def test_snapshot_raises_service_error_if_a_table_stays_locked(
    source: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
):
    """The error names the view in which to search for the lock."""
    monkeypatch.setattr(module, "LOCK_TIMEOUT", "200ms")
    run(source, "CREATE TABLE t ()")
    with source.connect() as other:
        other.execute("LOCK TABLE t")
        began = time.monotonic()
        with (
            pytest.raises(ServiceError, match=r"keeps a table of .* locked"),
            open_snapshot(source),
        ):
            pass
        assert time.monotonic() - began < 5


def test_snapshot_raises_usage_error_with_missing_grants_if_role_may_not_read_a_table(
    source: DatabaseAddress, reader: DatabaseAddress
):
    """Rights on a table or on its schema are missing. The role pg_read_all_data is sufficient."""
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


def test_snapshot_fails_if_row_level_security_hides_rows(
    source: DatabaseAddress, reader: DatabaseAddress
):
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


def test_snapshot_raises_database_unavailable_if_connection_is_lost(
    source: DatabaseAddress, server: DatabaseAddress
):
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


def test_newest_returns_the_latest_value_of_each_date_column_and_none_for_an_empty_table(
    source: DatabaseAddress,
):
    """Cases: timestamps, local times, dates, unusual names, and empty tables."""
    run(source, CLOCKS)
    with open_snapshot(source) as snapshot:
        newest = snapshot.newest(
            [
                NewestRecordColumn("t", "public", "t", "at"),
                NewestRecordColumn("t", "public", "t", "local"),
                NewestRecordColumn("t", "public", "t", "day"),
                NewestRecordColumn("odd", 'Odd "s', "客 户", 'At "x'),
                NewestRecordColumn("empty", "public", "empty", "at"),
            ]
        )
    assert [value.moment for value in newest] == [
        datetime(2026, 11, 24, 2, tzinfo=UTC),
        datetime(2026, 11, 24, 10, tzinfo=UTC),
        datetime(2026, 11, 24, tzinfo=UTC),
        datetime(2026, 11, 23, tzinfo=UTC),
        None,
    ]
    assert [(value.collection, value.field) for value in newest][3] == ("odd", 'At "x')


@pytest.mark.parametrize(
    ("table", "field"),
    [("t", "nothing"), ("nowhere", "at"), ("t", "n"), ("t", "flag"), ("t", "word"), ("t", "j"),
     ("forever", "at")],
)  # fmt: skip
def test_error_for_invalid_date_column_contains_the_column_but_no_value(
    new_database: Callable[..., DatabaseAddress], source: DatabaseAddress, table: str, field: str
):
    """The message names the entry of the data map that has to be corrected."""
    run(source, CLOCKS)
    with (
        pytest.raises(UsageError, match=f"newest record coll.{field} cannot be read") as error,
        open_snapshot(source) as snapshot,
    ):
        snapshot.newest([NewestRecordColumn("coll", "public", table, field)])
    assert "wörd" not in str(error.value)
