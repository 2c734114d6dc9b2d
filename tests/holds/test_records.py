"""Tests of legal holds on records: which records they keep, and their lock against deletions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Engine

from include.holds.records import HoldGuard, RecordHolds, load_record_holds
from include.holds.registry import Hold, HoldKind, release
from include.services.errors import ServiceError
from include.state.connect import StateLock, engine
from include.state.migrate import migrate
from tests.holds.support import CLOCK, add_hold

SHORT = timedelta(milliseconds=100)
LOCKS = f"""
SELECT count(*) FILTER (WHERE granted), count(*) FILTER (WHERE NOT granted) FROM pg_locks
WHERE locktype = 'advisory' AND objid::bigint = {int(StateLock.HOLDS) & 0xFFFFFFFF}
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def watch(holds_conninfo: str) -> Iterator[psycopg.Connection]:
    """A database session that observes the locks of other sessions."""
    with psycopg.connect(holds_conninfo, autocommit=True) as conn:
        yield conn


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def commit_hold(
    state: Engine, kind: HoldKind, value: str, patience: timedelta | None = None
) -> Hold:
    with state.begin() as conn:
        return add_hold(conn, kind, value, **({"patience": patience} if patience else {}))


def locks(watch: psycopg.Connection) -> tuple[int, int]:
    """Return how many sessions have the lock against deletions, and how many wait for it."""
    row = watch.execute(LOCKS).fetchone()
    assert row is not None
    return row[0], row[1]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def kill_lock_owner(watch: psycopg.Connection) -> None:
    watch.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND granted AND mode = 'ShareLock' AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def record_holds(state: Engine, database: str) -> RecordHolds:
    with state.connect() as conn:
        return load_record_holds(conn, database)


def test_hold_guard_reads_legal_holds_again_only_after_one_was_placed_or_released(
    state: Engine,
) -> None:
    """Reading many holds in each batch would take longer than the batch."""
    with HoldGuard(state, "courier") as guard:
        holds_of_batches = []
        for change in (None, "place", None, "release"):
            if change == "place":
                placed = commit_hold(state, HoldKind.SUBJECT, "7")
            if change == "release":
                with state.begin() as conn:
                    release(conn, CLOCK, placed.id, released_by="legal", reason="settled")
            with guard.batch() as holds:
                holds_of_batches.append(holds)
    before, placed_now, unchanged, released = holds_of_batches
    assert "7" in placed_now.values[HoldKind.SUBJECT]
    assert unchanged is placed_now
    assert "7" not in before.values[HoldKind.SUBJECT]
    assert "7" not in released.values[HoldKind.SUBJECT]


def test_hold_on_database_applies_to_records_of_that_database_only(state: Engine) -> None:
    """A hold on a restore point keeps no record."""
    hold = commit_hold(state, HoldKind.DATABASE, "courier")
    commit_hold(state, HoldKind.RESTORE_POINT, "courier/20261124T020000Z")
    assert record_holds(state, "courier").everything == (hold,)
    assert record_holds(state, "courier").fingerprint == (hold.id,)
    assert record_holds(state, "partners") == RecordHolds(
        (), {}, {HoldKind.SUBJECT: {}, HoldKind.WAYBILL: {}, HoldKind.CASE: {}}
    )


def test_hold_on_record_class_with_database_prefix_applies_only_to_that_database(
    state: Engine,
) -> None:
    here = commit_hold(state, HoldKind.CLASS, "courier/waybill")
    everywhere = commit_hold(state, HoldKind.CLASS, "waybill")
    assert record_holds(state, "courier").classes == {"waybill": (here, everywhere)}
    assert record_holds(state, "partners").classes == {"waybill": (everywhere,)}


@pytest.mark.parametrize("kind", [HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE])
def test_hold_on_key_with_database_prefix_applies_only_to_that_database(
    state: Engine, kind: HoldKind
) -> None:
    here = commit_hold(state, kind, "courier/12")
    everywhere = commit_hold(state, kind, "12")
    assert record_holds(state, "courier").values[kind]["12"] == (here, everywhere)
    assert record_holds(state, "partners").values[kind]["12"] == (everywhere,)
    others = {HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE} - {kind}
    assert all(record_holds(state, "courier").values[other] == {} for other in others)


def test_hold_on_key_with_slash_applies_to_whole_key_and_to_part_after_database_name(
    state: Engine,
) -> None:
    """The text before the slash may belong to the key instead of being the name of a database."""
    hold = commit_hold(state, HoldKind.CASE, "2026/001")
    assert record_holds(state, "courier").values[HoldKind.CASE] == {"2026/001": (hold,)}
    assert record_holds(state, "2026").values[HoldKind.CASE] == {
        "2026/001": (hold,),
        "001": (hold,),
    }
    assert record_holds(state, "2026").fingerprint == (hold.id,)


def test_fingerprint_of_holds_changes_if_hold_is_placed_or_released(state: Engine) -> None:
    first = commit_hold(state, HoldKind.SUBJECT, "12")
    second = commit_hold(state, HoldKind.CLASS, "waybill")
    assert record_holds(state, "courier").fingerprint == (first.id, second.id)
    with state.begin() as conn:
        release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert record_holds(state, "courier").fingerprint == (second.id,)


