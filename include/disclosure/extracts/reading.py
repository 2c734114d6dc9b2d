"""Read rows from the database in a separate thread, and report progress meanwhile."""

from __future__ import annotations

import queue
import select
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.pq import ExecStatus

PIECE = 256 * 1024  # size in bytes of a piece of CSV
INTERVAL = 1.0  # seconds between two reports of progress
_DEPTH = 8  # pieces that wait between the threads, which limits the used memory
_BATCH = 500  # rows
_GRACE = 0.2  # seconds for which the thread may finish its piece before its query is cancelled

Item = TypeVar("Item")
Row = tuple[str | None, ...]


class Heartbeat:
    """Calls a function at most once per `INTERVAL`."""

    def __init__(self, progress: Callable[[], None]) -> None:
        self._progress = progress
        self._reported = time.monotonic()

    def beat(self) -> None:
        """Call the function if its last call is long enough ago."""
        now = time.monotonic()
        if now - self._reported >= INTERVAL:
            self._reported = now
            self._progress()


class BackgroundReader(Generic[Item]):
    """Iterates over items that a separate thread reads from the database.

    The reader is a context manager. In its ``with`` block, iterate over the reader. It reports
    progress even while the server sends nothing. If the ``with`` block ends before all items are
    read, the query is cancelled.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        items: Generator[Item, None, None],
        heartbeat: Heartbeat,
    ) -> None:
        self._connection = connection
        self._items = items
        self._heartbeat = heartbeat
        self._queue: queue.Queue[Item | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="extract", daemon=True)

    def __enter__(self) -> BackgroundReader[Item]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        until, is_cancelled = time.monotonic() + _GRACE, False
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._queue.get_nowait()  # the thread may wait until the queue has room
            self._thread.join(timeout=0.02)
            if not is_cancelled and time.monotonic() > until and self._thread.is_alive():
                is_cancelled = True
                with suppress(psycopg.Error):  # a lost connection ends the thread
                    self._connection.cancel_safe(timeout=5)

    def __iter__(self) -> Iterator[Item]:
        while True:
            try:
                item = self._queue.get(timeout=INTERVAL)
            except queue.Empty:
                self._heartbeat.beat()
                continue
            if item is None:
                break
            yield item
            self._heartbeat.beat()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with closing(self._items):
                for item in self._items:
                    if self._stopped.is_set():
                        return
                    self._queue.put(item)
        except BaseException as error:  # noqa: BLE001 - raised again in the reading thread
            self._error = error
        finally:
            self._queue.put(None)


class CsvCopy:
    """The CSV that a COPY statement sends.

    Attributes:
        rows: number of rows, without the heading; 0 until all pieces were read.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], statement: bytes, *, has_crlf: bool
    ) -> None:
        self.rows = 0
        self._connection = connection
        self._statement = statement
        self._has_crlf = has_crlf

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield pieces of the CSV. Each piece contains whole rows.

        Raises:
            psycopg.Error: the query failed, or the connection was lost.
        """
        cursor = self._connection.cursor()
        with cursor.copy(self._statement):
            for piece in self._rows():
                yield _with_crlf(piece) if self._has_crlf else piece

    def _rows(self) -> Generator[bytes, None, None]:
        """Yield pieces of the CSV as the server sends it.

        The function reads from libpq directly, which needs less than half the CPU time of psycopg's
        `Copy`. The server sends each row as a separate message (PostgreSQL 18, 54.7).
        """
        pgconn, arrival = self._connection.pgconn, select.poll()
        arrival.register(pgconn.socket, select.POLLIN)
        buffer = bytearray()
        size = 0
        while size >= 0:
            size, row = pgconn.get_copy_data(1)
            while size > 0:
                buffer += row
                if len(buffer) >= PIECE:
                    yield bytes(buffer)
                    buffer.clear()
                size, row = pgconn.get_copy_data(1)
            if size == 0:  # no complete row has arrived
                arrival.poll()
                pgconn.consume_input()
        result = pgconn.get_result()
        while pgconn.get_result() is not None:
            pass  # libpq needs this call until it returns None
        assert result is not None
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
        self.rows = result.command_tuples or 0
        if buffer:
            yield bytes(buffer)


def _with_crlf(rows: bytes) -> bytes:
    """Return rows of CSV that end with CRLF, as RFC 4180 requires. PostgreSQL ends them with LF.

    Args:
        rows: whole rows. Line breaks inside quotes are not changed. CSV writes a quote inside a
            value as two quotes. The first of them ends the quoted text and the second begins it
            again, so no special case is needed.
    """
    parts = rows.split(b'"')
    parts[::2] = [part.replace(b"\n", b"\r\n") for part in parts[::2]]
    return b'"'.join(parts)


def row_batches(
    connection: psycopg.Connection[Any], statement: bytes
) -> Generator[list[Row], None, None]:
    """Yield the rows that a COPY statement in text format sends, in lists.

    The values are texts as PostgreSQL prints them, or None. So each value of each type can be read,
    even a date that Python cannot represent.
    """
    batch: list[Row] = []
    with connection.cursor().copy(statement) as copy:
        for row in copy.rows():
            batch.append(row)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch
