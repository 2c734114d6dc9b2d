"""Holds on records: which they bear on, and that no deletion misses one that was placed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Engine

from include.holds.records import HoldGuard, RecordHolds, on_records
from include.holds.registry import Hold, HoldKind, release
from include.services.errors import ServiceError
from include.state.connect import StateLock, engine
from include.state.migrate import migrate
from tests.holds.support import CLOCK, place

SHORT = timedelta(milliseconds=100)
LOCKS = f"""
SELECT count(*) FILTER (WHERE granted), count(*) FILTER (WHERE NOT granted) FROM pg_locks
WHERE locktype = 'advisory' AND objid::bigint = {int(StateLock.HOLDS) & 0xFFFFFFFF}
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def watch(holds_conninfo: str) -> Iterator[psycopg.Connection]:
    """A session that looks on."""
    with psycopg.connect(holds_conninfo, autocommit=True) as conn:
        yield conn


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def put(state: Engine, kind: HoldKind, value: str, patience: timedelta | None = None) -> Hold:
    with state.begin() as conn:
        return place(conn, kind, value, **({"patience": patience} if patience else {}))


def locks(watch: psycopg.Connection) -> tuple[int, int]:
    """How many have the lock, and how many wait for it."""
    row = watch.execute(LOCKS).fetchone()
    assert row is not None
    return row[0], row[1]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def kill_the_holder(watch: psycopg.Connection) -> None:
    watch.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND granted AND mode = 'ShareLock' AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def of(state: Engine, database: str) -> RecordHolds:
    with state.connect() as conn:
        return on_records(conn, database)


def test_holds_are_read_again_only_when_one_was_placed_or_released(state: Engine) -> None:
    """Reading many of them in each batch would take longer than the batch."""
    with HoldGuard(state, "courier") as guard:
        seen = []
        for change in (None, "place", None, "release"):
            if change == "place":
                placed = put(state, HoldKind.SUBJECT, "7")
            if change == "release":
                with state.begin() as conn:
                    release(conn, CLOCK, placed.id, released_by="legal", reason="settled")
            with guard.batch() as holds:
                seen.append(holds)
    first, after, still, last = seen
    assert "7" in after.values[HoldKind.SUBJECT]
    assert still is after
    assert "7" not in first.values[HoldKind.SUBJECT]
    assert "7" not in last.values[HoldKind.SUBJECT]


def test_a_database_is_held_by_its_name_and_all_its_records_with_it(state: Engine) -> None:
    """Not those of another; a restore point's hold keeps no record."""
    hold = put(state, HoldKind.DATABASE, "courier")
    put(state, HoldKind.RESTORE_POINT, "courier/20261124T020000Z")
    assert of(state, "courier").everything == (hold,)
    assert of(state, "courier").fingerprint == (hold.id,)
    assert of(state, "partners") == RecordHolds(
        (), {}, {HoldKind.SUBJECT: {}, HoldKind.WAYBILL: {}, HoldKind.CASE: {}}
    )


def test_a_class_is_held_everywhere_or_in_one_database(state: Engine) -> None:
    """``waybill`` in every database, ``courier/waybill`` in that one."""
    here = put(state, HoldKind.CLASS, "courier/waybill")
    everywhere = put(state, HoldKind.CLASS, "waybill")
    assert of(state, "courier").classes == {"waybill": (here, everywhere)}
    assert of(state, "partners").classes == {"waybill": (everywhere,)}


@pytest.mark.parametrize("kind", [HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE])
def test_a_key_is_held_everywhere_or_in_one_database(state: Engine, kind: HoldKind) -> None:
    """Under its own kind alone."""
    here = put(state, kind, "courier/12")
    everywhere = put(state, kind, "12")
    assert of(state, "courier").values[kind]["12"] == (here, everywhere)
    assert of(state, "partners").values[kind]["12"] == (everywhere,)
    others = {HoldKind.SUBJECT, HoldKind.WAYBILL, HoldKind.CASE} - {kind}
    assert all(of(state, "courier").values[one] == {} for one in others)


def test_a_key_with_a_slash_is_held_whole_too(state: Engine) -> None:
    """What precedes the slash may be the key's own: rather too much is kept than too little."""
    hold = put(state, HoldKind.CASE, "2026/001")
    assert of(state, "courier").values[HoldKind.CASE] == {"2026/001": (hold,)}
    assert of(state, "2026").values[HoldKind.CASE] == {"2026/001": (hold,), "001": (hold,)}
    assert of(state, "2026").fingerprint == (hold.id,)


def test_the_fingerprint_changes_with_each_hold_and_release(state: Engine) -> None:
    """A caller that sees the same one need not look again."""
    first = put(state, HoldKind.SUBJECT, "12")
    second = put(state, HoldKind.CLASS, "waybill")
    assert of(state, "courier").fingerprint == (first.id, second.id)
    with state.begin() as conn:
        release(conn, CLOCK, first.id, released_by="counsel", reason="settled")
    assert of(state, "courier").fingerprint == (second.id,)


