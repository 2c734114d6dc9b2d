"""A bundle's folder as a verifier reads it, in a store or on a disk, with its SHA256SUMS."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from errno import ELOOP, ENXIO
from itertools import islice
from pathlib import Path
from typing import Protocol

from include.evidence.names import (
    LARGEST_RESULT,
    MOST_LISTED,
    SIGNATURE,
    is_file_name,
    link_to,
    linked_bundle,
)
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
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
        """Return the relative names of all files; of a folder with too many, `MOST_LISTED`."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a file; raises ObjectMissing."""

    def read(self, name: str, limit: int = LARGEST_RESULT) -> bytes:
        """Return a small file whole.

        Args:
            name: of the file.
            limit: bytes that it may have.

        Raises:
            ObjectMissing: there is no such file.
            ObjectDamaged: it is larger.
        """
        content = bytearray()
        with self.open(name) as file:
            while piece := file.read(min(PIECE, limit + 1 - len(content))):
                content += piece
                if len(content) > limit:
                    raise ObjectDamaged(f"The file {name!r} is larger than {limit} bytes.")
        return bytes(content)

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
        pending: returns the signature of a bundle that has a ledger row and whose seal did not put
            its signature there yet, as long as the store lacks it; otherwise None.
    """

    def __init__(
        self,
        store: ObjectStore,
        bundle: str,
        listed: set[str] | None = None,
        pending: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self._store = store
        self._prefix = f"{bundle}/"
        self._listed = listed
        self._pending = pending

    @property
    def lacks_signature(self) -> bool:
        """Whether the signature is still to be put into the store."""
        return SIGNATURE not in self._stored() and self._pending() is not None

    def names(self) -> set[str]:
        """Return the relative names of all objects under the bundle's prefix."""
        return self._stored() | ({SIGNATURE} if self.lacks_signature else set())

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open an object."""
        try:
            return self._store.open_reader(self._prefix + name)
        except ObjectMissing:
            signature = self._pending() if name == SIGNATURE else None
            if signature is not None:
                return io.BytesIO(signature)
            if name != SIGNATURE:
                raise
        return self._store.open_reader(self._prefix + name)  # another seal put it there meanwhile

    def _stored(self) -> set[str]:
        if self._listed is None:
            listing = islice(self._store.list(self._prefix), MOST_LISTED)
            self._listed = {stored.key.removeprefix(self._prefix) for stored in listing}
        return self._listed


class DiskFolder(Folder):
    """A copy of a bundle on a disk. Reads regular files only and follows no links."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> set[str]:
        """Return the relative names of all files, those of a directory store's locks aside.

        Links, pipes and devices are named too: no seal wrote them.
        """
        names = (name for name in self._walk() if not is_own_name(name.rpartition("/")[2]))
        return set(islice(names, MOST_LISTED))

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a regular file.

        Raises:
            ObjectMissing: there is no such file.
            ObjectDamaged: it is a link, a pipe or a device.
        """
        *folders, last = name.split("/")
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(part, flags, dir_fd=folder)
                os.close(folder)
                folder = inner
            # Without O_NONBLOCK the opening of a pipe waits for whoever writes into it.
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectMissing(f"{self._path} has no file {name!r}.") from error
        except OSError as error:
            if error.errno in (ELOOP, ENXIO):
                raise self._irregular(name) from error
            raise
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise self._irregular(name)
        return os.fdopen(file, "rb")

    def _irregular(self, name: str) -> ObjectDamaged:
        return ObjectDamaged(f"{self._path} has no regular file {name!r}.")

    def _walk(self) -> Iterator[str]:
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self._path / folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}{entry.name}/")
                    else:
                        yield f"{folder}{entry.name}"


_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True)
class Link:
    """The bundle before another one in the chain, and the digest of its SHA256SUMS."""

    bundle: str
    sums_sha256: str


@dataclass(frozen=True)
class Sums:
    """The content of SHA256SUMS: digests of files, and the link (None in the first bundle)."""

    files: Mapping[str, str]
    previous: Link | None

    def to_bytes(self) -> bytes:
        """Write it down: files by name, then the link by relative path."""
        lines = [f"{digest}  {name}" for name, digest in sorted(self.files.items())]
        if self.previous:
            lines.append(f"{self.previous.sums_sha256}  {link_to(self.previous.bundle)}")
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Sums:
        """Read it.

        Raises:
            ValueError: a line is not one that a seal writes; names the line.
        """
        files: dict[str, str] = {}
        previous: Link | None = None
        for number, line in enumerate(data.decode().splitlines(), start=1):
            match = _LINE.fullmatch(line)
            linked = linked_bundle(match[2]) if match else None
            if match and linked and previous is None:
                previous = Link(linked, match[1])
            elif match and is_file_name(match[2]) and match[2] not in files:
                files[match[2]] = match[1]
            else:
                raise ValueError(f"line {number} of SHA256SUMS is not one that a seal writes")
        return cls(files, previous)
