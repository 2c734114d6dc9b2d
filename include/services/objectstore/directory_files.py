"""The file system calls that the directory store is made of."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path


def walk(folder: Path, above: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield regular files with their keys, in the order of the keys."""
    with os.scandir(folder) as entries:
        found = [(entry.is_dir(follow_symlinks=False), entry) for entry in entries]
    # A directory's slash takes part in the order: "a-b" comes before "a/b".
    found.sort(key=lambda item: item[1].name + "/" if item[0] else item[1].name)
    for is_directory, entry in found:
        key = above + entry.name
        if is_directory:
            inside = f"{key}/"
            if inside.startswith(prefix) or prefix.startswith(inside):
                try:
                    yield from walk(Path(entry.path), inside, prefix)
                except FileNotFoundError:
                    continue  # deleted since its name was read
        elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
            yield key, entry


def lock_path(path: Path) -> Path:
    """Return where the lock of an object is kept."""
    return path.with_name(f".{path.name}.lock.json")


def refuse_directory(path: Path) -> None:
    """Raise FileNotFoundError for a directory, which is no object."""
    if path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "a directory is not an object")


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
