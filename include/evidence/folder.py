"""A bundle's folder as a verifier sees it: in a store, or copied to a disk."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from include.evidence.names import SIGNATURE
from include.services.objectstore.base import ObjectMissing, ObjectStore
from include.services.objectstore.keys import is_own_name

PIECE = 1024 * 1024  # bytes read at a time


class Readable(Protocol):
    """The part of a stream that reading a file needs."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all for -1."""
        ...


class Folder(ABC):
    """Read access to the files of one bundle."""

    @abstractmethod
    def names(self) -> set[str]:
        """Return the relative names of all files."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a file; raises ObjectMissing."""

    def read(self, name: str) -> bytes:
        """Return a small file whole; raises ObjectMissing."""
        with self.open(name) as file:
            return file.read()

    def sha256(self, name: str) -> str:
        """Return a file's digest, reading it in pieces; raises ObjectMissing."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return digest.hexdigest()


class StoreFolder(Folder):
    """A bundle in a store.

    Args:
        store: the evidence store.
        bundle: its folder, relative to the store.
        listed: names of its objects; None lists them when they are needed.
        signature: of a bundle that has a ledger row, and whose seal did not put its signature yet.
    """

    def __init__(
        self,
        store: ObjectStore,
        bundle: str,
        listed: set[str] | None = None,
        signature: bytes | None = None,
    ) -> None:
        self._store = store
        self._prefix = f"{bundle}/"
        self._listed = listed
        self._signature = signature

    @property
    def lacks_signature(self) -> bool:
        """Whether the signature is still to be put into the store."""
        return self._signature is not None and SIGNATURE not in self._stored()

    def names(self) -> set[str]:
        """Return the relative names of all objects under the bundle's prefix."""
        return self._stored() | ({SIGNATURE} if self.lacks_signature else set())

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open an object."""
        if name == SIGNATURE and self._signature is not None and self.lacks_signature:
            return io.BytesIO(self._signature)
        return self._store.open_reader(self._prefix + name)

    def _stored(self) -> set[str]:
        if self._listed is None:
            listing = self._store.list(self._prefix)
            self._listed = {stored.key.removeprefix(self._prefix) for stored in listing}
        return self._listed


class DiskFolder(Folder):
    """A bundle that somebody copied to a disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> set[str]:
        """Return the relative names of all files, those of a directory store's locks aside."""
        return {
            file.relative_to(self._path).as_posix()
            for file in self._path.rglob("*")
            if file.is_file() and not is_own_name(file.name)
        }

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a file."""
        try:
            return (self._path / name).open("rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectMissing(f"{self._path} has no file {name!r}.") from error
