"""A named lock has at most one exclusive holder, and is released when the holder ends or dies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event

from include.services.errors import ServiceError
from include.state.connect import engine
from include.state.locks import (
    LockHeld,
    hold_exclusive_lock,
    hold_shared_lock,
    share_lock_in_transaction,
)

SHORT = timedelta(milliseconds=200)
Take = Callable[..., Any]  # hold_exclusive_lock, hold_shared_lock or share_lock_in_transaction


def taken(take: Take, state: Engine, wait: timedelta) -> None:
    """Take the lock ``seal:x`` with one of the lock functions, and release it.

    Args:
        take: lock function to test.
        state: engine of the state database.
        wait: how long to wait for the lock.
    """
    if take is share_lock_in_transaction:
        with state.begin() as conn:
            share_lock_in_transaction(conn, "seal:x", "the seal of x", wait)
        return
    with take(state, "seal:x", "the seal of x", wait):
        pass


def limit_of(conn: Connection, setting: str) -> str:
    """Return the current time limit of the session, such as ``300ms``.

    Args:
        conn: connection of the session.
        setting: name of the limit in PostgreSQL.
    """
    return str(conn.exec_driver_sql(f"SHOW {setting}").scalar_one())


def end_other_sessions(database: str) -> None:
    """End all other sessions of the database, and wait until they have ended."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_second_attempt_to_take_exclusive_lock_raises_service_error_until_release(
    database: str,
) -> None:
    state = engine(database)
    with (
        hold_exclusive_lock(state, "backup:x", "a backup of x"),
        pytest.raises(ServiceError, match="a backup of x"),
        hold_exclusive_lock(state, "backup:x", "a backup of x"),
    ):
        pass
    with hold_exclusive_lock(state, "backup:x", "a backup of x"):
        pass


def test_exclusive_lock_waits_up_to_the_given_time_and_then_raises_service_error(
    database: str,
) -> None:
    """The wait may be longer than the session's own limit on statements."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f'ALTER DATABASE "{name}" SET statement_timeout = 100'.encode())
    state = engine(database)
    release = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with hold_exclusive_lock(state, "quality:x", "a check of x"):
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with (
        pytest.raises(ServiceError, match="busy with a check of x"),
        hold_exclusive_lock(state, "quality:x", "a check of x", timedelta(milliseconds=200)),
    ):
        pass
    threading.Timer(0.5, release.set).start()
    with hold_exclusive_lock(state, "quality:x", "a check of x", timedelta(seconds=10)):
        holder.join(1)
        assert not holder.is_alive()


def test_exclusive_lock_is_released_after_an_error(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is released explicitly.

    A busy server ends the session only some time after its client has disconnected.
    """
    state = engine(database)
    not_ended: list[psycopg.Connection] = []
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "close", lambda session: not_ended.append(session))
        with pytest.raises(KeyError), hold_exclusive_lock(state, "backup:x", "a backup of x"):
            raise KeyError("work")
    with hold_exclusive_lock(state, "backup:x", "a backup of x"):
        pass
    for connection in not_ended:
        connection.close()


def test_service_error_is_raised_if_connection_of_exclusive_lock_is_lost(database: str) -> None:
    """Another process may have taken the lock and worked at the same time."""
    state = engine(database)
    with (
        pytest.raises(ServiceError, match="lost during the work"),
        hold_exclusive_lock(state, "backup:x", "a backup of x"),
        psycopg.connect(database, autocommit=True) as other,
    ):
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_exclusive_lock_cannot_be_taken_while_a_shared_lock_is_held(database: str) -> None:
    """A shared lock is released as soon as its last holder has ended, even with an error."""
    state, short = engine(database), timedelta(milliseconds=200)
    with (
        hold_shared_lock(state, "seal:x", "the seal of x", short),
        hold_shared_lock(state, "seal:x", "the seal of x", short),
        pytest.raises(LockHeld),
        hold_exclusive_lock(state, "seal:x", "the seal of x", short),
    ):
        pass
    with pytest.raises(KeyError), hold_shared_lock(state, "seal:x", "the seal of x", short):
        raise KeyError
    with (
        hold_exclusive_lock(state, "seal:x", "the seal of x", short),
        pytest.raises(ServiceError, match="busy with the seal of x"),
        hold_shared_lock(state, "seal:x", "the seal of x", short),
    ):
        pass


