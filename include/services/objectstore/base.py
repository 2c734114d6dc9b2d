"""Define the interface of the stores that hold backups and evidence.

A store is a part of an S3 bucket, or a directory. The key of an object is a relative POSIX path
without a leading slash, such as ``courier/20261124T020000Z/manifest.json``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from include.services.errors import ServiceError

MOST_VERSIONS = 16  # maximum number of older versions to try, beginning with the oldest
_PIECE = 1024 * 1024  # bytes read at a time


class StoreError(ServiceError):
    """The error for a failure of the object store that retries did not remove."""


class ObjectMissing(StoreError):
    """The error for an object or a version that does not exist in the object store."""


class ObjectDamaged(StoreError):
    """The error for an object whose stored bytes differ from the bytes that were written."""


class ObjectLocked(StoreError):
    """The error for an object that a lock or S3 legal hold protects from deletion or change."""


@dataclass(frozen=True)
class StoredObject:
    """The metadata of an object in a store.

    Attributes:
        key: key of the object, which is a relative POSIX path.
        size: size in bytes.
        modified_at: time at which the store received the object, timezone-aware.
        sha256: SHA-256 (hex) of the whole content; empty if it is unknown. It is always set in the
            result of ``put`` and of a writer's ``commit``.
        checksum: checksum that the store itself computed; empty for a directory. It is the SHA-256
            in Base64 that S3 computed; after a multipart upload, ``-<number of parts>`` follows.
            For a service without SHA-256, it is ``etag:<ETag>``.
        version_id: id of the version; empty if the store keeps no versions.
        locked_until: end of the lock, which may have passed. None if the object was never locked,
            or if ``list`` returned the metadata, because ``list`` does not read locks.
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
    """A version of an object, or a delete marker that hides the versions before it.

    Attributes:
        key: key of the object, which is a relative POSIX path.
        version_id: id with which ``get`` or ``open_reader`` read this version; empty if the store
            keeps no versions.
        size: size in bytes; 0 for a delete marker.
        modified_at: time at which the store received the version, timezone-aware.
        is_current: whether this is the version that is read if no version is requested.
        is_marker: whether the version is a delete marker.
    """

    key: str
    version_id: str
    size: int
    modified_at: datetime
    is_current: bool = True
    is_marker: bool = False


@dataclass(frozen=True)
class StoreProblem:
    """A reason why a store is unsuitable as an off-site store.

    Attributes:
        code: identifier of the problem: ``missing``, ``unreachable``, ``denied``,
            ``no_versioning``, ``no_object_lock``, ``same_device`` or ``not_writable``.
        detail: one-line description for users, without secrets.
    """

    code: str
    detail: str


