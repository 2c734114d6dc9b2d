"""The folder of a bundle: its path, file names and SHA256SUMS; classes that read its files."""

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
LONGEST_FILE = 400  # bytes of a file's relative name; the store's key contains the folder too
MOST_FILES = 10_000  # files of a bundle, including those that the seal writes

# An attacker with write access to a store chooses the content of its files. Readers therefore
# refuse a file that is larger, in bytes, than a seal writes, before they read all of it.
LARGEST_SUMS = (MOST_FILES + 1) * (64 + 2 + LONGEST_FILE + 1)  # digest, spaces, name, line's end
LARGEST_SIGNATURE = 64  # Ed25519
LARGEST_KEY = 4096
LARGEST_RESULT = 64 * 1024 * 1024
MOST_LISTED = MOST_FILES + 3  # maximum number of names listed in a folder: a bundle has fewer

_PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")
_MOMENT = re.compile(r"T(\d\d):(\d\d):(\d\d)(\.\d+)?\+00:00", re.ASCII)
_SHORT_MOMENT = re.compile(r"T(\d\d)(\d\d)(\d\d)(\.\d+)?Z", re.ASCII)


def folder_name(identifier: str) -> str:
    """Return a readable and unique folder name for a run id or DAG id.

    For example, ``manual__2026-11-24T14:10:19+00:00`` becomes ``manual__2026-11-24T141019Z``. If
    the id could not be recovered from this readable name, for example because characters were
    replaced, the function appends ``~`` and a hash of the id. So two ids never get the same name. A
    folder name without a hash never contains ``~``.

    Args:
        identifier: Airflow id of the run, or DAG id.
    """
    short = _MOMENT.sub(lambda m: f"T{m[1]}{m[2]}{m[3]}{m[4] or ''}Z", identifier)
    back = _SHORT_MOMENT.sub(lambda m: f"T{m[1]}:{m[2]}:{m[3]}{m[4] or ''}+00:00", short)
    if back == identifier and _PLAIN.fullmatch(short) and not short.endswith("."):
        return short
    digest = sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", short).strip("-.")[: LONGEST_NAME - 20]
    return f"{readable}~{digest}"


def bundle_path(dag_id: str, run_id: str, started_at: datetime) -> str:
    """Return the folder of a run's bundle, relative to the evidence store.

    The path contains the year and month in which the run started, in UTC.

    Args:
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.
        started_at: when the run started.
    """
    started = started_at.astimezone(UTC)
    return f"{folder_name(dag_id)}/{started:%Y/%m}/{folder_name(run_id)}"


def link_to(bundle: str) -> str:
    """Return the path of a bundle's SHA256SUMS, as a link from the folder of another bundle.

    All folders of bundles are at the same depth of the store. The returned path is therefore
    correct in each of them.

    Args:
        bundle: folder of the bundle, relative to the evidence store.
    """
    return "../" * DEPTH + f"{bundle}/{SUMS}"


def linked_bundle(name: str) -> str | None:
    """Return the folder of the bundle to which a line of SHA256SUMS links.

    Return None if the line is not a link, but the digest of a file of the bundle itself.

    Args:
        name: relative path in the line. The line is a link if this path leads to the SHA256SUMS of
            another bundle.
    """
    match = re.fullmatch(r"(?:\.\./){4}([^/]+/\d{4}/\d\d/[^/]+)/SHA256SUMS", name)
    return match[1] if match else None


def is_bundle_path(name: str) -> bool:
    """Return whether a text has the format of a bundle's folder, relative to the evidence store."""
    return linked_bundle(link_to(name)) == name and ".." not in name.split("/")


