"""Damage stored files by flipping a bit, because a random byte could equal the original."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from include.services.objectstore import directory


def flipped(content: bytes, at: int = -1) -> bytes:
    """Return the content with one bit of one byte flipped."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def flip(path: Path, at: int = -1) -> None:
    """Flip a bit of a file, even if it is read-only."""
    content = flipped(path.read_bytes(), at)
    path.chmod(0o644)
    path.write_bytes(content)


@contextmanager
def unreadable(*paths: Path) -> Iterator[None]:
    """Let directory stores meet an I/O error when they open a file or list a folder.

    Args:
        paths: the files, and the folders of stores whose lists of folders fail.
    """
    open_regular, folders_in = directory.open_regular, directory.folders_in

    def open_file(root: Path, names: Sequence[str]) -> int:
        if root.joinpath(*names) in paths:
            raise OSError(errno.EIO, "a damaged sector")
        return open_regular(root, names)

    def list_folders(root: Path, prefix: str) -> Iterator[str]:
        if root in paths:
            raise OSError(errno.EIO, "a damaged sector")
        return folders_in(root, prefix)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "open_regular", open_file)
        patch.setattr(directory, "folders_in", list_folders)
        yield
