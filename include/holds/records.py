"""Legal holds on records and restore points, and the lock under which these are deleted.

`hold add` takes `StateLock.HOLDS` exclusively. A deletion takes it shared for each batch, and reads
the holds under it. So no deletion that did not know a hold commits after the hold was placed. Since
PostgreSQL queues fairly, a hold waits for the current batch and not for the end of the run.
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

from include.holds.keys import split
from include.holds.registry import (
    RECORD_KINDS,
    Hold,
    HoldKind,
    active,
    restore_points_held,
    version,
    with_released,
)
from include.services.errors import ServiceError
from include.state.connect import StateLock, lock_number
from include.state.locks import lock_timeout, lock_timeout_as, still_locked

WAIT = timedelta(minutes=2)  # for a hold that is being placed, which itself waits for batches
# The server's own limits would end a session that waits for a deletion elsewhere.
SETTINGS = text(
    "SELECT set_config('lock_timeout', :limit, false), set_config('statement_timeout', '0', false),"
    " set_config('idle_session_timeout', '0', false)"
)
LOCK = text("SELECT pg_advisory_lock_shared(:lock)")
UNLOCK = text("SELECT pg_advisory_unlock_shared(:lock)")


@dataclass(frozen=True)
class RecordHolds:
    """The active holds that keep records of one mapped database, each oldest first.

    Attributes:
        everything: holds on the database: all its records stay.
        classes: holds on record classes, by name of the class.
        values: holds on keys of records: kind (subject, waybill, case) -> key as text -> holds.
            Each of the three kinds is present. A hold may have two keys, see `on_records`.
    """

    everything: tuple[Hold, ...]
    classes: Mapping[str, tuple[Hold, ...]]
    values: Mapping[HoldKind, Mapping[str, tuple[Hold, ...]]]

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """Ids of these holds, ascending; it changes when a hold is placed or released."""
        groups = [self.everything, *self.classes.values()]
        groups += [holds for by_key in self.values.values() for holds in by_key.values()]
        return tuple(sorted({hold.id for holds in groups for hold in holds}))


def on_records(conn: Connection, database: str, also: Collection[int] = ()) -> RecordHolds:
    """Return the holds that keep records of a database; holds on restore points keep none.

    ``x`` holds in every database, ``<database>/x`` in that database. A key may contain a slash, so
    a value with a slash also holds records whose key equals the whole value: rather too much is
    kept than too little.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        also: ids of released holds that count too.
    """
    everything: list[Hold] = []
    classes: dict[str, list[Hold]] = defaultdict(list)
    values: dict[HoldKind, dict[str, list[Hold]]] = {
        kind: defaultdict(list) for kind in RECORD_KINDS
    }
    for hold in with_released(conn, also) if also else active(conn):
        where, named = split(hold.value)
        if hold.kind is HoldKind.DATABASE:
            if hold.value == database:
                everything.append(hold)
        elif hold.kind is HoldKind.CLASS:
            if where in (None, database):
                classes[named].append(hold)
        elif hold.kind in values:
            by_key = values[hold.kind]
            by_key[hold.value].append(hold)
            if where == database:
                by_key[named].append(hold)
    return RecordHolds(
        tuple(everything),
        _frozen(classes),
        {kind: _frozen(by_key) for kind, by_key in values.items()},
    )


def _frozen(by_key: Mapping[str, list[Hold]]) -> dict[str, tuple[Hold, ...]]:
    return {key: tuple(holds) for key, holds in by_key.items()}


class HoldGuard:
    """A session of the state database that keeps new holds out of batches of deletions.

    Only one batch at a time. Commit what a batch deletes inside of it, after `confirm`.

        with HoldGuard(state, "courier") as guard:
            while ...:
                with guard.batch() as holds:
                    ...  # delete what holds does not keep
                    guard.confirm()
                    connection.commit()

    Args:
        state: the state database.
        database: name of the database in the data map.
        wait: how long a batch waits for a hold that is being placed.
    """

    def __init__(self, state: Engine, database: str, wait: timedelta = WAIT) -> None:
        self._state = state
        self._database = database
        self._wait = wait
        self._conn: Connection | None = None
        self._known: tuple[tuple[object, ...], RecordHolds] | None = None

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ServiceError: the state database does not answer.
        """
        self._conn = self._state.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with _named_when_lost():
                self._conn.execute(SETTINGS, {"limit": lock_timeout(self._wait)})
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Close the session; its locks end with it."""
        self._close()

    @contextmanager
    def batch(self) -> Iterator[RecordHolds]:
        """Keep new holds out, and yield the active holds.

        Raises:
            ServiceError: a hold was being placed for too long, or the state database was lost:
                before the batch, or while it went on, and the lock with it.
        """
        conn = self._session
        with _named_when_lost():
            _lock(conn)
        is_done = False
        try:
            with _named_when_lost():
                holds = self._holds(conn)
            yield holds
            is_done = True
        finally:
            had_lock = self._unlock(conn)
            if is_done and not had_lock:  # otherwise the error of the block says more
                raise _lost()

    def _holds(self, conn: Connection) -> RecordHolds:
        """Return the current holds; they are read again only after a change."""
        now = version(conn)
        if self._known is None or self._known[0] != now:
            self._known = now, on_records(conn, self._database)
        return self._known[1]

    def confirm(self) -> None:
        """Check that the lock is still there; call it right before a deletion commits.

        Raises:
            ServiceError: it is not, so that a hold may have been placed meanwhile: roll back, and
                remove no restore point.
        """
        conn = self._session
        if not still_locked(conn, lock_number(conn, StateLock.HOLDS), shared=True):
            raise _lost()

    @property
    def _session(self) -> Connection:
        if self._conn is None:
            raise _lost()
        return self._conn

    def _unlock(self, conn: Connection) -> bool:
        """Release the lock; return whether the session still had it."""
        try:
            with _named_when_lost():
                if conn.scalar(UNLOCK, _name(conn)):
                    return True
        except ServiceError:
            pass
        self._close()  # the session's other locks end with it
        return False

    def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


def _name(conn: Connection) -> dict[str, int]:
    return {"lock": lock_number(conn, StateLock.HOLDS)}


def _lock(conn: Connection) -> None:
    refusal = ServiceError(
        "Another session is still placing a legal hold. Nothing was deleted.",
        "Wait until `hold add` has ended, or end its session in the state database. Then run "
        "again.",
    )
    with lock_timeout_as(refusal):
        conn.execute(LOCK, _name(conn))


@contextmanager
def _named_when_lost() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PendingRollbackError):  # the latter: lost in the statement before
        raise _lost() from None


def _lost() -> ServiceError:
    return ServiceError(
        "The state database was lost, and with it the lock that keeps new holds out.",
        "Check that the state database runs, then retry.",
    )


class RestorePointGuard(HoldGuard):
    """A session of the state database under which restore points are removed, one at a time.

        with RestorePointGuard(state, "courier") as guard:
            for point in points:
                with guard.removing(point) as is_held:
                    if not is_held:
                        guard.confirm()
                        ...  # remove it

    ``hold add`` waits for the removal of the current point, and the next point sees its hold.
    """

    @contextmanager
    def removing(self, point: str) -> Iterator[bool]:
        """Keep new holds out, and yield whether the restore point or its database is held.

        Raises:
            ServiceError: a hold is being placed for too long, or the state database was lost.
        """
        with self.batch():
            with self._state.connect() as conn:
                is_held = bool(restore_points_held(conn, self._database, [point]))
            yield is_held


@dataclass(frozen=True)
class StoredRestorePoint:
    """A restore point in the off-site store.

    Attributes:
        id: of the restore point, or the key of an object that its signature does not fit.
        taken_at: moment of its snapshot; None if its manifest is refused, so that it is unknown.
        expires_at: from when on pruning may delete it; None likewise.
        held: whether a legal hold keeps it beyond that.
    """

    id: str
    taken_at: datetime | None = None
    expires_at: datetime | None = None
    held: bool = False
