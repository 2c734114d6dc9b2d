"""The evidence extract of a log, which is created as a stream.

Rows are copied from the database, compressed, hashed, encrypted and stored. No unencrypted data is
written to a disk. The digest of the compressed bytes lets recipients check the decrypted file. The
digest of the encrypted bytes shows that the object in the store is unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import zstandard

from include.encryption.crypto import EncryptionRecord, RecipientRecord
from include.encryption.recipients import OpeningKey, Recipient
from include.encryption.stream import COMPRESSION, PIECE, FullReader, Stage, compressed
from include.frozen import StrictModel
from include.incident.evidence.log_copy import (
    LogCopy,
    LogQuery,
    LogSnapshot,
    RowCounter,
    log_snapshot,
)
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectStore, StoredObject

FORMAT: Literal["parcelseal.access-extract/1"] = "parcelseal.access-extract/1"


class Extract(StrictModel):
    """The description of a log extract, with everything that is needed to verify and decrypt it.

    Attributes:
        key: key of the object in the store.
        columns: columns of the CSV, in order.
        since: start of the time window of the rows; None if unlimited.
        until: end of the time window, exclusive; None if unlimited.
        accounts: accounts whose rows the extract contains; empty means all.
        partners: partners that received the data of the rows; empty in an extract of an access log.
        rows: number of rows as counted by the server; may be zero.
        first: earliest time of the rows; None if no row has a time that Python can represent.
        last: latest time of the rows; None if no row has a time that Python can represent.
        taken_at: server time of the database snapshot from which all rows come.
        began_at: time at which the creation of the extract began.
        ended_at: time at which the object was stored.
        bytes_csv: size of the CSV in bytes.
        bytes_clear: size of the zstd-compressed CSV in bytes.
        sha256_clear: digest (hex) of the compressed bytes.
        bytes_stored: size of the encrypted object in bytes.
        sha256_stored: digest (hex) of the encrypted object.
        checksum: checksum that the store calculated; empty if the store has none.
        version_id: version id in the store; empty if the store keeps no versions.
        compression: compression of the CSV.
        encryption: encryption method, and the context to which the encryption is bound.
        recipients: recipients whose keys decrypt the extract.
    """

    format: Literal["parcelseal.access-extract/1"] = FORMAT
    key: str
    columns: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    accounts: tuple[str, ...]
    partners: tuple[str, ...] = ()
    rows: int
    first: datetime | None
    last: datetime | None
    taken_at: datetime
    began_at: datetime
    ended_at: datetime
    bytes_csv: int
    bytes_clear: int
    sha256_clear: str
    bytes_stored: int
    sha256_stored: str
    checksum: str
    version_id: str
    compression: str = COMPRESSION
    encryption: EncryptionRecord
    recipients: tuple[RecipientRecord, ...]

    def as_bytes(self) -> bytes:
        """Return the content of the JSON file ``extract.<database>.<version>.json`` in a bundle."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @property
    def stored(self) -> StoredObject:
        """The description with which a store verifies the stored object."""
        return StoredObject(
            self.key,
            self.bytes_stored,
            self.ended_at,
            self.sha256_stored,
            self.checksum,
            self.version_id,
        )


def object_key(number: str, suffix: str, log: str = "access") -> str:
    """Return the key of an extract in the store, such as ``incidents/INC-2026-0001/...``.

    Args:
        number: number of the incident.
        suffix: database and version, which make the key unique.
        log: key of the log in incident.yaml: ``access`` or ``shares``.
    """
    return f"incidents/{number}/{log}.{suffix}.csv.zst.enc"


def encryption_context(number: str, database: str, log: str = "access") -> dict[str, str]:
    """Return the authenticated data with which an extract is encrypted and decrypted.

    Only an extract of the same incident, database and log can be decrypted with it.

    Args:
        number: number of the incident.
        database: name of the database in the data map.
        log: key of the log in incident.yaml: ``access`` or ``shares``.
    """
    content = "access log" if log == "access" else "log of sharing"
    return {"incident": number, "database": database, "content": content}