def test_legal_hold_placed_during_deletion_batch_waits_for_end_and_applies_to_next_batch(
    state: Engine, watch: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """The next batch waits for the hold, so a run of many batches cannot delay the hold forever."""
    with HoldGuard(state, "courier") as guard, state.connect() as conn:
        with guard.batch() as before:
            assert before.everything == ()
            placing = threads.submit(add_hold, conn, HoldKind.DATABASE, "courier")
            wait_until(lambda: locks(watch) == (1, 1))
            assert not placing.done()
            guard.confirm()
        hold = placing.result(20)  # placed, not yet committed
        batch: Future[tuple[Hold, ...]] = threads.submit(database_holds_in_batch, guard)
        wait_until(lambda: locks(watch) == (1, 1))
        assert not batch.done()
        conn.commit()
        assert batch.result(20) == (hold,)


def database_holds_in_batch(guard: HoldGuard) -> tuple[Hold, ...]:
    with guard.batch() as holds:
        return holds.everything


def test_deletion_batch_that_starts_while_a_legal_hold_waits_applies_this_hold(
    state: Engine, watch: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """A later shared lock does not overtake the waiting exclusive lock of the hold."""
    with HoldGuard(state, "courier") as guard, HoldGuard(state, "courier") as other:
        with guard.batch():
            placing = threads.submit(commit_hold, state, HoldKind.DATABASE, "courier")
            wait_until(lambda: locks(watch) == (1, 1))
            later = threads.submit(database_holds_in_batch, other)
            wait_until(lambda: locks(watch) == (1, 2))
        assert later.result(20) == (placing.result(20),)


def test_deletion_batches_of_two_databases_do_not_wait_for_each_other(state: Engine) -> None:
    with (
        HoldGuard(state, "courier") as courier,
        HoldGuard(state, "partners", SHORT) as partners,
        courier.batch(),
        partners.batch() as holds,
    ):
        assert holds.fingerprint == ()


def test_batch_raises_service_error_and_hold_is_placed_if_session_of_batch_is_killed(
    state: Engine, watch: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """The guard raises an error in `confirm`, at the end of the batch, and for later batches."""

    def kill_during_batch() -> None:
        with guard.batch():
            placing = threads.submit(commit_hold, state, HoldKind.DATABASE, "courier")
            wait_until(lambda: locks(watch) == (1, 1))
            kill_lock_owner(watch)
            assert placing.result(20).released_at is None
            with pytest.raises(ServiceError, match="was lost"):
                guard.confirm()

    with HoldGuard(state, "courier") as guard:
        for use_guard in (kill_during_batch, lambda: database_holds_in_batch(guard)):
            with pytest.raises(ServiceError, match="was lost"):
                use_guard()
    with (
        HoldGuard(state, "courier") as guard,
        pytest.raises(ServiceError, match="was lost"),
        guard.batch(),
    ):
        kill_lock_owner(watch)


def test_confirm_raises_service_error_if_database_session_lost_its_lock(state: Engine) -> None:
    """A connection pooler may switch to another session, which does not have the lock."""

    def lose_lock() -> None:
        with guard.batch():
            guard.confirm()
            guard._session.exec_driver_sql("SELECT pg_advisory_unlock_all()")
            with pytest.raises(ServiceError, match="was lost"):
                guard.confirm()

    with HoldGuard(state, "courier") as guard, pytest.raises(ServiceError, match="was lost"):
        lose_lock()


def test_error_during_batch_releases_lock_and_is_raised_again(
    state: Engine, watch: psycopg.Connection
) -> None:
    """The guard can run another batch afterwards. A lost session does not hide the error."""

    def kill_and_fail() -> None:
        with guard.batch():
            kill_lock_owner(watch)
            raise KeyError("work")

    with HoldGuard(state, "courier") as guard:
        with pytest.raises(KeyError), guard.batch():
            raise KeyError("work")
        assert locks(watch) == (0, 0)
        assert database_holds_in_batch(guard) == ()
        with pytest.raises(KeyError):
            kill_and_fail()


def test_legal_hold_and_deletion_batch_raise_service_error_if_wait_for_lock_times_out(
    state: Engine,
) -> None:
    """Both errors name the next action. No hold was placed and no record was deleted."""
    with HoldGuard(state, "courier", SHORT) as guard:
        with guard.batch(), pytest.raises(ServiceError, match="not placed") as refused:
            commit_hold(state, HoldKind.DATABASE, "courier", SHORT)
        assert "enforce_retention" in refused.value.action
        with state.begin() as conn:
            add_hold(conn, HoldKind.DATABASE, "courier")
            with pytest.raises(ServiceError, match="Nothing was deleted") as refused, guard.batch():
                raise AssertionError("the batch began beside a hold that is being placed")
    assert "hold add" in refused.value.action


def test_deletion_batch_keeps_its_lock_if_server_has_short_session_timeouts(database: str) -> None:
    """The session with the lock is idle while records of the mapped database are deleted."""
    state = engine(database)
    migrate(state)
    with psycopg.connect(database, autocommit=True) as admin:
        for limit in ("idle_session_timeout", "statement_timeout", "lock_timeout"):
            admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET {limit} = 50'.encode())
    with HoldGuard(state, "courier") as guard, guard.batch():
        time.sleep(0.2)
        guard.confirm()
