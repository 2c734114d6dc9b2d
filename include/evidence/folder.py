"""A bundle's folder: its path, the names of its files, its SHA256SUMS, and readers of it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import ELOOP, ENXIO
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol

from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.services.objectstore.keys import MAX_NAME_BYTES, is_own_name

RESULT = "result.json"
SIGNER = "signer.pem"
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
RESERVED = {RESULT, SIGNER, SUMS, SIGNATURE}

DEPTH = 4  # <workflow>/<yyyy>/<mm>/<run id>
LONGEST_NAME = 120  # characters of a folder's name
LONGEST_FILE = 400  # bytes of a file's whole name; the store's key holds the folder too
MOST_FILES = 10_000  # of a bundle, those that the seal writes included

# An attacker with write access to a store chooses the content of its files. Readers therefore
# refuse a file that is larger, in bytes, than a seal writes, before they read all of it.
LARGEST_SUMS = (MOST_FILES + 1) * (64 + 2 + LONGEST_FILE + 1)  # digest, spaces, name, line's end
LARGEST_SIGNATURE = 64  # Ed25519
LARGEST_KEY = 4096
LARGEST_RESULT = 64 * 1024 * 1024
MOST_LISTED = MOST_FILES + 3  # names that are listed of a folder: a bundle has fewer

_PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")
_MOMENT = re.compile(r"T(\d\d):(\d\d):(\d\d)(\.\d+)?\+00:00", re.ASCII)
_SHORT_MOMENT = re.compile(r"T(\d\d)(\d\d)(\d\d)(\.\d+)?Z", re.ASCII)


def folder_name(identifier: str) -> str:
    """Return a readable folder name for a run id or DAG id; no two identifiers share one.

    ``manual__2026-11-24T14:10:19+00:00`` becomes ``manual__2026-11-24T141019Z``. A name that does
    not lead back to its identifier gets a hash after a ``~``, which no other name contains.
    """
    short = _MOMENT.sub(lambda m: f"T{m[1]}{m[2]}{m[3]}{m[4] or ''}Z", identifier)
    back = _SHORT_MOMENT.sub(lambda m: f"T{m[1]}:{m[2]}:{m[3]}{m[4] or ''}+00:00", short)
    if back == identifier and _PLAIN.fullmatch(short) and not short.endswith("."):
        return short
    digest = sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", short).strip("-.")[: LONGEST_NAME - 20]
    return f"{readable}~{digest}"


def bundle_path(dag_id: str, run_id: str, started_at: datetime) -> str:
    """Return the bundle's folder, relative to the store; year and month are UTC."""
    started = started_at.astimezone(UTC)
    return f"{folder_name(dag_id)}/{started:%Y/%m}/{folder_name(run_id)}"


def link_to(bundle: str) -> str:
    """Return the relative path from inside any bundle to another bundle's SHA256SUMS."""
    return "../" * DEPTH + f"{bundle}/{SUMS}"


def linked_bundle(name: str) -> str | None:
    """Return the bundle that a line of SHA256SUMS links to, None for a file of the bundle."""
    match = re.fullmatch(r"(?:\.\./){4}([^/]+/\d{4}/\d\d/[^/]+)/SHA256SUMS", name)
    return match[1] if match else None


def is_bundle_path(name: str) -> bool:
    """Return whether a text is the folder of a bundle, relative to the store."""
    return linked_bundle(link_to(name)) == name and ".." not in name.split("/")


def check_file_names(names: Iterable[str]) -> None:
    """Refuse names that would not survive ``sha256sum -c``, another disk or a browser.

    Raises:
        UsageError: names the first bad name, or there are too many for a bundle.
    """
    every = set(names)
    if len(every) > MOST_FILES - len(RESERVED):
        raise UsageError(
            f"A bundle of evidence holds at most {MOST_FILES} files, and this run left "
            f"{len(every)}.",
            "Leave fewer files, or pack them into one.",
        )
    for name in sorted(every):
        problem = _problem_of(name)
        if not problem and name in RESERVED:
            problem = "is written by the seal itself"
        folders = {str(folder) for folder in PurePosixPath(name).parents}
        if not problem and folders & (every | RESERVED):
            problem = "uses another file as a folder"
        if problem:
            raise UsageError(f"The evidence file name {name!r} {problem}.")


def is_file_name(name: str) -> bool:
    """Return whether a line of SHA256SUMS may name this file of its own bundle."""
    return not _problem_of(name) and name not in {SUMS, SIGNATURE}


def _problem_of(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "is not a plain relative path"
    if not name.isprintable() or "\\" in name:
        return "has a control character or backslash"
    if any(part != part.strip() or part.startswith("-") or is_own_name(part) for part in parts):
        return "begins or ends with a space, begins with a dash, or is one of the store's own"
    if len(name.encode()) > LONGEST_FILE or any(len(p.encode()) > MAX_NAME_BYTES for p in parts):
        return "is too long"
    return ""


def check_commands(
    folder: str, fingerprints: Iterable[str], *, previous_at_hand: bool = True
) -> list[str]:
    """Return lines for a POSIX shell that check a bundle with coreutils and OpenSSL 3 alone.

    Args:
        folder: the bundle's folder on a disk.
        fingerprints: trusted ones, shown beside the line that prints the bundle's own.
        previous_at_hand: False leaves out the link to the bundle before, whose folder is elsewhere.
    """
    expected = " or ".join(fingerprints)
    link = r"\.\./"
    return [
        f"cd {shlex.quote(folder)}",
        f"sha256sum -c {SUMS}"
        if previous_at_hand
        else f"grep -v '  {link}' {SUMS} | sha256sum -c -",
        f"openssl pkeyutl -verify -pubin -inkey {SIGNER} -rawin -in {SUMS} -sigfile {SIGNATURE}",
        f"openssl pkey -pubin -in {SIGNER} -outform DER | sha256sum"
        + (f"  # {expected}" if expected else ""),
    ]


def commands_for(store: ObjectStore, bundle: str, fingerprints: Iterable[str]) -> list[str]:
    """Return the lines that check a bundle of a store; of S3, a copy of it."""
    if store.kind == "directory":
        return check_commands(f"{store.description}/{bundle}", fingerprints)
    url, _, service = store.description.partition(" at ")
    source = f"{url.rstrip('/')}/{bundle}"
    copy = f"aws s3 cp --recursive {shlex.quote(source)} {shlex.quote(bundle)}"
    if service:
        copy += f"  # with the --endpoint-url of {service}"
    return [copy, *check_commands(bundle, fingerprints, previous_at_hand=False)]


PIECE = 1024 * 1024  # bytes read at a time


class Readable(Protocol):
    """A stream that can be read."""

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
        """Return whether the signature is not yet in the store, but in the state database."""
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
            # Without O_NONBLOCK, opening a pipe waits for a writer.
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
    """The predecessor of a bundle in the chain, and the digest of its SHA256SUMS."""

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
