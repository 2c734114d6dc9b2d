"""Objects as files below a directory: a mounted disk, a NAS, or the local profile."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from include.services.clock import Clock, SystemClock
from include.services.errors import UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectReader,
    ObjectStore,
    StoredObject,
    StoreError,
    StoreProblem,
)
from include.services.objectstore.directory_files import (
    DirectoryWriter,
    folders_in,
    link_above,
    lock_path,
    naming,
    open_regular,
    preflight,
    read_lock,
    sync_directory,
    walk,
    write_lock,
)
from include.services.objectstore.keys import (
    checked_key,
    checked_list_prefix,
    checked_lock_end,
    finished_name,
    is_own_name,
    is_partial_name,
    locked_name,
)

_HASH_BYTES = 1024 * 1024
_WRITE_BITS = 0o222


class DirectoryReader(ObjectReader):
    """Stream out of one file; see ``ObjectReader``. Keeps reading the file it opened."""

    def __init__(self, file: io.BufferedReader, key: str, store: str) -> None:
        self._file = file
        self._key = key
        self._store = store

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end; all that is left for -1."""
        with naming("read", self._key, self._store):
            return self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class DirectoryStore(ObjectStore):
    """Objects as files below a directory; see ``ObjectStore``.

    A lock is a file ``.<name>.lock.json`` beside the object, whose write bits are taken away. This
    store refuses to delete or replace a locked object, and that is all it can do: whoever may
    write to the directory can remove the files by other means, and root can do so always. Only a
    store that locks by itself (S3 with Object Lock) keeps backups from an intruder; ``preflight``
    therefore always reports ``no_object_lock``.

    It keeps no versions: a replaced object is gone. Only regular files are objects: links below the
    directory are not followed, and FIFOs, sockets and devices are neither listed nor opened.
    """

    kind = "directory"

    def __init__(
        self,
        root: Path,
        site: str = "",
        live_paths: Sequence[Path] = (),
        *,
        clock: Clock | None = None,
    ) -> None:
        self._root = root.absolute()
        self._live_paths = tuple(live_paths)
        self._clock = clock or SystemClock()
        self.site = site
        self.description = str(self._root)

    def preflight(self) -> Sequence[StoreProblem]:
        """Check the needs of a backup.

        The directory itself is created when its parent exists; more is not, since a missing parent
        rather means a disk that is not mounted.
        """
        return preflight(self._root, self._live_paths)

    def open_writer(self, key: str) -> DirectoryWriter:
        """Open a streaming writer; raises ObjectLocked when the object is locked."""
        return self._open_writer(key, None)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call; raises ObjectLocked when the object is locked."""
        end = checked_lock_end(locked_until) if locked_until else None
        with self._open_writer(key, end) as writer:
            writer.write(data)
            return writer.commit()

    def open_reader(self, key: str, *, version_id: str = "") -> DirectoryReader:
        """Open a streaming reader; a directory has no versions to choose from."""
        names = self._names(key)
        self._refuse_version(key, version_id)
        with naming("read", key, self.description):
            file = os.fdopen(open_regular(self._root, names), "rb")
            return DirectoryReader(file, key, self.description)

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        """Return size, time and lock; the content's hash is not known without reading it."""
        names = self._names(key)
        self._refuse_version(key, version_id)
        with naming("read", key, self.description):
            file = open_regular(self._root, names)
            try:
                stored = _stored(key, os.fstat(file))
            finally:
                os.close(file)
            return replace(stored, locked_until=self._locked_until(key))

    def verify(self, expected: StoredObject) -> None:
        """Read the file again and compare size and SHA-256.

        Raises:
            UsageError: ``expected`` holds no SHA-256.
            ObjectMissing: there is no such file.
            ObjectDamaged: size or content differ.
        """
        if not expected.sha256:
            raise UsageError(f"The object {expected.key!r} was recorded without a SHA-256.")
        digest, size = hashlib.sha256(), 0
        with self.open_reader(expected.key, version_id=expected.version_id) as reader:
            while piece := reader.read(_HASH_BYTES):
                digest.update(piece)
                size += len(piece)
        if size != expected.size:
            why = f"it holds {size} bytes instead of {expected.size}"
        elif digest.hexdigest() != expected.sha256:
            why = "its content differs"
        else:
            return
        raise ObjectDamaged(
            f"{expected.key!r} in {self.description} is not what was stored: {why}."
        )

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files whose key begins with the prefix, in key order."""
        checked_list_prefix(prefix)
        with naming("list", "", self.description):
            for key, entry in walk(self._root, "", prefix):
                if is_own_name(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted since the directory was read
                yield _stored(key, status)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly under a prefix, in the order of their keys."""
        checked_list_prefix(prefix)
        with naming("list", "", self.description):
            yield from folders_in(self._root, prefix)

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        """Refuse deletion and replacement until that moment; never shortens a lock.

        Raises:
            ObjectMissing: there is no such file.
            ObjectLocked: it is locked for longer already.
            StoreError: the moment has passed.
        """
        path, end = self._path(key), checked_lock_end(until)
        self._refuse_version(key, version_id)
        self._check_future(key, end)
        present = self.stat(key).locked_until
        if present and present > end:
            raise ObjectLocked(
                f"{key!r} in {self.description} is locked until {present.isoformat()}, "
                f"which cannot be shortened to {end.isoformat()}."
            )
        with naming("lock", key, self.description):
            write_lock(path, end)
            file = open_regular(self._root, self._names(key))
            try:
                os.fchmod(file, os.fstat(file).st_mode & ~_WRITE_BITS)
            finally:
                os.close(file)

    def require_deletable(self, key: str, now: datetime) -> None:
        """Check the file's lock; raises ObjectLocked."""
        self._refuse_locked(self._path(key), key, now)

    def delete(self, key: str) -> None:
        """Remove the file and the directories it leaves empty; missing is fine.

        Raises:
            ObjectLocked: its lock has not ended.
        """
        path = self._path(key)
        if path.is_dir():
            return
        self._refuse_locked(path, key, self._clock.now())
        with naming("delete", key, self.description):
            try:
                path.unlink(missing_ok=True)
                lock_path(path).unlink(missing_ok=True)
                sync_directory(path.parent)
            except (FileNotFoundError, NotADirectoryError):
                return
        self._remove_empty(path.parent)

    def clear_abandoned(self, prefix: str = "") -> int:
        """Remove temporary files of killed writers, and locks of objects that were never written.

        The caller makes sure that nobody is writing there at that moment.
        """
        checked_list_prefix(prefix)
        cleared = 0
        with naming("clear unfinished files in", "", self.description):
            for key, entry in list(walk(self._root, "", "")):
                name = finished_name(entry.name) or locked_name(entry.name)
                if not name or not (key.removesuffix(entry.name) + name).startswith(prefix):
                    continue
                path = Path(entry.path)
                unfinished = is_partial_name(entry.name)
                if unfinished or not path.with_name(name).exists():
                    path.unlink(missing_ok=True)
                    self._remove_empty(path.parent)
                    cleared += unfinished
        return cleared

    def _names(self, key: str) -> Sequence[str]:
        """Return the names on the way to an object; a disk that is not mounted is no empty store.

        Raises:
            UsageError: no store can hold such a key.
            StoreError: the directory is missing.
        """
        if not self._root.is_dir():
            raise StoreError(
                f"The directory {self.description} is not there.", "Mount or create it."
            )
        return checked_key(key).split("/")

    def _refuse_version(self, key: str, version_id: str) -> None:
        if version_id:
            raise ObjectMissing(f"{self.description} keeps no versions of {key!r}.")

    def _path(self, key: str) -> Path:
        """Return the path of an object that is to be written, locked or deleted.

        Raises:
            UsageError, StoreError: see `_names`.
            StoreError: a link is on the way, so that another directory would be changed.
        """
        names = self._names(key)
        if link := link_above(self._root, names):
            raise StoreError(
                f"{key!r} in {self.description} cannot be changed: {link.name!r} is a symbolic "
                "link, which is not followed.",
                "Find out who created the link, then remove it.",
            )
        return self._root.joinpath(*names)

    def _open_writer(self, key: str, lock_end: datetime | None) -> DirectoryWriter:
        path = self._path(key)
        if lock_end:
            self._check_future(key, lock_end)
        self._refuse_locked(path, key, self._clock.now())

        def publish(partial: Path, sha256: str, size: int) -> StoredObject:
            return self._publish(partial, path, key, lock_end, sha256, size)

        return DirectoryWriter(path, key, self.description, publish)

    def _publish(
        self,
        partial: Path,
        path: Path,
        key: str,
        lock_end: datetime | None,
        sha256: str,
        size: int,
    ) -> StoredObject:
        """Give a finished file its name; the lock is there before the name is."""
        self._refuse_locked(path, key, self._clock.now())
        with naming("write", key, self.description):
            if lock_end:
                partial.chmod(partial.stat().st_mode & ~_WRITE_BITS)
                write_lock(path, lock_end)
            else:
                lock_path(path).unlink(missing_ok=True)
            partial.replace(path)
            self._sync_up(path.parent)
            stored = _stored(key, path.stat())
        if stored.size != size:
            raise ObjectDamaged(
                f"{key!r} in {self.description}: {stored.size} of {size} bytes arrived."
            )
        return replace(stored, sha256=sha256, locked_until=lock_end)

    def _check_future(self, key: str, end: datetime) -> None:
        if end <= self._clock.now():
            raise StoreError(
                f"Cannot lock {key!r} in {self.description} until {end.isoformat()}: "
                "that moment has passed.",
                "Choose a later moment.",
            )

    def _refuse_locked(self, path: Path, key: str, now: datetime) -> None:
        with naming("read the lock of", key, self.description):
            if not os.path.lexists(path):
                return
            end = self._locked_until(key)
        if end and end > now:
            raise ObjectLocked(
                f"{key!r} in {self.description} is locked until {end.isoformat()}.",
                "Wait for its end.",
            )

    def _locked_until(self, key: str) -> datetime | None:
        return read_lock(self._root, self._names(key), key, self.description)

    def _sync_up(self, folder: Path) -> None:
        """Make the name durable, and those of directories that may be new."""
        while True:
            sync_directory(folder)
            if folder == self._root:
                return
            folder = folder.parent

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or of another user: it stays
            folder = folder.parent


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
