"""What the pages read from: the state database as one who may only read, stores, policy pack."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TypeVar

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ProgrammingError

from include.composition import pages_engine, workplace_of
from include.evidence import index
from include.evidence.adopt import pending_signature
from include.evidence.check import Refused
from include.evidence.ledger import LedgerWatch, Watched, head
from include.evidence.shelf import Shelf
from include.evidence.signing import TrustedKeys
from include.orchestration.run import airflow_connections
from include.services.connections import ConnectionSpec
from include.services.objectstore.base import ObjectStore, StoreError
from include.services.stores import open_store
from include.state.migrate import require_current
from include.workplace import Workplace
from plugins.compliance_ui.watching import Watcher

LOOKED_UP_FOR = 60.0  # seconds after which connections and policy pack are looked up again
LOST_FOR = 60.0  # seconds after which somebody looks again whether bundles are missing
COUNTS = 512  # of filtered lists, that are remembered
# A worker asks six times and for a minute each; forty pages would hold all threads of the server.
_WHILE_SOMEBODY_WAITS = {"connect_timeout": 3, "read_timeout": 8, "max_attempts": 2}
_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")


class Memory:
    """What requests share, under a name: made anew when its key changed or its time is over.

    Args:
        steady: seconds of a clock that never goes back.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self.steady = steady
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._kept: dict[str, tuple[Hashable, float, object]] = {}
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def keep(
        self,
        name: str,
        make: Callable[[], _Made],
        key: Hashable = None,
        seconds: float = float("inf"),
    ) -> _Made:
        """Return what is kept under a name, else make it; who asks meanwhile waits for it.

        Args:
            name: what it is.
            make: makes it.
            key: what it was made of; another key makes it anew.
            seconds: for which it is kept.
        """
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        with making:
            kept = self._kept.get(name)
            if kept is not None and kept[0] == key and self.steady() - kept[1] < seconds:
                return kept[2]  # type: ignore[return-value]  # of that name
            made = make()
            self._kept[name] = (key, self.steady(), made)
            if kept is not None and isinstance(kept[2], Engine):
                kept[2].dispose()  # connections that are lent stay until they are given back
            return made

    def count(self, key: Hashable, count: Callable[[], int]) -> int:
        """Return a count that holds for as long as its key does, made where it is not known."""
        with self._lock:
            if key in self._counts:
                return self._counts[key]
        found = count()
        with self._lock:
            self._counts[key] = found
            while len(self._counts) > COUNTS:
                self._counts.popitem(last=False)
        return found


@dataclass(frozen=True)
class LedgerState:
    """Whether the ledger is whole, for whoever reads anything that comes from it.

    Attributes:
        missing: lines that somebody removed.
        watched: lines that somebody changed.
        registers_lost: whether the newest bundle says that the state database lost erasures, holds,
            requests or findings that were sealed before.
    """

    missing: int
    watched: Watched
    registers_lost: bool = False

    @property
    def broken(self) -> bool:
        """Return whether readers cannot rely on what pages show."""
        return bool(self.missing or self.watched.changed or self.registers_lost)


@dataclass(frozen=True)
class Services:
    """What the requests of one minute work with.

    Args:
        place: connections and policy pack, as they were looked up.
        memory: what outlives the minute.
    """

    place: Workplace
    memory: Memory

    @property
    def reader(self) -> Engine:
        """The state database, for reading; raises UsageError where migrations are pending."""
        address = self.place.role_database("pages_db", "state_db")
        return self.memory.keep("reader", lambda: pages_engine(self.place), address.conninfo())

    @property
    def shelf(self) -> Shelf:
        """The evidence store, with what was checked of it."""
        trusted = tuple(self.place.trusted)
        key = (_told(self.place.connection("evidence_store")), trusted)

        def make() -> Shelf:
            store = self.store("evidence_store")
            return Shelf(store, trusted, self.memory.steady, self._pending_signature)

        return self.memory.keep("shelf", make, key)

    def _pending_signature(self, bundle: str) -> bytes | None:
        """Return the signature of a bundle whose seal did not put it into the store yet."""
        try:
            with self.reading() as conn:
                return pending_signature(conn, bundle)
        except ProgrammingError as error:
            if not isinstance(error.orig, InsufficientPrivilege):
                raise
            _log.warning(
                "The role of pages_db may not read signatures that wait for their upload; run "
                "`./parcelseal migrate --pages-role NAME` again."
            )
            return None

    def store(self, conn_id: str) -> ObjectStore:
        """A store as somebody asks it who waits for a page: one that hangs is given up soon."""
        spec = self.place.connection(conn_id)
        return open_store(replace(spec, extra={**_WHILE_SOMEBODY_WAITS, **spec.extra}))

    @property
    def watcher(self) -> Watcher:
        """What looks for changed lines of the ledger, with what it saw already."""
        address = self.place.role_database("pages_db", "state_db").conninfo()
        trusted = tuple(self.place.trusted)

        def make() -> Watcher:
            return Watcher(LedgerWatch(TrustedKeys(trusted)), self.reading, self.memory.steady)

        return self.memory.keep("watcher", make, (address, trusted))

    @property
    def timezone(self) -> str:
        """Of the pack; moments are shown in it."""
        return self.place.pack.calendar.timezone

    def now(self) -> datetime:
        """The moment in the pack's timezone."""
        return self.place.clock.now().astimezone(self.place.pack.calendar.zone)

    def ledger(self, conn: Connection, pruned: int) -> LedgerState:
        """Return whether the ledger or registers of the state database are incomplete.

        Args:
            conn: the state database.
            pruned: number of the last bundle whose line may be gone.
        """
        missing = self.memory.keep(
            "lost", lambda: index.lost(conn, pruned), index.end(conn), seconds=LOST_FOR
        )
        return LedgerState(missing, self.watcher.look(conn), self._registers_lost(conn))

    def _registers_lost(self, conn: Connection) -> bool:
        """Return what the newest bundle says of lost registers; False where it cannot be read."""
        newest = head(conn)
        if newest is None:
            return False
        try:
            registers = self.shelf.result(newest).registers
        except (Refused, StoreError):
            return False  # the pages show such a bundle as one that does not hold
        return registers is not None and bool(registers.lost)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to the state database that cannot write.

        Raises:
            UsageError: its schema is not the one of this version.
        """
        with self.reader.connect() as conn:
            require_current(conn)
            yield conn

    def of_store(self, conn_id: str, seconds: float, make: Callable[[], _Made]) -> _Made:
        """Return what was read from a store less than so many seconds ago, else read it."""
        key = (_told(self.place.connection(conn_id)), tuple(self.place.trusted))
        return self.memory.keep(conn_id, make, key, seconds)


_memory = Memory()


def services() -> Services:
    """Return what a request works with; connections and policy pack are those of this minute."""

    def look_up() -> Services:
        place = workplace_of(os.environ, airflow_connections())
        return Services(place, _memory)

    return _memory.keep("services", look_up, seconds=LOOKED_UP_FOR)


def _told(spec: ConnectionSpec) -> str:
    """A connection as text, to see whether it is still the same."""
    return json.dumps(asdict(spec), sort_keys=True, default=str)
