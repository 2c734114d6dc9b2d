"""Read streams of a restore point and compare them with its manifest.

Encryption proves no origin: anyone with the recipients' public keys can encrypt another archive
under the same context. So each reader hashes the bytes that it reads itself, and does not rely on
an earlier reader's check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import zstandard

from include.backup.manifest import Manifest
from include.backup.object_record import ObjectRecord
from include.encryption.crypto import Readable, Refused, decrypting
from include.encryption.recipients import OpeningKey
from include.encryption.stream import PIECE
from include.services.objectstore.base import ObjectStore

NEXT_STEP = "Use another restore point (./parcelseal backup list) and raise an incident."


class VerifiedObject:
    """A reader of an encrypted object that hashes what it reads.

    Args:
        reader: the object's bytes.
        expected: size and SHA-256 of the whole object, from a signed manifest.
    """

    def __init__(self, reader: Readable, expected: ObjectRecord) -> None:
        self._reader = reader
        self._expected = expected
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes; raises Refused beyond the object's size."""
        left = self._expected.size - self._size
        data = self._reader.read(left + 1 if size < 0 else min(size, left + 1))
        self._size += len(data)
        self._digest.update(data)
        if self._size > self._expected.size:
            raise refused(self._expected.key, f"it holds more than {self._expected.size} bytes")
        return data

    def verify(self) -> None:
        """Read the rest; raises Refused if the object is not the manifest's."""
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
    """The decrypted pg_dump archive of a restore point, unverified until `verify` returns."""

    def __init__(self, stored: VerifiedObject, manifest: Manifest, key: OpeningKey) -> None:
        self._stored = stored
        self._key = manifest.dump.key
        self._size = self._left = manifest.dump_bytes
        message = decrypting(stored, key, manifest.encryption.context, self._key)
        self._clear = zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], message),  # it only reads
            read_size=PIECE,
        )

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the archive, none at the end.

        Raises:
            Refused: the object cannot be decrypted or unpacked, or holds more than the manifest's
                archive.
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
        """Return ``size`` bytes, or fewer if the archive ends before."""
        pieces, left = [], size
        while left and (piece := self.read(min(left, PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def verify(self) -> None:
        """Read the object to its end; raises Refused when it is not the manifest's.

        The rest is only hashed, neither decrypted nor unpacked.
        """
        self._stored.verify()


@contextmanager
def open_archive(
    store: ObjectStore, manifest: Manifest, key: OpeningKey, version_id: str
) -> Iterator[ArchiveStream]:
    """Open a version of the manifest's object; the caller verifies the stream.

    Raises:
        ObjectMissing: there is no such version.
        ServiceError: the store or the KMS failed.
    """
    dump = manifest.dump
    with store.open_reader(dump.key, version_id=version_id) as reader:
        yield ArchiveStream(VerifiedObject(reader, dump), manifest, key)


def refused(key: str, why: str) -> Refused:
    """Return the error for an object that differs from its manifest."""
    return Refused(f"{key} is not the object of its manifest: {why}.", NEXT_STEP)