def create_extract(
    source: DatabaseAddress,
    query: LogQuery,
    store: ObjectStore,
    key: str,
    recipients: Sequence[Recipient],
    context: Mapping[str, str],
    clock: Clock,
    *,
    keep: Callable[[Extract], None],
    lock_until: datetime | None = None,
    existing: Extract | None = None,
) -> Extract:
    """Create an extract, store its description, lock the object and verify it.

    If a call is interrupted, the next call continues. Before `keep` is called, the object is not
    locked, and the next call writes it again. After `keep` was called, the caller has to pass the
    stored description as ``existing``, and the extract is not created again.

    Args:
        source: address of the live database; SELECT on the log is sufficient.
        query: rows to copy.
        store: store of the extract. No other process may write to the key.
        key: key of the object.
        recipients: recipients; each recipient can decrypt the extract.
        context: authenticated data, not secret, to which the encryption is bound.
        clock: source of the times at which the creation begins and ends.
        keep: callback that stores the description of a new extract durably, before the object is
            locked.
        lock_until: end of the lock against change and deletion; None if the store cannot lock.
        existing: description that an earlier call stored.

    Raises:
        UsageError: the policy pack's SQL does not fit the database, the database role may not read
            the log, ``recipients`` is empty, or ``existing`` has another key.
        ObjectMissing: the extract of an earlier call is missing in the store.
        ObjectDamaged: the object in the store differs from the description.
        ServiceError: the database or the store failed; no object is visible at the key.
    """
    if existing is not None and existing.key != key:
        raise UsageError(
            f"The recorded extract has the key {existing.key} in the store, not {key}."
        )
    extract = existing
    if extract is None:
        store.clear_abandoned(key)  # left by an interrupted attempt
        began_at = clock.now()
        with log_snapshot(source, query) as snapshot, store.open_writer(key) as writer:
            copied = _copy_encrypted(snapshot, recipients, context, writer.write)
            stored = writer.commit()
        extract = Extract(
            key=key,
            columns=query.log.columns,
            since=query.since,
            until=query.until,
            accounts=query.accounts,
            partners=query.partners,
            rows=copied.rows,
            first=copied.time_range[0],
            last=copied.time_range[1],
            taken_at=snapshot.taken_at,
            began_at=began_at,
            ended_at=clock.now(),
            bytes_csv=copied.bytes_csv,
            bytes_clear=copied.clear.size,
            sha256_clear=copied.clear.hexdigest(),
            bytes_stored=stored.size,
            sha256_stored=stored.sha256,
            checksum=stored.checksum,
            version_id=stored.version_id,
            encryption=EncryptionRecord.of(context),
            recipients=tuple(RecipientRecord.of(recipient) for recipient in recipients),
        )
        keep(extract)
    if lock_until is not None:
        present = store.stat(extract.key).locked_until
        if present is None or present < lock_until:
            store.lock(extract.key, lock_until)
    store.verify(extract.stored)
    return extract


@dataclass
class _Digest:
    """SHA-256 and size of the bytes of a stream."""

    size: int = 0
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)

    def of(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.sha256.update(piece)
            self.size += len(piece)
            yield piece

    def hexdigest(self) -> str:
        return self.sha256.hexdigest()


@dataclass(frozen=True)
class _CopiedRows:
    rows: int
    time_range: tuple[datetime | None, datetime | None]
    bytes_csv: int
    clear: _Digest


def _copy_encrypted(
    snapshot: LogSnapshot,
    recipients: Sequence[Recipient],
    context: Mapping[str, str],
    write: Callable[[bytes], object],
) -> _CopiedRows:
    """Copy the rows of a log, and compress, encrypt and store them, in concurrent threads.

    Args:
        snapshot: open database snapshot with the query for the rows.
        recipients: recipients; each recipient can decrypt the extract.
        context: authenticated data, not secret, to which the encryption is bound.
        write: callback that stores the next encrypted bytes.
    """
    digest = _Digest()
    with (
        LogCopy(snapshot) as copying,
        Stage(copying.pieces, "copy") as clear,
        Stage(lambda: digest.of(compressed(clear)), "zstd") as zstd,
        copying.stopped_on_error(),
    ):
        # The import takes 0.3 s, while the copy already runs.
        from include.encryption import crypto

        message = crypto.encrypting(FullReader(zstd), recipients, context)
        edges = snapshot.time_range()
        while piece := message.read(crypto.FRAME):
            write(piece)
        rows = copying.finish()
    return _CopiedRows(rows, edges, copying.total, digest)


def decrypt_extract(store: ObjectStore, extract: Extract, key: OpeningKey) -> Iterator[bytes]:
    """Yield the decrypted CSV of an extract in pieces.

    The digest is verified after the last piece, so do not trust the CSV before that.

    Args:
        store: store of the extract.
        extract: description of the extract.
        key: private key of one recipient.

    Raises:
        ContentRefused: the key does not belong to a recipient, or the bytes are not those of this
            extract.
        ObjectMissing: the object is missing.
        ServiceError: the store or the KMS failed.
    """
    from include.encryption.crypto import ContentRefused, decrypting

    digest, counter = _Digest(), RowCounter()
    with store.open_reader(extract.key, version_id=extract.version_id) as reader:
        message = decrypting(reader, key, extract.encryption.context, extract.key)
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        for piece in digest.of(iter(lambda: message.read(PIECE), b"")):
            if csv := unpacker.decompress(piece):
                counter.feed(csv)
                yield csv
    if digest.hexdigest() != extract.sha256_clear or counter.records - 1 != extract.rows:
        raise ContentRefused(
            f"{extract.key} could be decrypted, but its content is not the extract that was "
            "recorded.",
            "A person who has the recipients' public keys replaced the file: raise an incident.",
        )
