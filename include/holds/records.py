"""The legal holds as they bear on records, and the lock under which records are deleted.

Whoever places a hold holds `StateLock.HOLDS` exclusively, whoever deletes holds it shared, batch by
batch, and reads the holds under it. So once a hold is placed no deletion that did not know it can
commit; and since PostgreSQL queues fairly, batches do not keep a hold waiting for the run's end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, PendingRollbackError

from include.holds.keys import split
from include.holds.registry import RECORD_KINDS, Hold, HoldKind, active, version, with_released
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
    """The active holds as they bear on records of one mapped database, each oldest first.

    Attributes:
        everything: holds on the database: all its records stay.
        classes: holds on record classes, by name of the class.
        values: holds on what records are found by: kind (subject, waybill, case) -> key as text.
            The three kinds are always there. One hold may stand under two keys, see `on_records`.
    """

    everything: tuple[Hold, ...]
    classes: Mapping[str, tuple[Hold, ...]]
    values: Mapping[HoldKind, Mapping[str, tuple[Hold, ...]]]

    @property
    def fingerprint(self) -> tuple[int, ...]:
        """Ids of these holds, ascending: equal as long as none was placed or released."""
        groups = [self.everything, *self.classes.values()]
        groups += [holds for by_key in self.values.values() for holds in by_key.values()]
        return tuple(sorted({hold.id for holds in groups for hold in holds}))


def on_records(conn: Connection, database: str, also: Collection[int] = ()) -> RecordHolds:
    """Return the holds that keep records of a database; holds on restore points keep none.

    ``x`` holds in every database, ``<database>/x`` in that one. As a key may have a slash itself,
    what is written with one also holds records whose key is all of it: rather too much is kept than
    too little.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        also: ids of holds that count though they were released.
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

    def __enter__(self) -> HoldGuard:
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session; its locks end with it."""
        self._close()

    @contextmanager
    def batch(self) -> Iterator[RecordHolds]:
        """Keep new holds out, and yield those that there are.

        Raises:
            ServiceError: a hold was being placed for too long, or the state database was lost:
                before the batch, or while it went on, and the lock with it.
        """
        conn = self._session
        with _named_when_lost():
            _lock(conn)
        done = False
        try:
            with _named_when_lost():
                holds = self._holds(conn)
            yield holds
            done = True
        finally:
            kept = self._unlocked(conn)
            if done and not kept:  # else the work's own error says more
                raise _lost()

    def _holds(self, conn: Connection) -> RecordHolds:
        """Return the current holds; they are read again only after a change."""
        now = version(conn)
        if self._known is None or self._known[0] != now:
            self._known = now, on_records(conn, self._database)
        return self._known[1]

    def confirm(self) -> None:
        """See that the lock is still there; ask this right before what was deleted is committed.

        Raises:
            ServiceError: it is not, so that a hold may have been placed meanwhile: roll back.
        """
        conn = self._session
        if not still_locked(conn, lock_number(conn, StateLock.HOLDS), shared=True):
            raise _lost()

    @property
    def _session(self) -> Connection:
        if self._conn is None:
            raise _lost()
        return self._conn

    def _unlocked(self, conn: Connection) -> bool:
        """Give the lock back; whether it was still there."""
        try:
            with _named_when_lost():
                if conn.scalar(UNLOCK, _name(conn)):
                    return True
        except ServiceError:
            pass
        self._close()  # what a connection still has that was not what we took it for, ends here
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


def _frozen(found: Mapping[str, list[Hold]]) -> dict[str, tuple[Hold, ...]]:
    return {key: tuple(holds) for key, holds in found.items()}
