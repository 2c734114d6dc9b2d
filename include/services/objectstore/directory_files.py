"""Write, lock and read the files of a directory store."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectWriter,
    StoredObject,
    StoreError,
    StoreProblem,
)
from include.services.objectstore.keys import MAX_KEY_BYTES, partial_name

_ACTIONS = {
    errno.ENOSPC: "Free space there or use a larger disk.",
    errno.EDQUOT: "Raise the quota.",
    errno.EFBIG: "Raise the limit on file sizes.",
    errno.EACCES: "Give the account that runs this the right to it.",
    errno.EPERM: "Give the account that runs this the right to it.",
    errno.EROFS: "Mount it writable.",
    errno.EIO: "Check the disk.",
    errno.ESTALE: "Mount it again.",
}


@contextmanager
def naming(doing: str, key: str, store: str) -> Iterator[None]:
    """Convert an OSError of the block to a StoreError with advice for the user.

    The message of the StoreError names the store and the object.

    Args:
        doing: attempted operation as a verb, such as ``read``.
        key: key of the object; empty for an operation on the store.
        store: description of the store.

    Raises:
        ObjectMissing: the operation is ``read``, and the file of the object does not exist.
        StoreError: any other OSError was raised.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if doing == "read" and key:
            raise ObjectMissing(f"There is no object {key!r} in {store}.") from error
        raise _translated(error, doing, key, store) from error
    except OSError as error:
        raise _translated(error, doing, key, store) from error


def _translated(error: OSError, doing: str, key: str, store: str) -> StoreError:
    attempt = f"{doing} {key!r} in {store}" if key else f"{doing} {store}"
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    action = _ACTIONS.get(
        error.errno or 0, "Check that the directory exists and that its disk has no errors."
    )
    return StoreError(f"Cannot {attempt}: {reason}.", action)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, the opening of a FIFO waits for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotRegularFile(FileNotFoundError):
    """The error for a path that leads to something other than a regular file.

    This may be a link, directory, FIFO, socket or device.
    """


def open_regular(root: Path, names: Sequence[str]) -> int:
    """Open a regular file below a directory for reading.

    Links below the directory are not followed.

    Args:
        root: directory, which may be a link itself.
        names: names of the folders below the directory, followed by the name of the file.

    Returns:
        The file descriptor. The caller must close it.

    Raises:
        NotRegularFile: the path leads to something other than a regular file, or one of the folders
            is a link.
        FileNotFoundError, NotADirectoryError: the file does not exist.
        OSError: the file cannot be opened.
    """
    folder = os.open(root, _FOLDER)
    try:
        for name in names[:-1]:
            below = _open(name, _FOLDER | os.O_NOFOLLOW, folder)
            os.close(folder)
            folder = below
        # Checked before the file is opened: opening a device may have an effect.
        _require_regular(os.stat(names[-1], dir_fd=folder, follow_symlinks=False))
        file = _open(names[-1], _FILE, folder)
    finally:
        os.close(folder)
    try:
        _require_regular(os.fstat(file))
    except BaseException:
        os.close(file)
        raise
    return file


