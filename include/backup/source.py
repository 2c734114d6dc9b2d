"""Read an encrypted restore point as a stream of its archive, and verify it at the same time.

Encryption does not prove who wrote an object: anyone with the recipients' public keys can encrypt
another archive with the same encryption context. Therefore, each reader hashes the bytes that it
reads, and does not rely on the check of an earlier reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Literal, cast

import zstandard

from include.backup.archive import ArchiveReader
from include.backup.archive_entry import Entry
from include.backup.manifest import Manifest
from include.backup.point_folder import (
    DumpVersions,
    ObjectRecord,
    folders,
    version_by_digest,
    versions_of_dump,
)
from include.encryption.crypto import ContentRefused, Readable, decrypting
from include.encryption.recipients import OpeningKey
from include.encryption.stream import PIECE
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectReader,
    ObjectStore,
    StoredObject,
)

NEXT_STEP = "Use another restore point (./parcelseal backup list), and open an incident."


class VerifiedObject:
    """A reader that hashes the bytes of an encrypted object while it reads them.

    Args:
        reader: stream of the object's bytes.
        expected: size and SHA-256 of the whole object, from a signed manifest.
    """

    def __init__(self, reader: Readable, expected: ObjectRecord) -> None:
        self._reader = reader
        self._expected = expected
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes of the object, or no bytes at its end.

        Args:
            size: number of bytes; -1 for all remaining bytes.

        Raises:
            ContentRefused: the object is larger than the manifest says.
        """
        left = self._expected.size - self._size
        data = self._reader.read(left + 1 if size < 0 else min(size, left + 1))
        self._size += len(data)
        self._digest.update(data)
        if self._size > self._expected.size:
            raise refused(self._expected.key, f"it holds more than {self._expected.size} bytes")
        return data

    def verify(self) -> None:
        """Read the object to its end, and compare its size and digest with the manifest.

        Raises:
            ContentRefused: the object differs from the manifest.
        """
        while self.read(PIECE):
            pass
        if self._size != self._expected.size:
            raise refused(
                self._expected.key,
                f"it holds {self._size} bytes instead of {self._expected.size}",
            )
        if self._digest.hexdigest() != self._expected.sha256:
            raise refused(self._expected.key, "its content differs")


