"""What the pages read from: the state database as one who may only read, stores, policy pack."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from sqlalchemy import Connection, Engine

from include.evidence.shelf import Shelf
from include.orchestration.run import airflow_connections
from include.services.clock import Clock
from include.state.migrate import require_current
from include.workplace import Workplace

COUNTS = 512  # of filtered lists, that are remembered
KEPT_FOR = 60.0  # seconds after which connections and policy pack are looked up again
_Made = TypeVar("_Made")


class Counts:
    """Counts of lists that only grow: one holds for as long as its key, which names the list's end.

    Kept across `Services`, since what is counted stays true.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, int] = OrderedDict()

    def of(self, key: Hashable, count: Callable[[], int]) -> int:
        """Return the count of that key, made where it is not known."""
        with self._lock:
            if key in self._known:
                return self._known[key]
        found = count()
        with self._lock:
            self._known[key] = found
            while len(self._known) > COUNTS:
                self._known.popitem(last=False)
        return found


@dataclass
class Services:
    """What one minute's requests share.

    Args:
        place: connections and policy pack.
        since: of the steady clock.
        counts: of filtered lists.
    """

    place: Workplace
    since: float
    counts: Counts
    _kept: dict[str, tuple[float, object]] = field(default_factory=dict)

    @cached_property
    def reader(self) -> Engine:
        """The state database, for reading; raises UsageError where migrations are pending."""
        return self.place.reader

    @cached_property
    def shelf(self) -> Shelf:
        """The evidence store."""
        return Shelf(self.place.store("evidence_store"), self.place.trusted)

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.place.clock

    def now(self) -> datetime:
        """The moment in the pack's timezone."""
        return self.clock.now().astimezone(self.place.pack.calendar.zone)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to the state database that cannot write.

        Raises:
            UsageError: its schema is not the one of this version.
        """
        with self.reader.connect() as conn:
            require_current(conn)
            yield conn

    def remembered(self, name: str, seconds: float, make: Callable[[], _Made]) -> _Made:
        """Return what was made under a name less than so many seconds ago, else make it."""
        now = time.monotonic()
        at, made = self._kept.get(name, (float("-inf"), None))
        if now - at >= seconds:
            made = make()
            self._kept[name] = (now, made)
        return made  # type: ignore[return-value]  # of that name


_lock = threading.Lock()
_now: Services | None = None
_counts = Counts()


def services() -> Services:
    """Return the services of this minute; made anew after it, so that changes count."""
    global _now
    with _lock:
        if _now is None or time.monotonic() - _now.since > KEPT_FOR:
            old, place = _now, Workplace.from_environment(os.environ, airflow_connections())
            _now = Services(place, time.monotonic(), _counts)
            if old is not None and "reader" in vars(old):
                old.reader.dispose()  # connections that are lent stay until they are given back
        return _now
