"""Test in which cases the command `restore` leaves the restored copy closed to other roles.

Its lock was lost, or the content of the copy does not match the manifest or the erasure ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select

from include.backup import restore as restoring
from include.backup.access import CLOSED
from include.cli import backup
from include.erasure.ledger import settle_batches
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.state.tables import erasure_batch
from tests.backup.support import rows, run
from tests.backup.test_restore_command import (
    BUYERS,
    COMMENT,
    CONNECT,
    PHONES,
    Restoring,
    erase,
    restored,
)
from tests.support.holders import NOW
from tests.support.registers import unguarded

__all__ = ["restored"]  # a fixture

ROLE = "seller_of_checks"
ACCESSIBLE = f"""
SELECT relname::text FROM pg_class
WHERE relacl::text LIKE '%{ROLE}%' OR relowner = '{ROLE}'::regrole
"""
END_LOCK_SESSION = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_locks
WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

DuringLoad = Callable[[Callable[[], object]], None]


@pytest.fixture
def during_load(monkeypatch: pytest.MonkeyPatch) -> DuringLoad:
    """Return a function that runs an action between the load and the count of rows."""

    def schedule(action: Callable[[], object]) -> None:
        count_rows = restoring.count_rows

        def act_and_count(*arguments: Any) -> dict[str, int]:
            action()
            return count_rows(*arguments)

        monkeypatch.setattr(restoring, "count_rows", act_and_count)

    return schedule


@pytest.fixture
def role(
    server: DatabaseAddress, source: DatabaseAddress, target: DatabaseAddress
) -> Iterator[str]:
    """Create a role that owns objects and has grants in the source and in the target."""
    run(server, f"CREATE ROLE {ROLE}")
    yield ROLE
    for address in (source, target):
        run(address, f"DROP OWNED BY {ROLE} CASCADE")
    run(server, f"DROP ROLE {ROLE}")


def test_restore_raises_service_error_and_leaves_copy_closed_if_its_lock_is_lost_during_load(
    restored: Restoring, during_load: DuringLoad, target: DatabaseAddress
) -> None:
    """As soon as the lock is lost, another restore may load rows into the target."""
    ended: list[tuple[object, ...]] = []
    during_load(lambda: ended.extend(rows(target, END_LOCK_SESSION)))
    with pytest.raises(ServiceError, match=r"keeps other restores out .* was lost"):
        restored()
    assert ended == [(True,)]
    assert len(rows(target, PHONES)) == 5
    assert rows(target, CONNECT) == [(False,)]
    assert rows(target, COMMENT) == [(CLOSED,)]


@pytest.mark.parametrize("into_existing", [False, True])
def test_restore_into_live_database_raises_usage_error_before_load(
    restored: Restoring,
    target: DatabaseAddress,
    monkeypatch: pytest.MonkeyPatch,
    into_existing: bool,
) -> None:
    """The live database keeps its rows and rights."""
    messages: list[str] = []
    monkeypatch.setattr(backup, "tell", messages.append)
    run(target, BUYERS)
    with pytest.raises(UsageError, match="is the live database"):
        restored(origin=target, into_existing=into_existing)
    assert messages == []
    assert len(rows(target, PHONES)) == 5
    assert rows(target, CONNECT) == [(True,)]


def test_restore_exits_with_1_and_leaves_copy_closed_if_rows_differ_from_manifest(
    restored: Restoring,
    during_load: DuringLoad,
    source: DatabaseAddress,
    target: DatabaseAddress,
    role: str,
) -> None:
    """A row is lost during the load.

    The exit code is 1, and no role gets a right or can connect.
    """
    shift = f"CREATE TABLE shift (id int); ALTER TABLE shift OWNER TO {role};"
    run(source, f"{BUYERS} {shift} GRANT SELECT ON buyer TO {role}")
    during_load(lambda: run(target, "DELETE FROM buyer WHERE id = 5"))
    report = restored(origin=source, owners=True, exit_code=1)
    assert report["matches_manifest"] is False
    assert rows(target, "SELECT count(*) FROM shift") == [(0,)]
    assert rows(target, ACCESSIBLE) == []
    assert rows(target, CONNECT) == [(False,)]


@pytest.mark.parametrize("incomplete_ledger", [False, True])
@pytest.mark.parametrize("lost", [1, 2])
def test_restore_raises_control_failed_error_if_erasure_ledger_loses_entries_during_load(
    restored: Restoring,
    during_load: DuringLoad,
    state: Engine,
    target: DatabaseAddress,
    incomplete_ledger: bool,
    lost: int,
) -> None:
    """The erasure ledger was complete when the restore began, and loses entries during the load.

    The option `--incomplete-ledger` accepts only entries that were missing when the restore began.
    """
    erase(state, "2")
    erase(state, "4")
    with state.begin() as conn:
        batches = list(conn.scalars(select(erasure_batch.c.id).order_by(erasure_batch.c.id)))
        settle_batches(conn, batches, NOW)

    def lose_entries() -> None:
        with state.begin() as conn, unguarded(conn, "erasure"):
            for batch in batches[:lost]:
                conn.exec_driver_sql("DELETE FROM erasure WHERE batch_id = %s", (batch,))

    during_load(lose_entries)
    with pytest.raises(ControlFailed, match=f"lost {lost} entries"):
        restored(incomplete_ledger=incomplete_ledger)
    assert len(rows(target, PHONES)) == 5
    assert rows(target, CONNECT) == [(False,)]
