"""The services that pages use: stores, policy pack and read access to the state database."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ProgrammingError

from include.composition import pages_engine, pages_recording_engine, services_from
from include.evidence import index
from include.evidence.bundle_reader import BundleReader
from include.evidence.check import EvidenceRefused
from include.evidence.control_history import ControlHistory
from include.evidence.ledger import LedgerRow, RowChecker, RowCheckState, head
from include.evidence.ledger_recovery import pending_signature
from include.evidence.signing import TrustedKeys
from include.findings.register import Finding, list_findings
from include.orchestration.run import airflow_connections
from include.policy import PolicyPack
from include.service_container import Services
from include.services.objectstore.base import ObjectStore, StoreError
from include.services.stores import open_store
from include.state.migrate import require_current
from plugins.compliance_ui.ledger_watcher import LedgerWatcher

SERVICES_CACHED_FOR = 60.0  # seconds; then connections and policy pack are read again
LOSSES_CACHED_FOR = 60.0  # seconds; then the ledger is searched for missing bundles again
COUNTS = 512  # cached counts of filtered lists
PICTURES = 1024  # cached pictures and tables, of at most some 40 KiB each
PAST_CACHED_FOR = 600.0  # seconds; then the evidence of a past day is read and checked again
PAST_DAYS = 128  # past days whose evidence is cached
FINDINGS_CACHED_FOR = 5.0  # seconds; then the overview reads the open findings again
HISTORY_COMPARED_AFTER = 60.0  # seconds; then rows deleted from the history index are noticed
# Tasks retry six times with a timeout of a minute. With that, forty requests for pages would block
# all threads of the server.
_INTERACTIVE_TIMEOUTS = {"connect_timeout": 3, "read_timeout": 8, "max_attempts": 2}
_log = logging.getLogger(__name__)
_Cached = TypeVar("_Cached")


class SharedCache:
    """A cache that all requests of the process share.

    A cached value is replaced when its lifetime has ended, or when `get` is called with another
    key.

    Args:
        steady: function that returns the seconds of a monotonic clock.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self.steady = steady
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._values: dict[str, tuple[object, float, object]] = {}
        self._counts: OrderedDict[Hashable, int] = OrderedDict()
        self._pictures: OrderedDict[Hashable, str] = OrderedDict()
        self._past: OrderedDict[Hashable, tuple[float, object]] = OrderedDict()

    def get(
        self,
        name: str,
        create: Callable[[], _Cached],
        key: object = None,
        seconds: float = float("inf"),
    ) -> _Cached:
        """Return the cached value of a name, or create the value if it is not cached.

        While the value is created, concurrent requests wait for it.

        Args:
            name: name of the value in the cache.
            create: function that returns a new value.
            key: identity of the source of the value, such as a database address. If it does not
                equal the key with which the cached value was created, a new value is created.
            seconds: lifetime of the value in seconds.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            entry = self._values.get(name)
            if entry is not None and entry[0] == key and self.steady() - entry[1] < seconds:
                return entry[2]  # type: ignore[return-value]  # of that name
            value = create()
            self._values[name] = (key, self.steady(), value)
            if entry is not None and isinstance(entry[2], Engine):
                entry[2].dispose()  # connections in use stay open until they are returned
            return value

    def count(self, key: Hashable, count: Callable[[], int]) -> int:
        """Return the number that is cached for a key.

        If the cache has no number for the key, call `count` and cache the number that it returns.

        Args:
            key: identity of the counted objects, for example the filter of a query.
            count: function that counts the objects.
        """
        with self._lock:
            if key in self._counts:
                return self._counts[key]
        number = count()
        with self._lock:
            self._counts[key] = number
            while len(self._counts) > COUNTS:
                self._counts.popitem(last=False)
        return number

    def picture(self, key: Hashable, draw: Callable[[], str]) -> str:
        """Return the picture or table that is cached for a key, or else draw and cache it.

        Args:
            key: everything that the picture shows, or the version of it, and the language.
            draw: function that draws the picture.
        """
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        picture = draw()
        with self._lock:
            self._pictures[key] = picture
            while len(self._pictures) > PICTURES:
                self._pictures.popitem(last=False)
        return picture

    def past(self, key: Hashable, read: Callable[[], _Cached]) -> _Cached:
        """Return a cached value of a past day, and read it again after ten minutes.

        Args:
            key: the day, and everything else on which the value depends.
            read: function that reads the value.
        """
        with self._lock:
            read_at, value = self._past.get(key, (float("-inf"), None))
        if self.steady() - read_at < PAST_CACHED_FOR:
            return value  # type: ignore[return-value]  # of that key
        new_value = read()
        with self._lock:
            self._past[key] = self.steady(), new_value
            self._past.move_to_end(key)
            while len(self._past) > PAST_DAYS:
                self._past.popitem(last=False)
        return new_value


@dataclass(frozen=True)
class LedgerState:
    """The completeness of the evidence ledger and of the registers in the state database.

    Attributes:
        missing: number of deleted ledger rows.
        row_check: state of the check for changed ledger rows.
        registers_lost: whether the newest bundle reports that registers, such as the register of
            legal holds, lost entries that an earlier bundle had sealed.
        newest: sequence number and SHA256SUMS digest of the newest bundle; None if the ledger is
            empty.
    """

    missing: int
    row_check: RowCheckState
    registers_lost: bool = False
    newest: tuple[int, str] | None = None

    @property
    def broken(self) -> bool:
        """Whether ledger rows are missing or changed, or registers lost entries.

        If so, readers cannot rely on the compliance pages.
        """
        return bool(self.missing or self.row_check.changed or self.registers_lost)


@dataclass(frozen=True)
class PageServices:
    """The connections and the policy pack that the compliance pages use.

    `page_services` reads the connections and the policy pack again after a minute.

    Args:
        core: connections and policy pack.
        cache: cache of values that are kept when the connections and the policy pack are read
            again.
    """

    core: Services
    cache: SharedCache

    @property
    def pack(self) -> PolicyPack:
        """The policy pack, from a cache that is at most one minute old."""
        return self.core.pack

    @property
    def reader(self) -> Engine:
        """The database engine that reads the state database with a read-only login.

        Raises:
            UsageError: migrations of the state database are pending.
        """
        address = self.core.role_database("pages_db", "state_db")
        return self.cache.get("reader", lambda: pages_engine(self.core), address.conninfo())

    @property
    def recorder(self) -> Engine:
        """The database engine that records openings of extracts, with the login of the pages.

        Raises:
            UsageError: migrations of the state database are pending.
        """
        address = self.core.role_database("pages_db", "state_db")
        return self.cache.get(
            "recorder", lambda: pages_recording_engine(self.core), address.conninfo()
        )

    @property
    def bundle_reader(self) -> BundleReader:
        """The reader of evidence bundles. It remembers which bundles it has verified."""
        trusted = tuple(self.core.trusted)
        key = (self.core.connection("evidence_store"), trusted)

        def make() -> BundleReader:
            store = self.store("evidence_store")
            return BundleReader(store, trusted, self.cache.steady, self.pending_signature)

        return self.cache.get("bundle_reader", make, key)

    def pending_signature(self, bundle: str) -> bytes | None:
        """Return the signature of a sealed bundle that is not uploaded to the evidence store yet.

        Return None if the signature does not exist, or if the login of ``pages_db`` may
        not read it.

        Args:
            bundle: folder of the bundle in the evidence store.
        """
        try:
            with self.read_connection() as conn:
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
        """Open a store with short timeouts, because a person waits for the page.

        Args:
            conn_id: id of the store's connection.
        """
        spec = self.core.connection(conn_id)
        return open_store(replace(spec, extra={**_INTERACTIVE_TIMEOUTS, **spec.extra}))

    @property
    def watcher(self) -> LedgerWatcher:
        """The background check for changed rows of the evidence ledger."""
        address = self.core.role_database("pages_db", "state_db").conninfo()
        trusted = tuple(self.core.trusted)

        def make() -> LedgerWatcher:
            return LedgerWatcher(
                RowChecker(TrustedKeys(trusted)), self.read_connection, self.cache.steady
            )

        return self.cache.get("watcher", make, (address, trusted))

    @property
    def timezone(self) -> str:
        """The timezone of the policy pack, in which pages show times."""
        return self.pack.calendar.timezone

    def now(self) -> datetime:
        """Return the current time in the timezone of the policy pack."""
        return self.core.clock.now().astimezone(self.pack.calendar.zone)

    def history(self, conn: Connection) -> ControlHistory:
        """Return the history of controls, with all results that are in the history index now.

        Args:
            conn: connection to the state database.
        """
        address = self.core.role_database("pages_db", "state_db").conninfo()
        history = self.cache.get("history", ControlHistory, address)
        history.refresh(conn)

        def compare() -> None:
            history.reload_if_changed(conn)

        self.cache.get("history_compared", compare, address, HISTORY_COMPARED_AFTER)
        return history

    def findings(
        self, conn: Connection, ledger: LedgerState, as_of: datetime | None
    ) -> Sequence[Finding]:
        """Return the findings that were open at a time, ordered by due date.

        The findings that are open now are read again after five seconds, and also at the first
        visit after a run was sealed. The register may enter the findings of this run only later.

        Args:
            conn: connection to the state database.
            ledger: state of the evidence ledger.
            as_of: a past time; None for now.
        """
        if as_of is not None:
            return list_findings(conn, as_of=as_of)
        key = (self.core.role_database("pages_db", "state_db").conninfo(), ledger.newest)
        return self.cache.get("findings", lambda: list_findings(conn), key, FINDINGS_CACHED_FOR)

    def ledger(self, conn: Connection, pruned: int) -> LedgerState:
        """Return which parts of the evidence ledger and the registers are missing or changed.

        Args:
            conn: connection to the state database.
            pruned: sequence number of the last bundle whose ledger row may have been deleted after
                its retention period.
        """
        newest = head(conn)
        version = (newest.seq, newest.sums_sha256) if newest else None
        missing = self.cache.get(
            "lost",
            lambda: index.missing_row_count(conn, pruned),
            version,
            seconds=LOSSES_CACHED_FOR,
        )
        registers_lost = newest is not None and self._reports_lost_registers(newest)
        return LedgerState(missing, self.watcher.status(conn), registers_lost, version)

    def _reports_lost_registers(self, newest: LedgerRow) -> bool:
        """Return whether the newest bundle reports that registers lost entries.

        Return False if the newest bundle cannot be read. The pages show such a bundle as invalid.
        """
        try:
            registers = self.bundle_reader.result(newest).registers
        except (EvidenceRefused, StoreError):
            return False  # the pages show such a bundle as invalid
        return registers is not None and bool(registers.lost)

    @contextmanager
    def read_connection(self) -> Iterator[Connection]:
        """Connect to the state database with a read-only login, for a ``with`` block.

        Raises:
            UsageError: the schema of the state database does not fit this version of ParcelSeal.
        """
        with self.reader.connect() as conn:
            require_current(conn)
            yield conn

    def read_cached(self, conn_id: str, seconds: float, make: Callable[[], _Cached]) -> _Cached:
        """Return cached data of a store, or read the data again if its lifetime has ended.

        Args:
            conn_id: id of the store's connection.
            seconds: lifetime of the data in seconds.
            make: function that reads the data.
        """
        key = (self.core.connection(conn_id), tuple(self.core.trusted))
        return self.cache.get(conn_id, make, key, seconds)


_cache = SharedCache()


def page_services() -> PageServices:
    """Return the services for a request. Connections and policy pack are cached for a minute."""

    def create() -> PageServices:
        services = services_from(os.environ, airflow_connections())
        return PageServices(services, _cache)

    return _cache.get("services", create, seconds=SERVICES_CACHED_FOR)