def _open(name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegularFile(errno.ENOENT, "a link is not followed") from error
        raise


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularFile(errno.ENOENT, "only a regular file is an object")


def link_above(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first symbolic link among the folders that lead to a file.

    If none of the folders is a link, return None.

    Args:
        root: directory, which may be a link itself.
        names: names of the folders below the directory, followed by the name of the file.
    """
    folder = root
    for name in names[:-1]:
        folder /= name
        if folder.is_symlink():
            return folder
    return None


def walk(folder: Path, above: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the key and the directory entry of each regular file below a folder, sorted by key.

    Files in subfolders are included. Links are not followed. If the path of a subfolder is longer
    than a key may be, the subfolder is skipped.

    Args:
        folder: path of the folder.
        above: path of ``folder`` relative to the store's directory, with a trailing slash; empty
            for that directory itself. The keys of the files begin with this path.
        prefix: prefix of the keys to yield; empty for all.
    """
    with os.scandir(folder) as entries:
        listed = [(entry.is_dir(follow_symlinks=False), entry) for entry in entries]
    # A directory's slash takes part in the order: "a-b" comes before "a/b".
    listed.sort(key=lambda item: item[1].name + "/" if item[0] else item[1].name)
    for is_directory, entry in listed:
        key = above + entry.name
        if is_directory:
            inside = f"{key}/"
            if len(os.fsencode(inside)) >= MAX_KEY_BYTES:
                continue
            if inside.startswith(prefix) or prefix.startswith(inside):
                try:
                    yield from walk(Path(entry.path), inside, prefix)
                except FileNotFoundError:
                    continue  # deleted since its name was read
        elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
            yield key, entry


def folders_in(root: Path, prefix: str) -> list[str]:
    """Return the names of the folders directly in a folder, in the order of their keys.

    Links are not followed. The list is empty if the folder is missing.

    Args:
        root: directory, which may be a link itself.
        prefix: folder below the directory with a trailing slash; empty for the directory itself.
    """
    names = prefix.split("/")
    if link_above(root, names):
        return []
    try:
        with os.scandir(root / prefix) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folders, key=lambda name: f"{name}/")


def write_durably(path: Path, data: bytes) -> None:
    """Write a new small file, and wait until it is on the disk.

    Raises:
        FileExistsError: the file already exists.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Write a directory to the disk. The names of its files then survive a crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_MAX_LOCK_BYTES = 4096  # a lock is one short line


def lock_path(path: Path) -> Path:
    """Return the path of the lock file for the file of an object."""
    return path.with_name(f".{path.name}.lock.json")


def read_lock(root: Path, names: Sequence[str], key: str, store: str) -> datetime | None:
    """Return the end of an object's lock, which may have passed.

    Return None if the object was never locked.

    Args:
        root: directory of the store.
        names: names of the folders below the directory, followed by the name of the object's file.
        key: key of the object, for the error message.
        store: description of the store, for the error message.

    Raises:
        ObjectDamaged: the lock file is unreadable. The lock remains in force.
    """
    lock = lock_path(root.joinpath(*names))
    try:
        with os.fdopen(open_regular(root, lock.relative_to(root).parts), "rb") as file:
            text = file.read(_MAX_LOCK_BYTES)
        end = datetime.fromisoformat(json.loads(text)["locked_until"])
    except NotRegularFile as error:
        raise _unreadable(key, store, lock) from error
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(key, store, lock) from error
    if end.tzinfo is None:
        raise ObjectDamaged(f"The lock of {key!r} in {store} has no timezone.")
    return end


def _unreadable(key: str, store: str, lock: Path) -> ObjectDamaged:
    return ObjectDamaged(
        f"The lock of {key!r} in {store} cannot be read, so it remains in force.",
        f"Check the lock file {lock.name!r} in the same folder.",
    )


def write_lock(path: Path, end: datetime) -> None:
    """Write the lock file of an object to the disk. An existing lock file is replaced.

    Args:
        path: path of the object's file.
        end: end of the lock, timezone-aware.
    """
    text = json.dumps({"locked_until": end.astimezone(UTC).isoformat()})
    partial = path.with_name(partial_name(path.name))
    try:
        write_durably(partial, text.encode())
        partial.replace(lock_path(path))
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def preflight(root: Path, live_paths: Sequence[Path]) -> list[StoreProblem]:
    """Return the reasons why a directory is unsuitable as an off-site store.

    ``no_object_lock`` is always reported, because a directory cannot enforce a lock.

    Args:
        root: directory, which is created if its parent exists.
        live_paths: paths of the live databases' files. The directory must be on another device.
    """
    problem = _reach(root)
    if problem:
        return [problem]
    problems = _same_device(root, live_paths)
    probe = root / partial_name("probe")
    try:
        write_durably(probe, b"probe")
        probe.unlink()
    except OSError as error:
        problems.append(StoreProblem("not_writable", _detail(root, "cannot be written to", error)))
    problems.append(
        StoreProblem(
            "no_object_lock",
            f"The directory {root} cannot keep anyone with write access from deleting backups "
            "before their retention ends. Use S3 with Object Lock for that.",
        )
    )
    return problems


def _reach(root: Path) -> StoreProblem | None:
    try:
        root.mkdir(exist_ok=True)
        with os.scandir(root):
            return None
    except PermissionError as error:
        return StoreProblem("denied", _detail(root, "cannot be used", error))
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        return StoreProblem("missing", _detail(root, "is missing", error))
    except OSError as error:
        return StoreProblem("unreachable", _detail(root, "cannot be used", error))


def _same_device(root: Path, live_paths: Sequence[Path]) -> list[StoreProblem]:
    device = root.stat().st_dev
    return [
        StoreProblem(
            "same_device",
            f"The directory {root} is on the same device as {live}: "
            "a failure of this device destroys both. Use another disk at another site.",
        )
        for live in live_paths
        if live.exists() and live.stat().st_dev == device
    ]


def _detail(root: Path, problem: str, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return (
        f"The directory {root} {problem}: {reason}. Create or mount it, writable for this account."
    )


# The disk works while the producer does: the final fsync then finds little left to write, which
# nearly doubles the speed of large objects. (Hashing in another thread was tried: no gain.)
_FLUSH_EVERY_BYTES = 32 * 1024 * 1024
_CREATE_ATTEMPTS = 5


class DirectoryWriter(ObjectWriter):
    """A stream that writes the file of an object; see ``ObjectWriter``.

    It writes to a temporary file ``.<name>.partial-<random>`` beside the final file. The commit
    syncs the file, renames it, and syncs the directories. The data are hashed while they are
    written.
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
        """Append bytes to the temporary file, and return their number.

        Raises:
            StoreError: the file system refused the data. The writer cannot be used any more.
        """
        self._check_usable()
        view = memoryview(data).cast("B")
        self._hash.update(view)
        try:
            with naming("write", self._key, self._store):
                left = view
                while left:
                    left = left[os.write(self._fd, left) :]
                self._size += len(view)
                self._flush_early()
        except BaseException:
            self._failed = True
            raise
        return len(view)

    def commit(self) -> StoredObject:
        """Make the file durable, and rename it to its final name.

        Raises:
            ObjectLocked: an object with this key is locked.
            StoreError: the file system refused an operation.
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
        """Delete the temporary file. A committed file is kept."""
        with naming("remove the unfinished", self._key, self._store):
            self._stop_flusher()
            self._close()
            self._partial.unlink(missing_ok=True)

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
    """Create a temporary file and its missing parent directories; return its file descriptor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(_CREATE_ATTEMPTS):
        try:
            return os.open(partial, flags, 0o666)
        except FileNotFoundError:
            # Also when a deletion just removed the directory because it was empty.
            partial.parent.mkdir(parents=True, exist_ok=True)
    return os.open(partial, flags, 0o666)
