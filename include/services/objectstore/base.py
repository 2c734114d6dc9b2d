"""The one interface to stores of backups and evidence, shared by S3 and directories.

Keys are relative POSIX paths without a leading slash (``courier/20261124T020000Z/manifest.json``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from include.services.errors import ServiceError

MOST_VERSIONS = 16  # older versions of an object that are tried, from the oldest on
_PIECE = 1024 * 1024  # bytes read at a time


class StoreError(ServiceError):
    """The store failed, after retries."""


class ObjectMissing(StoreError):
    """No object has that key."""


class ObjectDamaged(StoreError):
    """The stored bytes are not those that were written."""


class ObjectLocked(StoreError):
    """Object Lock forbids this deletion until its retention ends."""


@dataclass(frozen=True)
class StoredObject:
    """An object of a store.

    Attributes:
        key: relative POSIX path inside the store.
        size: bytes.
        modified_at: when the store took it, timezone-aware.
        sha256: hex digest of the whole content, where it is known (always on the value that a
            writer's ``commit`` or ``put`` returns).
        checksum: the store's own checksum of the object, opaque; S3's composite SHA-256
            (``<base64>-<parts>``), or ``etag:<ETag>`` where a service keeps no SHA-256. Empty for
            a directory.
        version_id: the store's version, empty where it keeps none.
        locked_until: end of retention, which may have passed; None when never locked or not
            known from a listing.
    """

    key: str
    size: int
    modified_at: datetime
    sha256: str = ""
    checksum: str = ""
    version_id: str = ""
    locked_until: datetime | None = None


@dataclass(frozen=True)
class ObjectVersion:
    """A version of an object, or a marker that hides the versions before it.

    Attributes:
        key: relative POSIX path inside the store.
        version_id: pass it to ``get`` or ``open_reader``; empty where the store keeps no versions.
        size: bytes; 0 of a marker.
        modified_at: when the store took it, timezone-aware.
        is_current: it is the version that is read when none is named.
        is_marker: somebody deleted the object without naming a version.
    """

    key: str
    version_id: str
    size: int
    modified_at: datetime
    is_current: bool = True
    is_marker: bool = False


@dataclass(frozen=True)
class StoreProblem:
    """A reason why a store is no proper off-site store.

    Attributes:
        code: ``missing``, ``unreachable``, ``denied``, ``no_versioning``, ``no_object_lock``,
            ``same_device`` or ``not_writable``.
        detail: one line for people, without secrets.
    """

    code: str
    detail: str


class ObjectWriter(Protocol):
    """A stream into one object. Nothing is visible under the key before ``commit``.

    Leaving the ``with`` block without commit aborts and leaves nothing behind.
    """

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes; returns how many were taken (all of them)."""

    def commit(self) -> StoredObject:
        """Make the object visible, durable and checksummed; returns the stored object."""

    def abort(self) -> None:
        """Stop, and remove all that was sent. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class ObjectReader(Protocol):
    """A stream out of one object that resumes by itself after a dropped connection."""

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end; all that is left for -1."""

    def close(self) -> None:
        """Release the connection or file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ObjectStore(Protocol):
    """A place for objects: an S3 bucket with a prefix, or a directory.

    Attributes:
        description: the store's name for people: URL or path, never a secret.
        kind: ``s3`` or ``directory``.
        site: the site named in the connection's extra, empty when none was named.
    """

    description: str
    kind: str
    site: str

    def preflight(self) -> Sequence[StoreProblem]:
        """Check the needs of a backup: reachable, writable, versioned, lockable."""

    def open_writer(self, key: str) -> ObjectWriter:
        """Open a streaming writer for a new or replaced object."""

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call, locked from the start where asked."""

    def open_reader(self, key: str, *, version_id: str = "") -> ObjectReader:
        """Open a streaming reader of the current or the named version; raises ObjectMissing.

        A locked version stays readable by its ``version_id`` after somebody replaced the object.
        """

    def get(self, key: str, *, version_id: str = "", limit: int | None = None) -> bytes:
        """Return a small object whole.

        Pass a limit for content that is not verified yet: whoever can write to the store decides
        how large it is.

        Args:
            key: of the object.
            version_id: of an older version; empty for the current one.
            limit: most bytes that are read into memory; None for any size.

        Raises:
            ObjectMissing: there is no such object.
            ObjectDamaged: it is larger than ``limit``.
        """
        with self.open_reader(key, version_id=version_id) as reader:
            if limit is None:
                return reader.read()
            content = reader.read(limit + 1)
        if len(content) > limit:
            raise ObjectDamaged(
                f"{key!r} in {self.description} is larger than the {limit} bytes it may have."
            )
        return content

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        """Return what the store knows of the current or the named version.

        ``checksum`` and ``locked_until`` are included. Raises ObjectMissing.
        """

    def verify(self, expected: StoredObject) -> None:
        """Prove that the stored bytes are the expected ones; raises ObjectMissing, ObjectDamaged.

        Where a version was recorded, that version is verified: an overwrite or a delete marker
        changes nothing about it.
        A directory re-reads and hashes the file; S3 compares size and composite checksum, which
        the service computed from the bytes it holds.
        """

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield objects under a prefix in key order."""

    def list_versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """Yield all versions and delete markers under a prefix in key order, newest first.

        A store that keeps no versions yields its objects.
        """
        for stored in self.list(prefix):
            yield ObjectVersion(stored.key, "", stored.size, stored.modified_at)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly under a prefix, in the order of their keys.

        Folders of which only older versions or delete markers are left are included.

        Args:
            prefix: a folder with its slash; empty for the whole store.
        """

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        """Keep the current or the named version from deletion and change until that moment.

        Raises ObjectLocked where that would shorten a lock; the same or a later end is fine.
        """

    def require_deletable(self, key: str, now: datetime) -> None:
        """Raise ObjectLocked when `delete` would be refused at that moment; removes nothing."""

    def delete(self, key: str) -> None:
        """Remove the object, every version, the current one last; missing is fine.

        An interrupted deletion therefore brings no earlier version back. Raises ObjectLocked before
        anything is removed when a version is locked.
        """

    def clear_abandoned(self, prefix: str = "") -> int:
        """Remove unfinished uploads under a prefix; returns how many there were.

        A live writer under the prefix loses its upload too: call it when none is at work.
        """


def versions_to_try(versions: Iterable[ObjectVersion]) -> list[ObjectVersion]:
    """Return the versions that may be the original: the current one, then from the oldest on.

    A run writes each object once or twice, so the original is the current version or among the
    oldest, however many versions an intruder puts on top of it.

    Args:
        versions: of one object with its delete markers, the current one first, then newest first.
    """
    readable = [version for version in versions if not version.is_marker]
    current = [version for version in readable if version.is_current]
    older = [version for version in reversed(readable) if not version.is_current]
    return current + older[:MOST_VERSIONS]


def read_sha256(store: ObjectStore, key: str, *, version_id: str = "") -> str:
    """Return the SHA-256 of an object's content in hex; reads all of it, in pieces.

    Raises:
        ObjectMissing: there is no such object or version.
    """
    digest = hashlib.sha256()
    with store.open_reader(key, version_id=version_id) as reader:
        while piece := reader.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
