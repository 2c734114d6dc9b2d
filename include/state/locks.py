"""Named locks of the state database. If a process dies, the locks that it holds are released."""

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
    """Raised if another process holds the requested lock."""


@contextmanager
def hold_exclusive_lock(
    state: Engine, name: str, work: str, wait: timedelta = timedelta(0)
) -> Iterator[Callable[[], None]]:
    """Hold an exclusive lock of the state database during a ``with`` block.

    Yields a function that raises ServiceError if the lock was lost. The block has to call this
    function before any work that must not continue without the lock.

    Args:
        state: the state database.
        name: name of the lock, such as ``backup:courier``.
        work: the locked work, for the error message, such as "a backup of courier".
        wait: how long to wait while another process holds the lock.

    Raises:
        LockHeld: another process still holds the lock after the waiting time.
        ServiceError: the lock was lost during the block.
    """
    with state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        key = _key(conn, name)
        refusal = LockHeld(
            f"Another run is busy with {work}.", "Wait for it to end; this one changed nothing."
        )
        if wait:
            _lock(conn, key, wait, refusal)
        elif not _try_lock(conn, key):
            raise refusal
        # The server's own limit would end a session that waits for work elsewhere.
        conn.execute(text("SELECT set_config('idle_session_timeout', '0', false)"))
        try:
            yield lambda: _confirm(conn, key)
        finally:
            # Closing the session is not enough: a busy server ends it some time after its client.
            is_lost = not _unlock(conn, key)
        if is_lost:
            raise _lost()


@contextmanager
def hold_shared_lock(state: Engine, name: str, work: str, wait: timedelta) -> Iterator[Connection]:
    """Hold a shared lock of the state database during a ``with`` block, on a separate connection.

    Yields the separate connection. If this connection is lost, the lock is lost too, and no error
    is raised in the block.

    Args:
        state: the state database.
        name: name of the lock.
        work: the locked work, for the error message, such as "the seal of this run".
        wait: how long to wait while another process holds the lock exclusively; more than zero.

    Raises:
        ServiceError: another process still holds the lock exclusively after the waiting time.
    """
    with state.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        key = _key(conn, name)
        _lock(conn, key, wait, _busy(work), shared=True)
        # The server's own limit would end a session that waits for work elsewhere.
        conn.execute(text("SELECT set_config('idle_session_timeout', '0', false)"))
        try:
            yield conn
        finally:
            with suppress(SQLAlchemyError):  # a connection that is lost holds no lock
                conn.execute(text("SELECT pg_advisory_unlock_shared(:key)"), {"key": key})


def share_lock_in_transaction(conn: Connection, name: str, work: str, wait: timedelta) -> None:
    """Take a shared lock of the state database until the transaction ends.

    While the function waits for a process with an exclusive lock, `wait` replaces the session's
    `lock_timeout`, and `statement_timeout` does not apply.

    Args:
        conn: connection to the state database on which a transaction is open.
        name: name of the lock.
        work: the locked work, for the error message, such as "the seal of this run".
        wait: how long to wait while another process holds the lock exclusively.

    Raises:
        ServiceError: another process still holds the lock after the waiting time. The caller must
            then roll back the transaction.
    """
    key = _key(conn, name)
    limits = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    lock_limit, statement_limit = conn.execute(text(limits)).one()
    _set_limits(conn, lock_timeout(wait), "0", local=True)
    with lock_timeout_as(_busy(work)):
        conn.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": key})
    _set_limits(conn, lock_limit, statement_limit, local=True)


def still_locked(conn: Connection, key: int, *, shared: bool = False) -> bool:
    """Return whether the database session of a connection still holds an advisory lock.

    A session that was lost, or that a connection pooler replaced by another session, holds no lock.

    Args:
        conn: the connection to the state database on which the lock was taken.
        key: key of the lock, a 64-bit integer.
        shared: whether the lock is shared; by default exclusive.
    """
    mode = "ShareLock" if shared else "ExclusiveLock"
    try:
        return bool(conn.scalar(_STILL_LOCKED, {"key": key, "mode": mode}))
    except (OperationalError, PendingRollbackError):  # PendingRollbackError: lost before this query
        return False


def lock_timeout(wait: timedelta) -> str:
    """Return a value for PostgreSQL's `lock_timeout`, such as ``200ms``.

    The value is at least 1 ms, because 0 ms would mean no limit.
    """
    return f"{max(1, wait // timedelta(milliseconds=1))}ms"


@contextmanager
def lock_timeout_as(refusal: ServiceError) -> Iterator[None]:
    """Raise the given error if a statement of a ``with`` block exceeds the `lock_timeout`.

    Args:
        refusal: the error that replaces PostgreSQL's error.

    Raises:
        ServiceError: the error `refusal`, because a lock was not available in time.
        OperationalError: the statement failed for another reason.
    """
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise refusal from None


def _busy(work: str) -> ServiceError:
    return ServiceError(
        f"Another process is busy with {work}.", "Wait for it to end, then repeat this."
    )


def _confirm(conn: Connection, key: int) -> None:
    if not still_locked(conn, key):
        raise _lost()


def _lost() -> ServiceError:
    return ServiceError(
        "The connection to the state database was lost during the work, and with it the lock.",
        "Check that the state database runs, then retry.",
    )


def _key(conn: Connection, name: str) -> int:
    """Return the number of the advisory lock that stands for a named lock.

    Each schema has separate locks; see `lock_number`.
    """
    schema = schema_of(conn)
    qualified = f"{schema}:{name}" if schema else name
    query = text("SELECT hashtextextended(:name, 0)")
    return int(conn.execute(query, {"name": qualified}).scalar_one())


def _try_lock(conn: Connection, key: int) -> bool:
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
    """Set PostgreSQL's `lock_timeout` and `statement_timeout` for the transaction or the session.

    Args:
        conn: connection to the state database.
        lock: value of `lock_timeout`.
        statement: value of `statement_timeout`.
        local: whether the values apply only to the current transaction.
    """
    query = text(
        "SELECT set_config('lock_timeout', :lock, :local),"
        " set_config('statement_timeout', :statement, :local)"
    )
    conn.execute(query, {"lock": lock, "statement": statement, "local": local})


def _unlock(conn: Connection, key: int) -> bool:
    """Release an advisory lock, and return whether the connection still held the lock."""
    try:
        return bool(conn.scalar(text("SELECT pg_advisory_unlock(:key)"), {"key": key}))
    except SQLAlchemyError:  # OperationalError, or a follow-up error of the lost connection
        return False