def test_loss_of_a_shared_lock_raises_no_error(database: str) -> None:
    """The holder checks the connection itself, so long work does not have to fail."""
    state = engine(database)
    with hold_shared_lock(state, "seal:x", "the seal of x", timedelta(seconds=10)) as lock:
        pid = lock.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with hold_exclusive_lock(state, "seal:x", "the seal of x", timedelta(seconds=10)):
            pass


@pytest.mark.parametrize("take", [hold_exclusive_lock, hold_shared_lock, share_lock_in_transaction])
def test_wait_for_a_lock_ends_even_if_the_limit_is_below_a_millisecond(
    database: str, take: Take
) -> None:
    """In PostgreSQL, a `lock_timeout` of 0 ms means no limit."""
    state = engine(database)
    with (
        futures.ThreadPoolExecutor(1) as pool,
        hold_exclusive_lock(state, "seal:x", "the seal of x"),
    ):
        waiting = pool.submit(taken, take, state, timedelta(microseconds=1))
        with pytest.raises(ServiceError, match="busy with the seal of x"):
            waiting.result(5)


def test_lock_in_a_database_schema_does_not_block_the_same_lock_in_another_schema(
    database: str,
) -> None:
    live, drill = engine(database), engine(database, "drill_x")
    with hold_shared_lock(drill, "seal:x", "the seal of x", SHORT):
        with pytest.raises(LockHeld), hold_exclusive_lock(drill, "seal:x", "the seal of x"):
            pass
        with hold_exclusive_lock(live, "seal:x", "the seal of x"):
            pass
    with drill.begin() as conn:
        share_lock_in_transaction(conn, "seal:x", "the seal of x", SHORT)
        with pytest.raises(LockHeld), hold_exclusive_lock(drill, "seal:x", "the seal of x"):
            pass
        with hold_exclusive_lock(live, "seal:x", "the seal of x"):
            pass


def test_shared_lock_waits_beyond_statement_timeout_and_restores_the_timeouts(
    database: str,
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        for limit in ("statement_timeout", "lock_timeout"):
            admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET {limit} = 300'.encode())
    state = engine(database)

    def limits_after_share() -> list[str]:
        with state.begin() as conn:
            conn.exec_driver_sql("SET LOCAL lock_timeout = '7s'")
            share_lock_in_transaction(conn, "seal:x", "the seal of x", timedelta(seconds=20))
            return [limit_of(conn, name) for name in ("statement_timeout", "lock_timeout")]

    with futures.ThreadPoolExecutor(1) as pool:
        with hold_exclusive_lock(state, "seal:x", "the seal of x"):
            with (
                pytest.raises(ServiceError, match="busy with the seal of x"),
                state.begin() as conn,
            ):
                share_lock_in_transaction(
                    conn, "seal:x", "the seal of x", timedelta(milliseconds=600)
                )
            waiting = pool.submit(limits_after_share)
            with pytest.raises(futures.TimeoutError):
                waiting.result(0.6)
        assert waiting.result(20) == ["300ms", "7s"]


def test_confirm_function_of_exclusive_lock_raises_service_error_if_lock_was_lost(
    database: str,
) -> None:
    """A connection pooler may have replaced the session."""
    state = engine(database)
    sessions: list[Connection] = []
    event.listen(state, "engine_connect", sessions.append)
    held: list[str] = []

    def lose(name: str) -> None:
        with hold_exclusive_lock(state, name, "x") as confirm:
            confirm()
            held.append(name)
            sessions[-1].exec_driver_sql("SELECT pg_advisory_unlock_all()")
            with pytest.raises(ServiceError, match="lost during the work"):
                confirm()

    names = [f"backup:{number}" for number in range(8)]  # their keys have either sign
    for name in names:
        with pytest.raises(ServiceError, match="lost during the work"):
            lose(name)
    assert held == names


def test_confirm_function_raises_service_error_at_each_call_after_the_session_ended(
    database: str,
) -> None:
    """SQLAlchemy raises another error for later statements than for the first statement."""
    state = engine(database)

    def lose() -> None:
        with hold_exclusive_lock(state, "backup:x", "a backup of x") as confirm:
            end_other_sessions(database)
            for _ in range(3):
                with pytest.raises(ServiceError, match="lost during the work"):
                    confirm()

    with pytest.raises(ServiceError, match="lost during the work"):
        lose()
