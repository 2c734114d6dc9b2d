"""Lines of the ledger that were changed: looked for while people read, whatever they read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.ledger import LedgerWatch, Watched
from include.services.errors import ParcelSealError

AT_ONCE = 500  # lines that are looked at while a visitor waits: some 50 ms
AGAIN = 60.0  # seconds after which a longer ledger is looked at again
PIECE, PAUSE = 100, 0.02  # lines, and seconds for others after them, while nobody waits

_log = logging.getLogger(__name__)
Reading = Callable[[], AbstractContextManager[Connection]]


class Watcher:
    """Tells what is known of the ledger's lines, and sees to it that it is known soon.

    A short ledger is looked at for each visitor. A longer one is looked at beside them, once a
    minute, and they are told how far that is.

    Args:
        watch: looks at the lines.
        reading: opens a connection to the state database, as `Services.reading`.
        steady: seconds of a clock that never goes back.
    """

    def __init__(
        self, watch: LedgerWatch, reading: Reading, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._watch, self._reading, self._steady = watch, reading, steady
        self._lock = threading.Lock()
        self._beside: threading.Thread | None = None
        self._looked_at = float("-inf")

    def look(self, conn: Connection) -> Watched:
        """Return what is known.

        Args:
            conn: the visitor's connection to the state database.
        """
        with self._lock:
            if self._beside is not None:
                return self._watch.seen
            seen = self._watch.seen
            if seen.lines > AT_ONCE and self._steady() - self._looked_at < AGAIN:
                return seen
            if seen.lines <= AT_ONCE:
                self._watch.begin(conn)
                seen = self._watch.go_on(conn, AT_ONCE)
                if seen.complete:
                    return seen
            self._beside = threading.Thread(target=self._go_on, name="ledger-watch", daemon=True)
            self._beside.start()
            return seen

    def wait(self, seconds: float) -> None:
        """Wait for a round that is under way, at most so long."""
        beside = self._beside
        if beside is not None:
            beside.join(seconds)

    def _go_on(self) -> None:
        try:
            with self._reading() as conn:
                seen = self._watch.begin(conn)
                while not seen.complete:
                    before = seen.looked_at
                    seen = self._watch.go_on(conn, PIECE)
                    if seen.looked_at == before:  # lines went away meanwhile
                        break
                    time.sleep(PAUSE)
        except (SQLAlchemyError, ParcelSealError) as error:
            _log.warning("the ledger could not be looked through: %s", type(error).__name__)
        finally:
            with self._lock:
                self._looked_at = self._steady()
                self._beside = None
