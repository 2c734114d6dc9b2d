"""Named locks: one holder at a time, given back by success, failure and death alike."""

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
from include.state.locks import LockHeld, exclusive, share, shared

SHORT = timedelta(milliseconds=200)
Take = Callable[..., Any]  # exclusive, shared or share


def taken(take: Take, state: Engine, wait: timedelta) -> None:
    """Take the lock ``seal:x`` by one of the functions, and give it back."""
    if take is share:
        with state.begin() as conn:
            share(conn, "seal:x", "the seal of x", wait)
        return
    with take(state, "seal:x", "the seal of x", wait):
        pass


def limit_of(conn: Connection, setting: str) -> str:
    """Return a time limit as the session has it now, ``300ms``."""
    return str(conn.exec_driver_sql(f"SHOW {setting}").scalar_one())


def end_other_sessions(database: str) -> None:
    """End all other sessions of the database, and wait until they ended."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_second_holder_is_refused_and_a_later_one_is_not(database: str) -> None:
    """While one holds the lock another is refused; afterwards it is free."""
    state = engine(database)
    with (
        exclusive(state, "backup:x", "a backup of x"),
        pytest.raises(ServiceError, match="a backup of x"),
        exclusive(state, "backup:x", "a backup of x"),
    ):
        pass
    with exclusive(state, "backup:x", "a backup of x"):
        pass


def test_whoever_has_patience_waits_for_the_holder(database: str) -> None:
    """As long as was said, and no longer; afterwards the session's own limit holds again."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f'ALTER DATABASE "{name}" SET statement_timeout = 100'.encode())
    state = engine(database)
    release = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with exclusive(state, "quality:x", "a check of x"):
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    with (
        pytest.raises(ServiceError, match="busy with a check of x"),
        exclusive(state, "quality:x", "a check of x", timedelta(milliseconds=200)),
    ):
        pass
    threading.Timer(0.5, release.set).start()
    with exclusive(state, "quality:x", "a check of x", timedelta(seconds=10)):
        holder.join(1)
        assert not holder.is_alive()


