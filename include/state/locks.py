"""Named locks of the state database; a lock ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError, SQLAlchemyError

from include.services.database import ADVISORY_LOCKS
from include.services.errors import ServiceError
from include.state.connect import schema_of

_STILL_LOCKED = text(
    f"SELECT EXISTS (SELECT FROM ({ADVISORY_LOCKS}) AS held WHERE key = :key AND mode = :mode)"  # noqa: S608 - fixed text
)


class LockHeld(ServiceError):
    """Another process holds a lock."""


@contextmanager
def exclusive(
    state: Engine, name: str, what: str, wait: timedelta = timedelta(0)
) -> Iterator[Callable[[], None]]:
    """Hold a lock of the state database while the block runs.

    Yields a function that raises ServiceError when the lock was lost, for work that must then stop.

    Args:
        state: the state database.
        name: of the lock, ``backup:courier``.
        what: for the refusal, "a backup of courier".
        wait: how long to wait while another process holds it.

    Raises:
        LockHeld: another process still holds it.
        ServiceError: the lock was lost while the block ran.
    """
    with state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        key = _key(conn, name)
        refusal = LockHeld(
            f"Another run is busy with {what}.", "Wait for it to end; this one changed nothing."
        )
        if wait:
            _lock(conn, key, wait, refusal)
        elif not _locked_at_once(conn, key):
            raise refusal
        # The server's own limit would end a session that waits for work elsewhere.
        conn.execute(text("SELECT set_config('idle_session_timeout', '0', false)"))
        try:
            yield lambda: _confirm(conn, key)
        finally:
            # A busy server ends the session, and with it the lock, some time after its client does.
            is_lost = not _unlocked(conn, key)
        if is_lost:
            raise _lost()


@contextmanager
def shared(state: Engine, name: str, what: str, wait: timedelta) -> Iterator[Connection]:
    """Share a lock of the state database with others, on a connection that does nothing else.

    Yields that connection. If the connection is lost, so is the lock; the block gets no error.

    Args:
        state: the state database.
        name: of the lock.
        what: for the refusal, "the seal of this run".
        wait: how long to wait while another process holds it alone; more than zero.

    Raises:
        ServiceError: another process holds it alone.
    """
    with state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        key = _key(conn, name)
        _lock(conn, key, wait, _busy(what), shared=True)
        # The server's own limit would end a session that waits for work elsewhere.
        conn.execute(text("SELECT set_config('idle_session_timeout', '0', false)"))
        try:
            yield conn
        finally:
            with suppress(SQLAlchemyError):  # a connection that is lost holds no lock
                conn.execute(text("SELECT pg_advisory_unlock_shared(:key)"), {"key": key})


def share(conn: Connection, name: str, what: str, wait: timedelta) -> None:
    """Wait until no process holds a named lock alone, and share it until the transaction ends.

    `wait` is the only time limit of the wait. The limits of the session then count again.

    Args:
        conn: a connection to the state database, in a transaction.
        name: of the lock.
        what: for the refusal, "the seal of this run".
        wait: how long to wait while another process holds it alone.

    Raises:
        ServiceError: another process still holds it; the transaction can only be rolled back.
    """
    key = _key(conn, name)
    limits = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    lock_limit, statement_limit = conn.execute(text(limits)).one()
    _set_limits(conn, lock_timeout(wait), "0", local=True)
    with lock_timeout_as(_busy(what)):
        conn.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": key})
    _set_limits(conn, lock_limit, statement_limit, local=True)


def still_locked(conn: Connection, key: int, *, shared: bool = False) -> bool:
    """Return whether the session of a connection still holds an advisory lock.

    A lost session holds none. A session that a connection pooler exchanged has no lock either.

    Args:
        conn: a connection to the state database on which the lock was taken.
        key: of the lock, a 64-bit integer.
        shared: whether it is held shared, or else alone.
    """
    mode = "ShareLock" if shared else "ExclusiveLock"
    try:
        return bool(conn.scalar(_STILL_LOCKED, {"key": key, "mode": mode}))
    except (OperationalError, PendingRollbackError):  # the latter: lost in the statement before
        return False


def lock_timeout(wait: timedelta) -> str:
    """Return a value of `lock_timeout`, ``200ms``; at least 1 ms, as 0 ms would be no limit."""
    return f"{max(1, wait // timedelta(milliseconds=1))}ms"


@contextmanager
def lock_timeout_as(refusal: ServiceError) -> Iterator[None]:
    """Replace the error of a statement that waited for a lock until `lock_timeout`.

    Args:
        refusal: the error to raise instead.

    Raises:
        ServiceError: a lock was not available; the refusal.
        OperationalError: the statement failed for another reason.
    """
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise refusal from None


def _busy(what: str) -> ServiceError:
    return ServiceError(
        f"Another process is busy with {what}.", "Wait for it to end, then repeat this."
    )


def _confirm(conn: Connection, key: int) -> None:
    if not still_locked(conn, key):
        raise _lost()


def _lost() -> ServiceError:
    return ServiceError(
        "The state database was lost while the work went on, and the lock with it.",
        "Check that the state database runs, then retry.",
    )


def _key(conn: Connection, name: str) -> int:
    """Return the key of a named lock; a schema has its own, see `lock_number`."""
    schema = schema_of(conn)
    qualified = f"{schema}:{name}" if schema else name
    query = text("SELECT hashtextextended(:name, 0)")
    return int(conn.execute(query, {"name": qualified}).scalar_one())


def _locked_at_once(conn: Connection, key: int) -> bool:
    return bool(conn.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))


def _lock(
    conn: Connection, key: int, wait: timedelta, refusal: ServiceError, *, shared: bool = False
) -> None:
    _set_limits(conn, lock_timeout(wait), "0", local=False)
    function = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
    try:
        with lock_timeout_as(refusal):
            conn.execute(text(f"SELECT {function}(:key)"), {"key": key})
    finally:
        if not conn.invalidated:
            conn.execute(text("RESET lock_timeout"))
            conn.execute(text("RESET statement_timeout"))


def _set_limits(conn: Connection, lock: str, statement: str, *, local: bool) -> None:
    """Set the time limits of statements, for the transaction (local) or for the session."""
    query = text(
        "SELECT set_config('lock_timeout', :lock, :local),"
        " set_config('statement_timeout', :statement, :local)"
    )
    conn.execute(query, {"lock": lock, "statement": statement, "local": local})


def _unlocked(conn: Connection, key: int) -> bool:
    """Give the lock back; return whether the connection still held it."""
    try:
        return bool(conn.scalar(text("SELECT pg_advisory_unlock(:key)"), {"key": key}))
    except SQLAlchemyError:  # OperationalError, and after it that the connection is of no use
        return False