class ArchiveStream:
    """A stream of the decrypted pg_dump archive of a restore point.

    The bytes that `read` returns are not verified until `verify` has returned.
    """

    def __init__(self, stored: VerifiedObject, manifest: Manifest, key: OpeningKey) -> None:
        self._stored = stored
        self._key = manifest.dump.key
        self._size = self._left = manifest.dump_bytes
        message = decrypting(stored, key, manifest.encryption.context, self._key)
        self._clear = zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], message),  # zstandard calls only read()
            read_size=PIECE,
        )

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the archive, or no bytes at its end.

        Raises:
            ContentRefused: the object cannot be decrypted or decompressed, or its archive is larger
                than the manifest says.
        """
        try:
            data = self._clear.read(min(size, self._left + 1))
        except zstandard.ZstdError:
            raise refused(self._key, "it cannot be unpacked") from None
        self._left -= len(data)
        if self._left < 0:
            raise refused(self._key, f"it unpacks to more than {self._size} bytes")
        return data

    def read_exactly(self, size: int) -> bytes:
        """Return ``size`` bytes, or fewer if the archive is shorter."""
        pieces, left = [], size
        while left and (piece := self.read(min(left, PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def verify(self) -> None:
        """Read the encrypted object to its end, and compare it with the manifest.

        The remaining bytes are hashed without being decrypted.

        Raises:
            ContentRefused: the object differs from the manifest.
        """
        self._stored.verify()


def refused(key: str, why: str) -> ContentRefused:
    """Return the error for an object that differs from its manifest.

    Args:
        key: key of the object.
        why: text that says in which way the object differs.
    """
    return ContentRefused(f"{key} is not the object of its manifest: {why}.", NEXT_STEP)


@dataclass(frozen=True)
class Source:
    """An encrypted restore point in a store, and the key that decrypts it.

    The restore point can be opened any number of times.

    Attributes:
        store: store that contains the restore point.
        manifest: signed manifest of the restore point.
        key: key with which one recipient can decrypt the restore point.
    """

    store: ObjectStore
    manifest: Manifest
    key: OpeningKey

    @property
    def is_copy(self) -> bool:
        """Return whether the store lacks the version of the dump that the manifest records.

        If so, another version is used, and only its digest proves that it is the original dump.
        """
        return self._versions.is_copy

    @property
    def checked_by(self) -> Literal["digest", "version"]:
        """Return how `check` identifies the dump: by its recorded version or by its digest.

        In a store without versions, such as a directory, the digest is always used.
        """
        return "version" if self.version_id and not self.is_copy else "digest"

    @cached_property
    def version_id(self) -> str:
        """Return the id of the version of the dump that is read.

        Normally, this is the version that the manifest records. If the store has only other
        versions, those with the recorded size are candidates. A single candidate is used. Of
        several candidates, the version with the recorded digest is used, or the first if no digest
        matches; `check` then refuses it.
        """
        versions = self._versions
        if len(versions.ids) < 2:
            return versions.ids[0] if versions.ids else self.manifest.dump.version_id
        fitting = version_by_digest(self.store, self.manifest.dump, versions.ids)
        return versions.ids[0] if fitting is None else fitting

    @cached_property
    def _versions(self) -> DumpVersions:
        listed = folders(self.store, self.manifest.database, self.manifest.id)
        return versions_of_dump(next(listed, None), self.manifest.dump)

    def check(self) -> None:
        """Verify that the dump in the store is the dump that the manifest records.

        Call this method before the target of a restore is changed. If the store lacks the recorded
        version, the whole dump is read, because only its digest proves that it is the original.

        Raises:
            ContentRefused: the dump is missing, damaged or replaced. The message names the object.
        """
        dump = self.manifest.dump
        expected = StoredObject(
            dump.key,
            dump.size,
            self.manifest.taken_at,
            sha256=dump.sha256,
            checksum="" if self.is_copy else dump.checksum,
            version_id=self.version_id,
        )
        with self._refusing():
            self.store.verify(expected)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (ObjectDamaged, ObjectMissing) as error:
            raise ContentRefused(
                f"Restore point {self.manifest.id} is refused: {error.message}", NEXT_STEP
            ) from None

    @contextmanager
    def archive(self) -> Iterator[ArchiveStream]:
        """Open the decrypted pg_dump archive as a stream, and verify it at the end of the block.

        If the block ends without an error, the rest of the encrypted dump is read and compared with
        the manifest.

        Raises:
            ContentRefused: the dump differs from the manifest. Do not use the bytes that were read.
        """
        with self.opened() as stream:
            yield stream
            stream.verify()

    @contextmanager
    def opened(self) -> Iterator[ArchiveStream]:
        """Open the decrypted pg_dump archive as a stream.

        The caller has to call `verify` of the stream.

        Raises:
            ObjectMissing: the store does not contain the version of the dump.
            ServiceError: the store or the KMS failed.
        """
        with self.open_object() as reader:
            verified = VerifiedObject(reader, self.manifest.dump)
            yield ArchiveStream(verified, self.manifest, self.key)

    def open_object(self) -> ObjectReader:
        """Open the encrypted dump in the store. `version_id` says which of its versions is read."""
        return self.store.open_reader(self.manifest.dump.key, version_id=self.version_id)

    def head(self) -> tuple[bytes, list[Entry]]:
        """Return the archive's head as bytes, and the entries of its table of contents.

        The head consists of the header and the table of contents. The head is compared with the
        digest that the manifest records for it. Manifests of earlier versions of ParcelSeal have no
        such digest; in this case, the whole dump is read and verified.

        Raises:
            ContentRefused: the dump is missing, or its archive differs from the manifest.
        """
        manifest, digest = self.manifest, self.manifest.head
        with self._refusing(), self.opened() as stream:
            if digest:
                reader, head = _parsed(iter([stream.read_exactly(digest.bytes)]), manifest)
                if (reader.head_size, reader.head_sha256) != (digest.bytes, digest.sha256):
                    raise refused(manifest.dump.key, "its table of contents differs")
            else:
                reader, head = _parsed(iter(lambda: stream.read(PIECE), b""), manifest)
                stream.verify()
        if reader.schema_sha256() != manifest.schema_sha256:
            raise refused(manifest.dump.key, "its schema differs")
        return head, reader.entries


def _parsed(pieces: Iterable[bytes], manifest: Manifest) -> tuple[ArchiveReader, bytes]:
    """Read an archive up to the end of its head, and return the reader and the bytes of the head.

    The head consists of the header and the table of contents.

    Args:
        pieces: bytes of the archive in pieces of any size.
        manifest: manifest of the restore point. Its sizes limit how many bytes are read.

    Raises:
        ContentRefused: the bytes are not an archive, or its table of contents is incomplete.
    """
    reader, head = ArchiveReader(), bytearray()
    tables = sum(table.bytes for table in manifest.tables)
    longest = manifest.dump_bytes - tables - manifest.large_objects.bytes
    for piece in pieces:
        head += piece
        try:
            reader.feed(piece)
        except ValueError as error:  # ArchiveError, or a field that should be a number
            raise refused(manifest.dump.key, str(error)) from None
        if reader.head_size:
            return reader, bytes(head[: reader.head_size])
        if len(head) > longest:
            break
    raise refused(manifest.dump.key, "it has no complete table of contents")