def test_failed_work_gives_the_lock_back_and_keeps_its_error(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is free at once: a busy server ends a session some time after its client does."""
    state = engine(database)
    not_ended: list[psycopg.Connection] = []
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "close", lambda session: not_ended.append(session))
        with pytest.raises(KeyError), exclusive(state, "backup:x", "a backup of x"):
            raise KeyError("work")
    with exclusive(state, "backup:x", "a backup of x"):
        pass
    for connection in not_ended:
        connection.close()


def test_a_lost_state_database_is_named_when_the_work_was_done(database: str) -> None:
    """A lock that died with its connection must not pass for one that was held."""
    state = engine(database)
    with (
        pytest.raises(ServiceError, match="lost while the work went on"),
        exclusive(state, "backup:x", "a backup of x"),
        psycopg.connect(database, autocommit=True) as other,
    ):
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_exclusive_lock_waits_for_shared_locks(database: str) -> None:
    """Several sessions share a lock; it is free once the last one ends, also with an error."""
    state, short = engine(database), timedelta(milliseconds=200)
    with (
        shared(state, "seal:x", "the seal of x", short),
        shared(state, "seal:x", "the seal of x", short),
        pytest.raises(LockHeld),
        exclusive(state, "seal:x", "the seal of x", short),
    ):
        pass
    with pytest.raises(KeyError), shared(state, "seal:x", "the seal of x", short):
        raise KeyError
    with (
        exclusive(state, "seal:x", "the seal of x", short),
        pytest.raises(ServiceError, match="busy with the seal of x"),
        shared(state, "seal:x", "the seal of x", short),
    ):
        pass


def test_shared_lock_that_was_lost_ends_without_an_error(database: str) -> None:
    """The holder checks the connection itself; long work need not fail because of the lock."""
    state = engine(database)
    with shared(state, "seal:x", "the seal of x", timedelta(seconds=10)) as lock:
        pid = lock.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with exclusive(state, "seal:x", "the seal of x", timedelta(seconds=10)):
            pass


@pytest.mark.parametrize("take", [exclusive, shared, share])
def test_wait_below_a_millisecond_ends(database: str, take: Take) -> None:
    """PostgreSQL takes a limit of 0 ms for none."""
    state = engine(database)
    with futures.ThreadPoolExecutor(1) as pool, exclusive(state, "seal:x", "the seal of x"):
        waiting = pool.submit(taken, take, state, timedelta(microseconds=1))
        with pytest.raises(ServiceError, match="busy with the seal of x"):
            waiting.result(5)


def test_shared_locks_of_a_schema_keep_only_its_exclusive_holder_waiting(database: str) -> None:
    """A drill has locks of its own, whichever function takes them."""
    live, drill = engine(database), engine(database, "drill_x")
    with shared(drill, "seal:x", "the seal of x", SHORT):
        with pytest.raises(LockHeld), exclusive(drill, "seal:x", "the seal of x"):
            pass
        with exclusive(live, "seal:x", "the seal of x"):
            pass
    with drill.begin() as conn:
        share(conn, "seal:x", "the seal of x", SHORT)
        with pytest.raises(LockHeld), exclusive(drill, "seal:x", "the seal of x"):
            pass
        with exclusive(live, "seal:x", "the seal of x"):
            pass


def test_share_waits_longer_than_the_statement_limit_and_restores_it(database: str) -> None:
    """The limits count for the wait only: later statements of the transaction have the server's."""
    with psycopg.connect(database, autocommit=True) as admin:
        for limit in ("statement_timeout", "lock_timeout"):
            admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET {limit} = 300'.encode())
    state = engine(database)

    def limits_after_share() -> list[str]:
        with state.begin() as conn:
            conn.exec_driver_sql("SET LOCAL lock_timeout = '7s'")
            share(conn, "seal:x", "the seal of x", timedelta(seconds=20))
            return [limit_of(conn, name) for name in ("statement_timeout", "lock_timeout")]

    with futures.ThreadPoolExecutor(1) as pool:
        with exclusive(state, "seal:x", "the seal of x"):
            with (
                pytest.raises(ServiceError, match="busy with the seal of x"),
                state.begin() as conn,
            ):
                share(conn, "seal:x", "the seal of x", timedelta(milliseconds=600))
            waiting = pool.submit(limits_after_share)
            with pytest.raises(futures.TimeoutError):
                waiting.result(0.6)
        assert waiting.result(20) == ["300ms", "7s"]


def test_check_of_a_lock_that_its_session_lost_raises_service_error(database: str) -> None:
    """The session still answers; so does another session that a connection pooler puts there."""
    state = engine(database)
    sessions: list[Connection] = []
    event.listen(state, "engine_connect", sessions.append)
    held: list[str] = []

    def lose(name: str) -> None:
        with exclusive(state, name, "x") as confirm:
            confirm()
            held.append(name)
            sessions[-1].exec_driver_sql("SELECT pg_advisory_unlock_all()")
            with pytest.raises(ServiceError, match="lost while the work went on"):
                confirm()

    names = [f"backup:{number}" for number in range(8)]  # their keys have either sign
    for name in names:
        with pytest.raises(ServiceError, match="lost while the work went on"):
            lose(name)
    assert held == names


def test_each_check_after_the_session_ended_raises_service_error(database: str) -> None:
    """SQLAlchemy raises another error from the second statement on."""
    state = engine(database)

    def lose() -> None:
        with exclusive(state, "backup:x", "a backup of x") as confirm:
            end_other_sessions(database)
            for _ in range(3):
                with pytest.raises(ServiceError, match="lost while the work went on"):
                    confirm()

    with pytest.raises(ServiceError, match="lost while the work went on"):
        lose()