def test_a_hold_waits_for_the_batch_and_the_next_batch_sees_it(
    state: Engine, watch: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """The batch after it waits behind the hold: a run of many batches cannot starve it."""
    with HoldGuard(state, "courier") as guard, state.connect() as conn:
        with guard.batch() as before:
            assert before.everything == ()
            placing = threads.submit(place, conn, HoldKind.DATABASE, "courier")
            until(lambda: locks(watch) == (1, 1))
            assert not placing.done()
            guard.confirm()
        hold = placing.result(20)  # placed, not yet committed
        batch: Future[tuple[Hold, ...]] = threads.submit(everything_in_a_batch, guard)
        until(lambda: locks(watch) == (1, 1))
        assert not batch.done()
        conn.commit()
        assert batch.result(20) == (hold,)


def everything_in_a_batch(guard: HoldGuard) -> tuple[Hold, ...]:
    with guard.batch() as holds:
        return holds.everything


def test_a_queued_hold_goes_before_batches_that_come_later(
    state: Engine, watch: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """Shared locks do not overtake it, although one is out already."""
    with HoldGuard(state, "courier") as guard, HoldGuard(state, "courier") as other:
        with guard.batch():
            placing = threads.submit(put, state, HoldKind.DATABASE, "courier")
            until(lambda: locks(watch) == (1, 1))
            later = threads.submit(everything_in_a_batch, other)
            until(lambda: locks(watch) == (1, 2))
        assert later.result(20) == (placing.result(20),)


def test_batches_do_not_wait_for_each_other(state: Engine) -> None:
    """Deletions of two databases go on side by side."""
    with (
        HoldGuard(state, "courier") as one,
        HoldGuard(state, "partners", SHORT) as other,
        one.batch(),
        other.batch() as holds,
    ):
        assert holds.fingerprint == ()


def test_a_dead_session_frees_the_hold_and_its_batch_fails(
    state: Engine, watch: psycopg.Connection, threads: ThreadPoolExecutor
) -> None:
    """Before the commit, when asked, and at the end of the batch; the guard is of no use then."""

    def killed_in_a_batch() -> None:
        with guard.batch():
            placing = threads.submit(put, state, HoldKind.DATABASE, "courier")
            until(lambda: locks(watch) == (1, 1))
            kill_the_holder(watch)
            assert placing.result(20).released_at is None
            with pytest.raises(ServiceError, match="was lost"):
                guard.confirm()

    with HoldGuard(state, "courier") as guard:
        for work in (killed_in_a_batch, lambda: everything_in_a_batch(guard)):
            with pytest.raises(ServiceError, match="was lost"):
                work()
    with (
        HoldGuard(state, "courier") as guard,
        pytest.raises(ServiceError, match="was lost"),
        guard.batch(),
    ):
        kill_the_holder(watch)


def test_a_lock_that_went_astray_is_told(state: Engine) -> None:
    """A connection pooler in between may answer from another session, without any error."""

    def astray() -> None:
        with guard.batch():
            guard.confirm()
            guard._session.exec_driver_sql("SELECT pg_advisory_unlock_all()")
            with pytest.raises(ServiceError, match="was lost"):
                guard.confirm()

    with HoldGuard(state, "courier") as guard, pytest.raises(ServiceError, match="was lost"):
        astray()


def test_failed_work_gives_the_lock_back_and_keeps_its_error(
    state: Engine, watch: psycopg.Connection
) -> None:
    """The guard goes on with the next batch; a lost session does not hide the work's error."""

    def killed() -> None:
        with guard.batch():
            kill_the_holder(watch)
            raise KeyError("work")

    with HoldGuard(state, "courier") as guard:
        with pytest.raises(KeyError), guard.batch():
            raise KeyError("work")
        assert locks(watch) == (0, 0)
        assert everything_in_a_batch(guard) == ()
        with pytest.raises(KeyError):
            killed()


def test_neither_waits_for_ever(state: Engine) -> None:
    """Each says what to do; nothing was placed or deleted."""
    with HoldGuard(state, "courier", SHORT) as guard:
        with guard.batch(), pytest.raises(ServiceError, match="not placed") as refused:
            put(state, HoldKind.DATABASE, "courier", SHORT)
        assert "enforce_retention" in refused.value.action
        with state.begin() as conn:
            place(conn, HoldKind.DATABASE, "courier")
            with pytest.raises(ServiceError, match="Nothing was deleted") as refused, guard.batch():
                raise AssertionError("the batch began beside a hold that is being placed")
    assert "hold add" in refused.value.action


def test_limits_of_the_server_end_no_batch(database: str) -> None:
    """The lock's session idles while records are deleted elsewhere."""
    state = engine(database)
    migrate(state)
    with psycopg.connect(database, autocommit=True) as admin:
        for limit in ("idle_session_timeout", "statement_timeout", "lock_timeout"):
            admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET {limit} = 50'.encode())
    with HoldGuard(state, "courier") as guard, guard.batch():
        time.sleep(0.2)
        guard.confirm()