def check_file_names(names: Iterable[str]) -> None:
    """Refuse file names that ``sha256sum -c``, another file system or a browser cannot handle.

    Names that the seal uses for its own files, such as SHA256SUMS, are refused as well.

    Raises:
        UsageError: a name is not allowed (the message contains the first such name), or there are
            too many names for one bundle.
    """
    every = set(names)
    if len(every) > MOST_FILES - len(RESERVED):
        raise UsageError(
            f"An evidence bundle may contain at most {MOST_FILES} files, but the steps of this "
            f"run wrote {len(every)}.",
            "Write fewer files in the steps, or pack them into one file.",
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
    """Return whether the SHA256SUMS of a bundle may list a file with a given relative name."""
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
    """Return shell commands that check a bundle with only coreutils and OpenSSL 3.

    Args:
        folder: local path of the bundle's folder.
        fingerprints: fingerprints of trusted keys. They are shown as a comment after the command
            that prints the fingerprint of the key in the bundle.
        previous_at_hand: whether the previous bundle's folder is on the same disk. If False, the
            commands do not check the link to the previous bundle.
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
    """Return shell commands that check a bundle of an evidence store.

    If the store is an S3 bucket, the first command copies the bundle to the disk.

    Args:
        store: the evidence store.
        bundle: folder of the bundle, relative to the store.
        fingerprints: fingerprints of trusted keys.
    """
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
    """A binary stream that can be read."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, or all remaining bytes if ``size`` is -1."""
        ...


class Folder(ABC):
    """Base class of objects that read the files of one bundle."""

    @abstractmethod
    def names(self) -> set[str]:
        """Return the names of all files, relative to the folder.

        If the folder has more files than a bundle may have, some names are left out.
        """

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a file for reading.

        Raises:
            ObjectMissing: the file is missing.
        """

    def read(self, name: str, limit: int = LARGEST_RESULT) -> bytes:
        """Return the content of a file that is not larger than a limit.

        Args:
            name: relative name of the file.
            limit: maximum size in bytes.

        Raises:
            ObjectMissing: the file is missing.
            ObjectDamaged: the file is larger than the limit.
        """
        content = bytearray()
        with self.open(name) as file:
            while piece := file.read(min(PIECE, limit + 1 - len(content))):
                content += piece
                if len(content) > limit:
                    raise ObjectDamaged(f"The file {name!r} is larger than {limit} bytes.")
        return bytes(content)

    def sha256(self, name: str) -> str:
        """Return the SHA-256 digest of a file, in hex. At most 1 MiB is in memory at a time.

        Raises:
            ObjectMissing: the file is missing.
        """
        digest = hashlib.sha256()
        with self.open(name) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return digest.hexdigest()


class StoreFolder(Folder):
    """A bundle's folder in the evidence store.

    Args:
        store: the evidence store.
        bundle: folder of the bundle, relative to the store.
        listed: names of the bundle's objects, if the caller knows them; None to read the names from
            the store when they are needed.
        pending: function that returns the signature of the bundle if the signature may be in the
            state database only, otherwise None.
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
        """Return whether the store lacks the bundle's signature, but the state database has it."""
        return SIGNATURE not in self._stored() and self._pending() is not None

    def names(self) -> set[str]:
        """Return the names of the bundle's objects, relative to its folder.

        The signature is included even if only the state database has it.
        """
        return self._stored() | ({SIGNATURE} if self.lacks_signature else set())

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a file for reading.

        If the store lacks the bundle's signature, the signature is read from the state database.
        """
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
    """A copy of a bundle on a local disk.

    Only regular files are read, and symbolic links are not followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> set[str]:
        """Return the names of all files, relative to the folder.

        Lock files and temporary files of a directory store are left out. Symbolic links, pipes and
        devices are included, so a check of the bundle reports them as added files.
        """
        names = (name for name in self._walk() if not is_own_name(name.rpartition("/")[2]))
        return set(islice(names, MOST_LISTED))

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open a regular file.

        Raises:
            ObjectMissing: the file is missing.
            ObjectDamaged: the file is a symbolic link, a pipe or a device.
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
    """The reference of a bundle to the previous bundle.

    Attributes:
        bundle: folder of the previous bundle, relative to the evidence store.
        sums_sha256: SHA-256 digest of the previous bundle's SHA256SUMS, in hex.
    """

    bundle: str
    sums_sha256: str


@dataclass(frozen=True)
class Sums:
    """The parsed content of a bundle's SHA256SUMS.

    Attributes:
        files: SHA-256 digest of each file in hex, by relative name.
        previous: the link to the previous bundle; None in the first bundle.
    """

    files: Mapping[str, str]
    previous: Link | None

    def to_bytes(self) -> bytes:
        """Return the content of SHA256SUMS: the digests sorted by file name, then the link."""
        lines = [f"{digest}  {name}" for name, digest in sorted(self.files.items())]
        if self.previous:
            lines.append(f"{self.previous.sums_sha256}  {link_to(self.previous.bundle)}")
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Sums:
        """Parse the content of SHA256SUMS.

        Raises:
            ValueError: a line does not have the format that a seal writes. The message contains the
                line number.
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
                raise ValueError(f"line {number} of SHA256SUMS does not have the format of a seal")
        return cls(files, previous)
