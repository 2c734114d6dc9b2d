"""Legal holds on records and restore points, and the lock between new legal holds and deletions.

The command `hold add` takes the lock `StateLock.HOLDS` exclusively. A run takes the lock in shared
mode for each batch of deletions, and reads the legal holds while it has the lock. So after a legal
hold was placed, no deletion that ignores this hold commits. PostgreSQL grants the lock in the order
in which sessions request it. For this reason, `hold add` waits for the current batch, but not for
the end of the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError

from include.holds.keys import split_key
from include.holds.registry import (
    RECORD_KINDS,
    Hold,
    HoldKind,
    active_and_released_holds,
    active_holds,
    registry_version,
    restore_points_on_hold,
)
from include.services.errors import ServiceError
from include.state.connect import StateLock, lock_number
from include.state.locks import lock_timeout, lock_timeout_as, still_locked

HOLD_WAIT = timedelta(minutes=2)  # for a hold that is being placed, which itself waits for batches
# The server's own timeouts could end this session, which is idle while records are deleted.
SETTINGS = text(
    "SELECT set_config('lock_timeout', :limit, false), set_config('statement_timeout', '0', false),"
    " set_config('idle_session_timeout', '0', false)"
)
LOCK = text("SELECT pg_advisory_lock_shared(:lock)")
UNLOCK = text("SELECT pg_advisory_unlock_shared(:lock)")


@dataclass(frozen=True)
class RecordHolds:
    """The active legal holds on records of one mapped database.

    Each tuple of holds starts with the oldest hold.

    Attributes:
        everything: legal holds on the whole database, which keep all its records.
        classes: name of a record class -> legal holds on this record class.
        values: type of object (data subject, waybill, case) -> key of a record -> legal holds on
            this key. The mapping always has all three types. A hold may be listed under two keys
            (`load_record_holds`).
    """

    everything: tuple[Hold, ...]
    classes: Mapping[str, tuple[Hold, ...]]
    values: Mapping[HoldKind, Mapping[str, tuple[Hold, ...]]]

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """The ids of the legal holds in ascending order.

        Two fingerprints are equal only if the same legal holds are active.
        """
        groups = [self.everything, *self.classes.values()]
        groups += [holds for by_key in self.values.values() for holds in by_key.values()]
        return tuple(sorted({hold.id for holds in groups for hold in holds}))


def load_record_holds(conn: Connection, database: str, also: Collection[int] = ()) -> RecordHolds:
    """Return the legal holds on records of a database. Legal holds on restore points are left out.

    A legal hold with the value ``x`` applies in every database, and a legal hold with the value
    ``<database>/x`` only in this database. But a key may itself contain a slash. A value with a
    slash therefore also applies to records whose key equals the whole value. To keep too many
    records is safer than to keep too few.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        also: ids of released legal holds that are returned together with the active ones.
    """
    everything: list[Hold] = []
    classes: dict[str, list[Hold]] = defaultdict(list)
    values: dict[HoldKind, dict[str, list[Hold]]] = {
        kind: defaultdict(list) for kind in RECORD_KINDS
    }
    for hold in active_and_released_holds(conn, also) if also else active_holds(conn):
        prefix, key = split_key(hold.value)
        if hold.kind is HoldKind.DATABASE:
            if hold.value == database:
                everything.append(hold)
        elif hold.kind is HoldKind.CLASS:
            if prefix in (None, database):
                classes[key].append(hold)
        elif hold.kind in values:
            by_key = values[hold.kind]
            by_key[hold.value].append(hold)
            if prefix == database:
                by_key[key].append(hold)
    return RecordHolds(
        tuple(everything),
        _as_tuples(classes),
        {kind: _as_tuples(by_key) for kind, by_key in values.items()},
    )


def _as_tuples(by_key: Mapping[str, list[Hold]]) -> dict[str, tuple[Hold, ...]]:
    return {key: tuple(holds) for key, holds in by_key.items()}


class HoldGuard:
    """A session of the state database that blocks new legal holds during a batch of deletions.

    A batch is a ``with`` block. A guard can have only one such block open at a time. Within the
    block, the caller commits its deletions after a call of `confirm`:

        with HoldGuard(state, "courier") as guard:
            while ...:
                with guard.batch() as holds:
                    ...  # delete the records that are not on hold
                    guard.confirm()
                    connection.commit()

    Args:
        state: the state database.
        database: name of the mapped database.
        wait: how long a batch waits for a legal hold that is being placed.
    """

    def __init__(self, state: Engine, database: str, wait: timedelta = HOLD_WAIT) -> None:
        self._state = state
        self._database = database
        self._wait = wait
        self._conn: Connection | None = None
        self._cached: tuple[tuple[object, ...], RecordHolds] | None = None

    def __enter__(self) -> Self:
        """Open the session.

        Raises:
            ServiceError: the state database does not answer.
        """
        self._conn = self._state.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with _report_lost_session():
                self._conn.execute(SETTINGS, {"limit": lock_timeout(self._wait)})
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Close the session, which releases the lock."""
        self._close()

    @contextmanager
    def batch(self) -> Iterator[RecordHolds]:
        """Block new legal holds within the ``with`` block, and yield the active legal holds.

        Raises:
            ServiceError: another session takes too long to place a legal hold, or the session and
                its lock were lost before or during the batch.
        """
        conn = self._session
        with _report_lost_session():
            _take_lock(conn)
        is_complete = False
        try:
            with _report_lost_session():
                holds = self._holds(conn)
            yield holds
            is_complete = True
        finally:
            had_lock = self._unlock(conn)
            if is_complete and not had_lock:  # otherwise the error of the block is raised
                raise _lost_session_error()

    def _holds(self, conn: Connection) -> RecordHolds:
        """Return the active legal holds.

        They are read from the register again only if a hold was placed or released since the last
        call.
        """
        version = registry_version(conn)
        if self._cached is None or self._cached[0] != version:
            self._cached = version, load_record_holds(conn, self._database)
        return self._cached[1]

    def confirm(self) -> None:
        """Check that the session still has the lock that blocks new legal holds.

        The caller has to call this function directly before a deletion commits.

        Raises:
            ServiceError: the lock was lost, so a legal hold may have been placed. The caller must
                roll the deletion back, or keep the restore point.
        """
        conn = self._session
        if not still_locked(conn, lock_number(conn, StateLock.HOLDS), shared=True):
            raise _lost_session_error()

    @property
    def _session(self) -> Connection:
        if self._conn is None:
            raise _lost_session_error()
        return self._conn

    def _unlock(self, conn: Connection) -> bool:
        """Release the lock. Return False if the session no longer had the lock."""
        try:
            with _report_lost_session():
                if conn.scalar(UNLOCK, _lock_parameters(conn)):
                    return True
        except ServiceError:
            pass
        self._close()  # this releases the session's other locks too
        return False

    def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _lock_parameters(conn: Connection) -> dict[str, int]:
    return {"lock": lock_number(conn, StateLock.HOLDS)}