class ObjectWriter(Protocol):
    """A stream that writes one object. The object becomes visible when ``commit`` returns.

    If the ``with`` block of the stream ends before ``commit`` was called, all bytes that were sent
    are deleted.
    """

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all given bytes to the object, and return their number."""

    def commit(self) -> StoredObject:
        """Complete the object, and return its metadata. The object is then visible and durable."""

    def abort(self) -> None:
        """Stop the writing, and delete all bytes that were sent. A second call has no effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class ObjectReader(Protocol):
    """A stream that reads one object. It continues automatically after a lost connection."""

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, or fewer at the end of the object.

        Args:
            size: number of bytes; -1 for all remaining bytes.
        """

    def close(self) -> None:
        """Close the connection or file from which the object is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ObjectStore(Protocol):
    """A store of objects: a part of an S3 bucket, or a directory.

    Attributes:
        description: display name of the store, which is a URL or path without secrets.
        kind: ``s3`` or ``directory``.
        site: site of the store according to its connection; empty if the connection names no site.
    """

    description: str
    kind: str
    site: str

    def preflight(self) -> Sequence[StoreProblem]:
        """Return the reasons why the store is unsuitable for backups.

        A suitable store is reachable and writable. It keeps versions of objects, and can lock them
        against deletion (S3 Object Lock).
        """

    def locks_new_objects(self) -> bool:
        """Return whether the store locks each new object, so that nobody can delete it at once.

        The result is True, too, if the settings of the store cannot be read.
        """

    def open_writer(self, key: str) -> ObjectWriter:
        """Open a stream that writes an object.

        When the stream is committed, the object is created or replaced.
        """

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        """Store a small object in one call, and return its metadata.

        Args:
            key: key of the object.
            data: content of the object.
            locked_until: end of the lock of the object; None for no lock.
        """

    def open_reader(self, key: str, *, version_id: str = "") -> ObjectReader:
        """Open a stream that reads an object.

        A locked version can still be read by its ``version_id`` after the object was replaced.

        Args:
            key: key of the object.
            version_id: version to read; empty for the current version.

        Raises:
            ObjectMissing: the object or the version does not exist.
        """

    def get(self, key: str, *, version_id: str = "", limit: int | None = None) -> bytes:
        """Return the content of a small object.

        Pass ``limit`` for an object that is not verified yet, because an intruder may have stored
        an object of any size.

        Args:
            key: key of the object.
            version_id: version to read; empty for the current version.
            limit: largest number of bytes to read into memory; None for no limit.

        Raises:
            ObjectMissing: the object does not exist.
            ObjectDamaged: the object is larger than ``limit``.
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
        """Return the metadata of an object, including its checksum and lock.

        Args:
            key: key of the object.
            version_id: version to read; empty for the current version.

        Raises:
            ObjectMissing: the object or the version does not exist.
        """

    def verify(self, expected: StoredObject) -> None:
        """Verify that the content of an object in the store is the expected content.

        A directory store reads and hashes the file. An S3 store compares the size and the checksum
        that the service computed from the stored bytes.

        Args:
            expected: metadata of the object when it was stored. If the metadata name a version,
                that version is verified, even if the object was overwritten or deleted later.

        Raises:
            ObjectMissing: the object or the version does not exist.
            ObjectDamaged: the stored content differs from the expected content.
        """

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose key begins with a prefix, in the order of their keys."""

    def list_versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """Yield all versions and delete markers of the objects under a prefix, sorted by key.

        For each key, the current version is first, followed by the others from the newest to the
        oldest. If a store keeps no versions, each object is yielded as a current version.
        """
        for stored in self.list(prefix):
            yield ObjectVersion(stored.key, "", stored.size, stored.modified_at)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly under a prefix, in the order of their keys.

        A folder is included even if it contains only older versions or delete markers.

        Args:
            prefix: folder with a trailing slash; empty for the whole store.
        """

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        """Protect an object from deletion and change.

        Args:
            key: key of the object.
            until: end of the lock. An existing lock with an earlier end is extended.
            version_id: version to lock; empty for the current version.

        Raises:
            ObjectLocked: an existing lock ends later than ``until``.
        """

    def require_deletable(self, key: str, now: datetime) -> None:
        """Raise an error if a lock would prevent the deletion of an object at the given time.

        Args:
            key: key of the object.
            now: time at which the object is to be deleted.

        Raises:
            ObjectLocked: a version of the object is locked at that time.
        """

    def delete(self, key: str) -> None:
        """Delete all versions of an object if it exists, the current version last.

        If the current version were deleted first, an interrupted deletion would make an earlier
        version current again.

        Raises:
            ObjectLocked: a version is locked, and nothing was deleted.
        """

    def clear_abandoned(self, prefix: str = "") -> int:
        """Delete the unfinished uploads under a prefix, and return their number.

        Call this method only if no writer is active under the prefix. The upload of an active
        writer would also be deleted.
        """


def versions_to_try(versions: Iterable[ObjectVersion]) -> list[ObjectVersion]:
    """Return an object's versions that may be the original, in the order in which to try them.

    The current version is first, followed by the `MOST_VERSIONS` oldest versions. ParcelSeal writes
    each object only once or twice. Therefore, the original is among the returned versions, even if
    an intruder has added many newer versions.

    Args:
        versions: versions and delete markers of one object. The current version is first, followed
            by the others from the newest to the oldest.
    """
    readable = [version for version in versions if not version.is_marker]
    current = [version for version in readable if version.is_current]
    older = [version for version in reversed(readable) if not version.is_current]
    return current + older[:MOST_VERSIONS]


def read_sha256(store: ObjectStore, key: str, *, version_id: str = "") -> str:
    """Read an object in pieces, and return the SHA-256 (hex) of its content.

    Raises:
        ObjectMissing: the object or the version does not exist.
    """
    digest = hashlib.sha256()
    with store.open_reader(key, version_id=version_id) as reader:
        while piece := reader.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
