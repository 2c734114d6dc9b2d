"""Tests of backups and drills with database servers that restart, are full or refuse the login.

Other tests lock or change tables during a backup.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from include.backup import drill, snapshot
from include.backup.compare import ForeignKeys, check_foreign_keys
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from tests.faults.conftest import FILL, new_database
from tests.faults.support import Rig, StoreLocation, crash_and_restart, query, running, until

pytestmark = pytest.mark.fault


@dataclass
class Once:
    """A progress callback of a dump that runs an action once, after a given number of bytes.

    Attributes:
        action: function to call.
        after: number of bytes after which the action runs.
        happened: whether the action has run.
    """

    action: Any
    after: int = 0
    happened: bool = False

    def __call__(self, _: str, dumped: int = 0) -> None:
        if not self.happened and dumped >= self.after:
            self.happened = True
            self.action()


@pytest.fixture(scope="session")
def fragile_courier(fragile: EmbeddedPostgres) -> str:
    return new_database(fragile, FILL.format(parts=40, waybills=4_000))


def test_backup_fails_if_database_restarts_during_dump(
    rig: Rig, fragile: EmbeddedPostgres, fragile_courier: str, location: StoreLocation
) -> None:
    """The error is raised within 30 s, the store stays empty, and the next backup succeeds."""
    broken = replace(rig, source=fragile_courier)
    restart = Once(lambda: crash_and_restart(fragile), after=5_000_000)
    begun = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        broken.back_up(location.open(), progress=restart)
    assert restart.happened
    assert time.monotonic() - begun < 30
    assert "The connection to fault_" in caught.value.message
    assert "was lost" in caught.value.message
    assert "Nothing was recorded as done." in caught.value.action
    assert list(location.open().list()) == []
    broken.back_up(location.open())
    assert len(broken.points(location.open())) == 1


def test_restore_drill_fails_if_server_restarts_during_restore(
    rig: Rig, fragile: EmbeddedPostgres, directory: StoreLocation
) -> None:
    """The next drill drops the scratch databases of both drills."""
    store = directory.open()
    rig.back_up(store)
    server = fragile.conninfo("postgres")

    def crash_while_loading() -> None:
        until(lambda: running(server, "COPY public.waybill%", "parcelseal_drill_%"))
        crash_and_restart(fragile)

    crash = threading.Thread(target=crash_while_loading)
    crash.start()
    with pytest.raises(ServiceError, match="parcelseal_drill_"):
        rig.drill(store, server=server)
    crash.join()
    assert rig.drill(store, server=server).findings == []
    assert rig.scratch_names(server) == rig.owed_scratch() == []


def test_restore_drill_on_full_disk_fails_and_drops_scratch_database(
    rig: Rig, cramped: EmbeddedPostgres, directory: StoreLocation
) -> None:
    """The error names the full disk."""
    store = directory.open()
    rig.back_up(store)
    server = cramped.conninfo("postgres")
    with pytest.raises(ServiceError, match="disk of the server") as caught:
        rig.drill(store, server=server)
    assert "parcelseal_drill_" in caught.value.message
    assert "Free space" in caught.value.action
    assert "客户" not in str(caught.value)
    assert rig.scratch_names(server) == rig.owed_scratch() == []


def test_backup_with_wrong_password_fails_without_printing_it(
    small: Rig, directory: StoreLocation
) -> None:
    """The error message states what to check, and the store stays empty."""
    wrong = replace(small.address, password="never-in-messages")
    with pytest.raises(UsageError, match="password authentication failed") as caught:
        small.back_up(directory.open(), source=wrong)
    assert "never-in-messages" not in str(caught.value)
    assert "user, password" in caught.value.action
    assert list(directory.open().list()) == []


def test_backup_of_missing_database_fails_with_error_that_contains_the_database_name(
    small: Rig, directory: StoreLocation
) -> None:
    with pytest.raises(UsageError, match="fault_none"):
        small.back_up(directory.open(), source=small.address.with_database("fault_none"))


def test_backup_from_unreachable_server_fails_with_error_that_contains_its_address(
    small: Rig, directory: StoreLocation
) -> None:
    """The error message states what to check."""
    parameters = {**small.address.parameters, "host": "/nowhere"}
    with pytest.raises(ServiceError, match="/nowhere") as caught:
        small.back_up(directory.open(), source=replace(small.address, parameters=parameters))
    assert "server runs" in caught.value.action


def test_backup_fails_if_a_table_stays_locked(
    small: Rig, directory: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration has locked the table. A backup without this table would be incomplete."""
    monkeypatch.setattr(snapshot, "LOCK_TIMEOUT", "500ms")
    with psycopg.connect(small.source) as migration:
        migration.execute("LOCK TABLE waybill IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ServiceError, match="Another session keeps a table"):
            small.back_up(directory.open())
        migration.rollback()
    assert list(directory.open().list()) == []
    small.back_up(directory.open())


def waiting_for_a_lock(rig: Rig) -> bool:
    """Return whether a session of the mapped database waits for a lock."""
    return bool(
        query(
            rig.server,
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = %(name)s",
            {"name": rig.address.name},
        )
    )


class Background:
    """A thread that runs an SQL statement, for statements that may wait until the dump ends."""

    def __init__(self, rig: Rig, statement: str) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(rig, statement))
        self._thread.start()

    def _run(self, rig: Rig, statement: str) -> None:
        try:
            query(rig.source, statement)
        except psycopg.Error as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self.error is None


