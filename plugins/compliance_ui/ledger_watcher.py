"""Check in the background that the rows of the evidence ledger were not changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.ledger import RowChecker, RowCheckState
from include.services.errors import ParcelSealError

CHECKED_AT_ONCE = 500  # rows that are checked while a visitor waits, in some 50 ms
RECHECK_INTERVAL = 60.0  # seconds after which a longer ledger is checked again
BATCH, PAUSE = 100, 0.02  # rows of a background check, and seconds between two batches

_log = logging.getLogger(__name__)
Reading = Callable[[], AbstractContextManager[Connection]]


class LedgerWatcher:
    """A recurring check of all rows of the evidence ledger.

    A short ledger is checked at each request. A longer ledger is checked by a background thread, at
    most once a minute; the pages show the progress of that check.

    Args:
        checker: object that checks the ledger rows and counts the checked rows.
        reading: function that opens a connection to the state database, such as
            `PageServices.read_connection`.
        steady: function that returns the seconds of a monotonic clock.
    """

    def __init__(
        self, checker: RowChecker, reading: Reading, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._checker, self._reading, self._steady = checker, reading, steady
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._checked_at = float("-inf")

    def status(self, conn: Connection) -> RowCheckState:
        """Return the state of the check of ledger rows.

        A short ledger is checked first. For a longer ledger, a new background check is started if
        the last one is too old.

        Args:
            conn: connection of the current request to the state database.
        """
        with self._lock:
            if self._thread is not None:
                return self._checker.state
            state = self._checker.state
            if (
                state.rows > CHECKED_AT_ONCE
                and self._steady() - self._checked_at < RECHECK_INTERVAL
            ):
                return state
            if state.rows <= CHECKED_AT_ONCE:
                self._checker.start(conn)
                state = self._checker.check_next(conn, CHECKED_AT_ONCE)
                if state.complete:
                    return state
            self._thread = threading.Thread(target=self._check, name="ledger-watch", daemon=True)
            self._thread.start()
            return state

    def wait(self, seconds: float) -> None:
        """Wait until the background check has ended, but at most the given number of seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _check(self) -> None:
        try:
            with self._reading() as conn:
                state = self._checker.start(conn)
                while not state.complete:
                    previous_row = state.checked
                    state = self._checker.check_next(conn, BATCH)
                    if state.checked == previous_row:  # rows were deleted meanwhile
                        break
                    time.sleep(PAUSE)
        except (SQLAlchemyError, ParcelSealError) as error:
            _log.warning("the ledger could not be checked: %s", type(error).__name__)
        finally:
            with self._lock:
                self._checked_at = self._steady()
                self._thread = None
