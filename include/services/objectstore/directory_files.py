"""The file system calls that the directory store is made of."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from include.services.objectstore.keys import MAX_KEY_BYTES

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, the opening of a FIFO waits until somebody writes into it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotRegularFile(FileNotFoundError):
    """A link, directory, FIFO, socket or device is where a file should be."""


def open_regular(root: Path, names: Sequence[str]) -> int:
    """Open a regular file below a directory for reading; follow no link below that directory.

    Args:
        root: the directory, which may be a link itself.
        names: of the folders below it and, last, of the file.

    Returns:
        The file's descriptor, which the caller closes.

    Raises:
        NotRegularFile: there is something else under that name, or a link above it.
        FileNotFoundError, NotADirectoryError: there is no such file.
        OSError: it cannot be opened.
    """
    folder = os.open(root, _FOLDER)
    try:
        for name in names[:-1]:
            below = _open(name, _FOLDER | os.O_NOFOLLOW, folder)
            os.close(folder)
            folder = below
        # Asked before it is opened: the opening of a device may do something.
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
    """Return the first folder on the way to a file that is a link; None when there is none."""
    folder = root
    for name in names[:-1]:
        folder /= name
        if folder.is_symlink():
            return folder
    return None


def walk(folder: Path, above: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield regular files with their keys, in the order of the keys; follow no link.

    Folders so deep that no key reaches into them are left out.
    """
    with os.scandir(folder) as entries:
        found = [(entry.is_dir(follow_symlinks=False), entry) for entry in entries]
    # A directory's slash takes part in the order: "a-b" comes before "a/b".
    found.sort(key=lambda item: item[1].name + "/" if item[0] else item[1].name)
    for is_directory, entry in found:
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
    """Return the names of the folders directly in a folder, in the order of keys; follow no link.

    Args:
        root: the directory, which may be a link itself.
        prefix: the folder below it with its slash; empty for the directory itself.

    Returns:
        Names; none when the folder is missing.
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
    """Write a new small file and wait for the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
