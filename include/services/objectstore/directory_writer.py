"""Streaming into a file that becomes visible all at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from include.services.objectstore.base import StoredObject, StoreError
from include.services.objectstore.directory_errors import naming
from include.services.objectstore.keys import partial_name

# The disk works while the producer does: the final fsync then finds little left to write, which
# nearly doubles the speed of large objects. (Hashing in another thread was tried: no gain.)
_FLUSH_EVERY_BYTES = 32 * 1024 * 1024
_CREATE_ATTEMPTS = 5


class DirectoryWriter:
    """Stream into one file; see ``ObjectWriter``.

    Writes to ``.<name>.partial-<random>`` beside the final name, then fsync, rename, fsync of the
    directories. Data are hashed as they come and never copied.
    """

    def __init__(
        self, path: Path, key: str, store: str, publish: Callable[[Path, str, int], StoredObject]
    ) -> None:
        self._key = key
        self._store = store
        self._publish = publish
        self._partial = path.with_name(partial_name(path.name))
        self._hash = hashlib.sha256()
        self._size = 0
        self._flushed = 0
        self._flusher: ThreadPoolExecutor | None = None
        self._flush: Future[None] | None = None
        self._failed = False
        with naming("write", key, store):
            self._fd = _create(self._partial)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes.

        Raises:
            StoreError: the file system refused; the writer is then unusable.
        """
        self._check_usable()
        view = memoryview(data).cast("B")
        self._hash.update(view)
        try:
            with naming("write", self._key, self._store):
                _write_all(self._fd, view)
                self._size += len(view)
                self._flush_early()
        except BaseException:
            self._failed = True
            raise
        return len(view)

    def commit(self) -> StoredObject:
        """Make the file durable, then visible.

        Raises:
            ObjectLocked: an object of that name is locked.
            StoreError: the file system refused.
        """
        self._check_usable()
        try:
            with naming("write", self._key, self._store):
                self._stop_flusher()
                if self._flush is not None:
                    self._flush.result()
                os.fsync(self._fd)
                self._close()
            return self._publish(self._partial, self._hash.hexdigest(), self._size)
        except BaseException:
            self._failed = True
            raise

    def abort(self) -> None:
        """Remove what was written, unless it was committed."""
        with naming("remove the unfinished", self._key, self._store):
            self._stop_flusher()
            self._close()
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def _check_usable(self) -> None:
        if self._fd < 0 or self._failed:
            raise StoreError(f"The writer of {self._key!r} in {self._store} is closed or failed.")

    def _flush_early(self) -> None:
        if self._size - self._flushed < _FLUSH_EVERY_BYTES:
            return
        if self._flusher is None:
            self._flusher = ThreadPoolExecutor(1, thread_name_prefix="directory-flush")
        if self._flush is not None:
            self._flush.result()
        self._flush = self._flusher.submit(os.fdatasync, self._fd)
        self._flushed = self._size

    def _stop_flusher(self) -> None:
        if self._flusher is not None:
            self._flusher.shutdown(wait=True)
            self._flusher = None

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _create(partial: Path) -> int:
    """Create the temporary file and the directories it needs below the store's root."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(_CREATE_ATTEMPTS):
        try:
            return os.open(partial, flags, 0o666)
        except FileNotFoundError:
            # Also when a deletion just removed the directory because it was empty.
            partial.parent.mkdir(parents=True, exist_ok=True)
    return os.open(partial, flags, 0o666)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