def _take_lock(conn: Connection) -> None:
    refusal = ServiceError(
        "Another session is still placing a legal hold. Nothing was deleted.",
        "Wait until `hold add` has ended, or end its session in the state database. Then run the "
        "workflow again.",
    )
    with lock_timeout_as(refusal):
        conn.execute(LOCK, _lock_parameters(conn))


@contextmanager
def _report_lost_session() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PendingRollbackError):  # the second follows a lost session
        raise _lost_session_error() from None


def _lost_session_error() -> ServiceError:
    return ServiceError(
        "The connection to the state database was lost, and with it the lock against new holds.",
        "Check that the state database runs, then retry.",
    )


class RestorePointGuard(HoldGuard):
    """A session of the state database that blocks new holds while a restore point is removed.

        with RestorePointGuard(state, "courier") as guard:
            for point in points:
                with guard.removing(point) as is_held:
                    if not is_held:
                        guard.confirm()
                        ...  # remove the restore point

    The command `hold add` waits until the removal of the current restore point has ended. The new
    legal hold then applies to all restore points that are still there.
    """

    @contextmanager
    def removing(self, point: str) -> Iterator[bool]:
        """Block new legal holds within the ``with`` block, in which a restore point is removed.

        The context manager yields True if a legal hold applies to the restore point or to its
        database. In this case, the caller must not remove the restore point.

        Args:
            point: id of the restore point.

        Raises:
            ServiceError: another session takes too long to place a legal hold, or the session and
                its lock were lost.
        """
        with self.batch():
            with self._state.connect() as conn:
                is_held = bool(restore_points_on_hold(conn, self._database, [point]))
            yield is_held


@dataclass(frozen=True)
class StoredRestorePoint:
    """A restore point in the off-site store.

    Attributes:
        id: id of the restore point. If its manifest is invalid, the object key of the restore point
            in the store.
        taken_at: time of the database snapshot; None if the manifest is invalid.
        expires_at: time from which the restore point may be deleted; None if the manifest is
            invalid.
        held: whether a legal hold keeps the restore point after `expires_at`; False if the manifest
            is invalid.
    """

    id: str
    taken_at: datetime | None = None
    expires_at: datetime | None = None
    held: bool = False
