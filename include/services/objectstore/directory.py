"""Store objects as files in a directory, such as a mounted disk, a NAS or the local profile."""

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
    """A stream that reads the file of an object; see ``ObjectReader``.

    If the object is replaced while it is read, the stream continues with the old file.
    """

    def __init__(self, file: io.BufferedReader, key: str, store: str) -> None:
        self._file = file
        self._key = key
        self._store = store

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, or fewer at the end of the file.

        Args:
            size: number of bytes; -1 for all remaining bytes.
        """
        with naming("read", self._key, self._store):
            return self._file.read(size)

    def close(self) -> None:
        """Close the file of the object."""
        self._file.close()


class DirectoryStore(ObjectStore):
    """A store whose objects are files in a directory; see ``ObjectStore``.

    A lock is a file ``.<name>.lock.json`` beside the file of the object. In addition, the write
    permissions of the object's file are removed. This store refuses to delete or replace a locked
    object. However, users with write permission on the directory can remove the files with other
    programs. Only S3 with Object Lock protects backups from an intruder. Therefore, ``preflight``
    always reports ``no_object_lock``.

    The store keeps no versions: a replaced object is lost. Only regular files are objects. Links
    below the directory are not followed. FIFOs, sockets and devices are neither listed nor opened.
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
        """Return the reasons why the directory is unsuitable for backups.

        The directory is created if its parent directory exists. A missing parent directory is not
        created, because it probably means that a disk is not mounted.
        """
        return preflight(self._root, self._live_paths)

    def locks_new_objects(self) -> bool:
        """Return False: a directory locks only objects for which a lock was requested."""
        return False

    def open_writer(self, key: str) -> DirectoryWriter:
        """Open a stream that writes an object.

        Raises:
            ObjectLocked: an object with this key is locked.
        """
        return self._open_writer(key, None)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call, and return its metadata.

        Raises:
            ObjectLocked: an object with this key is locked.
        """
        end = checked_lock_end(locked_until) if locked_until else None
        with self._open_writer(key, end) as writer:
            writer.write(data)
            return writer.commit()

    def open_reader(self, key: str, *, version_id: str = "") -> DirectoryReader:
        """Open a stream that reads an object.

        Args:
            key: key of the object.
            version_id: empty, because a directory keeps no versions.
        """
        names = self._names(key)
        self._refuse_version(key, version_id)
        with naming("read", key, self.description):
            file = os.fdopen(open_regular(self._root, names), "rb")
            return DirectoryReader(file, key, self.description)

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        """Return the size, modification time and lock of an object. The result has no SHA-256.

        Args:
            key: key of the object.
            version_id: empty, because a directory keeps no versions.
        """
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
        """Read the file of an object, and compare its size and SHA-256 with those in ``expected``.

        Raises:
            UsageError: ``expected`` has no SHA-256.
            ObjectMissing: the file does not exist.
            ObjectDamaged: the size or the content differs.
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
            f"{expected.key!r} in {self.description} differs from the stored object: {why}."
        )

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose key begins with the prefix, in the order of their keys."""
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
        """Forbid this store to delete or replace an object until a given time.

        Args:
            key: key of the object.
            until: end of the lock. An existing lock with an earlier end is extended.
            version_id: empty, because a directory keeps no versions.

        Raises:
            ObjectMissing: the file does not exist.
            ObjectLocked: an existing lock ends later.
            StoreError: ``until`` is in the past.
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
        """Raise an error if an object is locked at the given time.

        Raises:
            ObjectLocked: the object is locked at that time.
        """
        self._refuse_locked(self._path(key), key, now)

    def delete(self, key: str) -> None:
        """Delete the file of an object if it exists, and the directories that become empty.

        Raises:
            ObjectLocked: the lock of the object has not ended.
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
        """Delete temporary files of killed writers, and lock files whose objects do not exist.

        The caller must ensure that no writer is active under the prefix.

        Returns:
            Number of deleted temporary files. Lock files are not counted.
        """
        checked_list_prefix(prefix)
        cleared = 0
        with naming("clear unfinished files in", "", self.description):
            folder = prefix[: prefix.rfind("/") + 1]  # temporary names begin with another sign
            for key, entry in list(walk(self._root, "", folder)):
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
        """Return the path of an object's file as a list of folder names and the file name.

        The path begins below the directory of the store.

        Raises:
            UsageError: the key is not valid in any store.
            StoreError: the directory is missing, for example because its disk is not mounted.
        """
        if not self._root.is_dir():
            raise StoreError(f"The directory {self.description} is missing.", "Mount or create it.")
        return checked_key(key).split("/")

    def _refuse_version(self, key: str, version_id: str) -> None:
        if version_id:
            raise ObjectMissing(f"{self.description} keeps no versions of {key!r}.")

    def _path(self, key: str) -> Path:
        """Return the path of an object's file for a caller that writes, locks or deletes the file.

        Raises:
            UsageError: the key is not valid in any store.
            StoreError: the directory is missing. Also raised if the path contains a symbolic link,
                because a file in another directory would then be changed.
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
        """Rename an object's complete temporary file to its final name, and return the metadata.

        The lock file is written before the rename.

        Args:
            partial: path of the temporary file.
            path: final path.
            key: key of the object.
            lock_end: end of the lock; None for no lock.
            sha256: SHA-256 (hex) of the content.
            size: size in bytes.
        """
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
                "Wait until the lock expires.",
            )

    def _locked_until(self, key: str) -> datetime | None:
        return read_lock(self._root, self._names(key), key, self.description)

    def _sync_up(self, folder: Path) -> None:
        """Write a folder and the folders above it to the disk.

        New file names then survive a crash.
        """
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
                return  # the folder is not empty, or belongs to another user
            folder = folder.parent


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
