"""Downloads that are sent while they are read, with a limit on their number at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import HTTPException, status
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PATIENCE = 10  # seconds for which a request waits for its turn


class StreamedDownload(StreamingResponse):
    """A download that closes its source and frees its turn, also if it is cancelled.

    The first piece is read before the response starts, so an error until then becomes an error
    page. If the source fails later, the connection is closed before the file is complete.

    Args:
        read: opens the source and returns its content in pieces. It is called after the download
            has its turn.
        turns: the turns of this kind of download.
        name: file name that the browser suggests.
        media_type: media type of the file.
        size: size of the file in bytes; None if it is unknown.

    Raises:
        HTTPException: 503 if no other download ended within `PATIENCE` seconds.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[bytes]],
        turns: threading.BoundedSemaphore,
        name: str,
        media_type: str,
        size: int | None = None,
    ) -> None:
        pieces = _in_turn(read, turns)
        first = next(pieces, b"")
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "content-encoding": "identity",  # else Airflow would compress the file again
        }
        if size is not None:
            headers["content-length"] = str(size)
        super().__init__(_with_first(first, pieces), media_type=media_type, headers=headers)
        self._pieces: Any = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file. Close the source at the end, whether or not the file was sent."""
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            # Airflow's middlewares (Starlette's BaseHTTPMiddleware) end a response that failed as
            # if it were complete. They and the server refuse this unknown message, and close the
            # connection instead, so that the browser reports that the download failed.
            await send({"type": "parcelseal.download.failed"})
            raise
        finally:
            await run_sync(self._pieces.close)


def _in_turn(
    read: Callable[[], Iterator[bytes]], turns: threading.BoundedSemaphore
) -> Iterator[bytes]:
    """Yield the pieces of a file while the download has its turn."""
    if not turns.acquire(timeout=PATIENCE):
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE)
    try:
        yield from read()
    finally:
        turns.release()


def _with_first(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
