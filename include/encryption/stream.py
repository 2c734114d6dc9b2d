"""Run stages of a stream in concurrent threads, and compress the stream before its encryption."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import zstandard

PIECE = 1024 * 1024  # size in bytes of a piece that a stage passes to the next stage
DEPTH = 4  # pieces that wait between two stages, which limits the used memory


class Sink(Protocol):
    """An object with the method ``write(data)``."""

    def write(self, data: bytes, /) -> object:
        """Write the given bytes."""
        ...


class Stage:
    """A stage of a stream. It runs an iterator of bytes in a separate thread.

    A stage is a context manager. In its ``with`` block, iterate over the stage to get the pieces
    that the iterator yields. The thread is at most `DEPTH` pieces ahead of the reader. If the
    iterator raises an error, the reader gets this error after the last piece. If the ``with`` block
    ends before all pieces are read, the thread stops at its next piece.

    Args:
        pieces: function that returns the iterator. The thread calls it.
        name: name of the thread.
    """

    def __init__(self, pieces: Callable[[], Iterable[bytes]], name: str) -> None:
        self._make = pieces
        self._queue: queue.Queue[bytes | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Stage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            yield piece
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            for piece in self._make():
                if self._left.is_set():
                    return
                self._queue.put(piece)
        except BaseException as error:  # noqa: BLE001 - raised again in the reading thread
            self._error = error
        finally:
            self._queue.put(None)


class FullReader:
    """A reader that joins pieces of bytes. Each read returns as many bytes as requested.

    Only a read at the end of the data returns fewer. `crypto.encrypting` requires this.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left: list[bytes] = []
        self._held = 0
        self.total = 0

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, or fewer at the end of the data.

        Args:
            size: number of bytes; -1 for all remaining bytes.
        """
        while size < 0 or self._held < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left.append(piece)
            self._held += len(piece)
        data = b"".join(self._left)
        if 0 <= size < len(data):
            data, rest = data[:size], data[size:]
            self._left, self._held = [rest], len(rest)
        else:
            self._left, self._held = [], 0
        self.total += len(data)
        return data


# Measured on courier data: level 1 takes half the CPU time of level 3 for output of the same size.
ZSTD_LEVEL = 1
ZSTD_WINDOW_LOG = 17  # 128 KiB stay in the processor's cache: a fifth faster, 4% larger
COMPRESSION = f"zstd level {ZSTD_LEVEL}"


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress the pieces into one zstd frame with a checksum, and yield the compressed bytes.

    The command ``zstd -d`` can decompress the frame.
    """
    # In its stage's own thread: zstd's worker threads only add copies and memory here, since the
    # server's single COPY process is slower than one compressor.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, window_log=ZSTD_WINDOW_LOG, write_checksum=True
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    for piece in pieces:
        if out := packer.compress(piece):
            yield out
    yield packer.flush()