def test_backup_omits_rows_added_after_its_snapshot(small: Rig, directory: StoreLocation) -> None:
    """Rows added after the snapshot are not in the backup.

    A table dropped afterwards is complete.
    """
    store = directory.open()
    query(small.source, "CREATE TABLE doomed AS SELECT generate_series(1, 100) n")
    dropping: list[Background] = []

    def change() -> None:
        query(
            small.source, "INSERT INTO waybill SELECT 1000 + n, 1, '' FROM generate_series(1, 9) n"
        )
        dropping.append(Background(small, "DROP TABLE doomed"))
        until(lambda: waiting_for_a_lock(small))

    _, manifest = small.back_up(store, progress=Once(change))
    dropping[0].join()
    assert query(small.source, "SELECT count(*) FROM waybill") == [59]
    assert query(small.source, "SELECT to_regclass('doomed')") == [None]
    rows = {table.name: table.rows for table in manifest.tables}
    assert rows == {"customer": 2000, "waybill": 50, "doomed": 100}
    record = small.drill(store)
    assert record.findings == []
    assert record.data["compared"] == 3


def test_backup_omits_table_that_is_dropped_before_the_backup_locks_it(
    small: Rig, directory: StoreLocation
) -> None:
    """If a listed table does not exist any more, the backup lists the tables again."""
    query(small.source, "CREATE TABLE doomed AS SELECT generate_series(1, 100) n")
    with psycopg.connect(small.source) as migration:
        migration.execute("DROP TABLE doomed")

        def commit_when_waited_for() -> None:
            until(lambda: waiting_for_a_lock(small))
            migration.commit()

        commit = threading.Thread(target=commit_when_waited_for)
        commit.start()
        _, manifest = small.back_up(directory.open())
        commit.join()
    assert {table.name for table in manifest.tables} == {"customer", "waybill"}
    assert small.drill(directory.open()).findings == []


class DropJustBefore(DatabaseAddress):
    """The address of a database in which a table is dropped when pg_dump starts."""

    dropping: Background

    def environment(self) -> dict[str, str]:
        if not hasattr(type(self), "dropping"):
            rig = type(self).rig  # type: ignore[attr-defined] # given by the test
            type(self).dropping = Background(rig, "DROP TABLE doomed")
            until(lambda: waiting_for_a_lock(rig))
        return super().environment()


def test_backup_fails_within_seconds_if_a_waiting_drop_table_blocks_pg_dump(
    small: Rig, directory: StoreLocation
) -> None:
    """Otherwise pg_dump would wait for DROP TABLE, and DROP TABLE would wait for the backup."""
    query(small.source, "CREATE TABLE doomed AS SELECT generate_series(1, 100) n")
    DropJustBefore.rig = small  # type: ignore[attr-defined] # see there
    begun = time.monotonic()
    with pytest.raises(ServiceError, match="when the dump began"):
        small.back_up(
            directory.open(),
            source=DropJustBefore(small.address.parameters, small.address.password),
        )
    assert time.monotonic() - begun < 15
    DropJustBefore.dropping.join()
    assert list(directory.open().list()) == []
    _, manifest = small.back_up(directory.open())
    assert {table.name for table in manifest.tables} == {"customer", "waybill"}


def test_backup_fails_if_database_restarts_while_locking_tables(
    rig: Rig, fragile: EmbeddedPostgres, fragile_courier: str, directory: StoreLocation
) -> None:
    """A crash of the server during the first statements is reported as a `ServiceError`."""
    broken = replace(rig, source=fragile_courier)

    def crash_when_waited_for() -> None:
        until(lambda: waiting_for_a_lock(replace(broken, server=fragile_courier)))
        crash_and_restart(fragile)

    with closing(psycopg.connect(fragile_courier)) as migration:
        migration.execute("LOCK TABLE waybill IN ACCESS EXCLUSIVE MODE")
        crash = threading.Thread(target=crash_when_waited_for)
        crash.start()
        with pytest.raises(ServiceError, match=r"The connection to fault_.* was lost"):
            broken.back_up(directory.open())
        crash.join()
    assert list(directory.open().list()) == []


def test_restore_drill_fails_if_server_restarts_while_foreign_keys_are_checked(
    rig: Rig, fragile: EmbeddedPostgres, directory: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drill reports that the connection to the scratch database was lost."""
    store = directory.open()
    rig.back_up(store)
    server = fragile.conninfo("postgres")
    crashed = threading.Event()
    check = check_foreign_keys

    def crash_while_checking() -> None:
        until(lambda: running(server, "SELECT count(*) FROM%EXISTS%", "parcelseal_drill_%"))
        crash_and_restart(fragile)
        crashed.set()

    crash = threading.Thread(target=crash_while_checking)

    def check_behind_a_lock(connection: psycopg.Connection) -> ForeignKeys:
        # closing(), because a commit would fail after the crash
        with closing(psycopg.connect(fragile.conninfo(rig.scratch_names(server)[0]))) as other:
            other.execute("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE")
            crash.start()
            return check(connection)

    monkeypatch.setattr(drill, "check_foreign_keys", check_behind_a_lock)
    with pytest.raises(ServiceError, match=r"The connection to parcelseal_drill_.* was lost"):
        rig.drill(store, server=server)
    crash.join()
    assert crashed.is_set()
