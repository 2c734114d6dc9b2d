"""The evidence extract of a log: copied, packed, hashed, encrypted and stored at once.

Nothing of it is in clear on a disk. The digest of the packed clear bytes lets whoever was given the
opened file check it; that of the stored bytes shows that the store still has what was written.
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
from include.encryption.stream import COMPRESSION, PIECE, Filled, Stage, packed
from include.frozen import StrictModel
from include.incident.evidence.log_copy import (
    Copying,
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
    """What is known of an extract: enough to check it, and with a key to open it, without us.

    Attributes:
        key: of the object in the store.
        columns: of the CSV, in order.
        since: rows from then on; None where nothing limited it.
        until: rows before then.
        accounts: whose rows; empty means everybody's.
        partners: to whom what its rows say was given; empty in an extract of a log of accesses.
        rows: as the server counted them; none is an extract too.
        first: earliest moment of the rows, None without any.
        last: latest moment of the rows.
        taken_at: the server's time of the one snapshot that all rows are of.
        began_at: when the work began.
        ended_at: when the object was stored.
        bytes_csv: size of the CSV.
        bytes_clear: size of the CSV as packed by zstd.
        sha256_clear: of those packed bytes, hex.
        bytes_stored: size of the encrypted object.
        sha256_stored: of the encrypted object, hex.
        checksum: the store's own, empty where it has none.
        version_id: the store's version, empty where it keeps none.
        compression: how the CSV was packed.
        encryption: how it was encrypted, and what it is bound to.
        recipients: whose keys open it.
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
        """The JSON file of a bundle, ``extract.<database>.<version>.json``."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @property
    def stored(self) -> StoredObject:
        """The object as a store verifies it."""
        return StoredObject(
            self.key,
            self.bytes_stored,
            self.ended_at,
            self.sha256_stored,
            self.checksum,
            self.version_id,
        )


def key_of(number: str, place: str, log: str = "access") -> str:
    """Return where an incident's extract is kept: ``incidents/INC-2026-0001/...``.

    Args:
        number: of the incident.
        place: what tells it from the others: database and version.
        log: its name in incident.yaml.
    """
    return f"incidents/{number}/{log}.{place}.csv.zst.enc"


def context_of(number: str, database: str, log: str = "access") -> dict[str, str]:
    """Return what an extract is bound to, so that no other one can be passed off as it."""
    content = "access log" if log == "access" else "log of sharing"
    return {"incident": number, "database": database, "content": content}


def extract(
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
    known: Extract | None = None,
) -> Extract:
    """Make the extract, unless it is there already; keep what is known of it, lock and verify it.

    Whatever ends this early, the next call goes on: before `keep` nothing is locked and the object,
    if there is one, is made anew; after `keep` the caller gives the extract as ``known``.

    Args:
        source: the live database; SELECT on the log is enough.
        query: which rows.
        store: where the extract is kept. Nobody else may be writing under that key.
        key: of the object.
        recipients: any one of them can open it.
        context: authenticated and not secret, what the extract belongs to.
        clock: for when it began and ended.
        keep: writes down, durably, what is known of a new extract before the object is locked.
        lock_until: the object is kept from change and deletion until then; None where the store
            cannot lock.
        known: what an earlier call had kept.

    Raises:
        UsageError: the pack's words do not fit the database, the role may not read the log, there
            is no recipient, or ``known`` is of another key.
        ObjectMissing: the extract that was made before is gone from the store.
        ObjectDamaged: it is not what was stored.
        ServiceError: database or store failed; nothing is visible under the key.
    """
    if known is not None and known.key != key:
        raise UsageError(f"The extract that was made before is {known.key}, not {key}.")
    made = known
    if made is None:
        store.clear_abandoned(key)  # of an attempt that was killed
        began_at = clock.now()
        with log_snapshot(source, query) as snapshot, store.open_writer(key) as writer:
            copied = _stream(snapshot, recipients, context, writer.write)
            stored = writer.commit()
        made = Extract(
            key=key,
            columns=query.log.columns,
            since=query.since,
            until=query.until,
            accounts=query.accounts,
            partners=query.partners,
            rows=copied.rows,
            first=copied.edges[0],
            last=copied.edges[1],
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
        keep(made)
    if lock_until is not None:
        present = store.stat(made.key).locked_until
        if present is None or present < lock_until:
            store.lock(made.key, lock_until)
    store.verify(made.stored)
    return made


@dataclass
class _Digest:
    """SHA-256 and size of what flows by."""

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
class _Made:
    rows: int
    edges: tuple[datetime | None, datetime | None]
    bytes_csv: int
    clear: _Digest


def _stream(
    snapshot: LogSnapshot,
    recipients: Sequence[Recipient],
    context: Mapping[str, str],
    write: Callable[[bytes], object],
) -> _Made:
    """Each stage in a thread of its own: copy and count, pack and hash, encrypt and store."""
    digest = _Digest()
    with (
        Copying(snapshot) as copying,
        Stage(copying.pieces, "copy") as clear,
        Stage(lambda: digest.of(packed(clear)), "zstd") as zstd,
        copying.stopped_on_error(),
    ):
        # Takes 0.3 s to load; the rows begin to flow meanwhile.
        from include.encryption import crypto

        message = crypto.encrypting(Filled(zstd), recipients, context)
        edges = snapshot.edges()
        while piece := message.read(crypto.FRAME):
            write(piece)
        rows = copying.finish()
    return _Made(rows, edges, copying.total, digest)


def opened(store: ObjectStore, made: Extract, key: OpeningKey) -> Iterator[bytes]:
    """Yield the CSV of an extract; the last piece has come when all of it was checked.

    Args:
        store: where it is kept.
        made: what was recorded of it.
        key: of one recipient.

    Raises:
        Refused: the key is none of its recipients', or the bytes are not those of this extract.
        ObjectMissing: it is gone.
        ServiceError: the store or the KMS failed.
    """
    from include.encryption.crypto import Refused, decrypting

    digest, counter = _Digest(), RowCounter()
    with store.open_reader(made.key, version_id=made.version_id) as reader:
        message = decrypting(reader, key, made.encryption.context, made.key)
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        for piece in digest.of(iter(lambda: message.read(PIECE), b"")):
            if csv := unpacker.decompress(piece):
                counter.feed(csv)
                yield csv
    if digest.hexdigest() != made.sha256_clear or counter.records - 1 != made.rows:
        raise Refused(
            f"{made.key} opens, and is not the extract that was recorded.",
            "It was exchanged by somebody who has the recipients' public keys: raise an incident.",
        )
