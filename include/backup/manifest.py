"""Define the manifest of a restore point, and read and write restore points in a store.

A manifest records the content, recipients and digests of a restore point. A restore point is a
folder ``<database>/<id>/`` in the off-site store with a valid Ed25519 signature of its manifest. If
the store keeps versions of objects, and the current versions are not valid, older versions are
read. Therefore, a restore point whose objects are locked remains usable after an object was
overwritten or deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import ValidationError

from include.backup.archive import LargeObjects
from include.backup.point_folder import (
    DUMP_NAME,
    MANIFEST_NAME,
    NAMES,
    SIGNATURE_NAME,
    HiddenObject,
    ManifestRefused,
    NoRestorePoint,
    ObjectRecord,
    PointFolder,
    candidates,
    fitting_signature,
    folder,
    folders,
    hidden_objects,
    no_restore_point,
    read_bounded,
    signatures_of,
    stat_dump,
)
from include.encryption.crypto import EncryptionRecord, RecipientRecord
from include.evidence import signing
from include.frozen import StrictModel
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.keys import key_problem

FORMAT: Literal["parcelseal.restore-point/1"] = "parcelseal.restore-point/1"
# Largest manifest that is read. It is read before it is verified. A table takes about 200 bytes.
MANIFEST_BYTES = 64 * 1024 * 1024


class TableRecord(StrictModel):
    """The entry for one table of the backup in the manifest.

    Attributes:
        schema_name: name of the table's schema.
        name: name of the table.
        rows: number of rows, counted in the snapshot of the dump.
        bytes: size of the table's data in the archive in bytes, before compression.
        sha256: SHA-256 (hex) of the table's data in the archive, before compression.
    """

    schema_name: str
    name: str
    rows: int
    bytes: int
    sha256: str

    @property
    def label(self) -> str:
        """Return the schema and name of the table as display text."""
        return f"{self.schema_name}.{self.name}"


class LargeObjectsRecord(StrictModel):
    """The number, size and checksum of all large objects in the backup.

    Attributes:
        count: number of large objects.
        bytes: total size of their content in bytes.
        sum: sum of the SHA-256 values of all large objects, modulo 2^256, in hex. The SHA-256 of an
            object covers its OID and its content.
    """

    count: int
    bytes: int
    sum: str

    @classmethod
    def of(cls, objects: LargeObjects) -> Self:
        """Return the manifest's record for the large objects that were counted in an archive."""
        return cls(count=objects.count, bytes=objects.bytes, sum=f"{objects.sum:064x}")


class NewestRecord(StrictModel):
    """The newest value of a column that shows how recent the data of a database is.

    Attributes:
        collection: name of the collection in the data map.
        field: name of the column.
        moment: newest value of the column; None if the table is empty.
    """

    collection: str
    field: str
    moment: datetime | None


class HeadRecord(StrictModel):
    """The size and digest of the archive's head: its header and table of contents.

    The table of contents contains every SQL statement that a restore executes.

    Attributes:
        bytes: size of the head in bytes.
        sha256: SHA-256 (hex) of the head.
    """

    bytes: int
    sha256: str


class Manifest(StrictModel):
    """The signed description of a restore point, which is stored together with the dump.

    A restore reads its parameters from the manifest. A restore drill compares the restored copy
    with the manifest.

    Attributes:
        taken_at: time of the snapshot that was backed up.
        lsn: position of the snapshot in the write-ahead log.
        timezone: timezone of the server's session, in which timestamps without a timezone are read.
        tools: versions of the programs and libraries that made the backup.
        schema_sha256: SHA-256 (hex) of all definitions of the database.
        tables: tables with their number of rows and digests.
        newest: newest value of each column that shows how recent the data is.
        dump: encrypted dump in the store.
        dump_bytes: size of the dump in bytes, before compression and encryption.
        expires_at: time from which the restore point may be pruned.
        head: size and digest of the archive's head; None in manifests of earlier versions.
        mappings_without_options: user mappings whose options the backup lacks, because the role
            that made the backup could not read them. Each is written as ``role SERVER server``.
        encoding: PostgreSQL's name for the encoding of the database and of its dump; empty for
            UTF8.
    """

    format: Literal["parcelseal.restore-point/1"] = FORMAT
    id: str
    database: str
    taken_at: datetime
    lsn: str
    server_version: str
    timezone: str
    tools: dict[str, str]
    schema_sha256: str
    tables: tuple[TableRecord, ...]
    large_objects: LargeObjectsRecord
    newest: tuple[NewestRecord, ...]
    dump: ObjectRecord
    dump_bytes: int
    compression: str
    encryption: EncryptionRecord
    recipients: tuple[RecipientRecord, ...]
    expires_at: datetime
    dag_id: str = ""
    run_id: str = ""
    head: HeadRecord | None = None
    mappings_without_options: tuple[str, ...] = ()
    encoding: str = ""

    @property
    def rows(self) -> int:
        """Return the number of rows of all tables together."""
        return sum(table.rows for table in self.tables)

    def as_bytes(self) -> bytes:
        """Return the manifest as the JSON that is stored and signed.

        Fields that later versions of ParcelSeal added are omitted if they are empty. Therefore, the
        JSON of an older manifest does not change.
        """
        optional = ("head", "mappings_without_options", "encoding")
        later = {name for name in optional if not getattr(self, name)}
        return self.model_dump_json(indent=1, exclude=later).encode() + b"\n"


@dataclass(frozen=True)
class RestorePoint:
    """A restore point whose manifest has a valid signature.

    Attributes:
        manifest: signed manifest.
        locked_until: end of the dump's lock, which may have passed; None if the dump has no lock.
        hidden: objects that were deleted or overwritten after the backup. An older version of each
            of them is used.
        is_copy: whether the store lacks the version of the dump that the manifest records. This is
            the case if the store is a copy of another store. Only the digest then proves that the
            dump is the original. `Source` compares the digest; a list of restore points does not.
    """

    manifest: Manifest
    locked_until: datetime | None = None
    hidden: tuple[HiddenObject, ...] = ()
    is_copy: bool = False

    @property
    def id(self) -> str:
        """Return the id of the restore point.

        No other restore point of the database has the same id.
        """
        return self.manifest.id


@dataclass(frozen=True)
class Rejected:
    """A folder that looks like a restore point but must not be used.

    Attributes:
        key: prefix of the folder, or key of an object in it that differs from the signed manifest.
        reason: reason why the folder must not be used, as display text.
    """

    key: str
    reason: str

    @property
    def point(self) -> str:
        """Return the name of the folder. In a valid restore point, this name is the id."""
        return self.key.partition("/")[2].partition("/")[0]


def new_id(taken_at: datetime, suffix: str) -> str:
    """Return a new id for a restore point.

    The id begins with the time of the backup in UTC. Therefore, sorted ids are in chronological
    order.

    Args:
        taken_at: time of the backup.
        suffix: random text that makes the id unique.
    """
    return f"{taken_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{suffix}"


def publish(
    store: ObjectStore, manifest: Manifest, signer: signing.Signer, lock_until: datetime | None
) -> None:
    """Publish a restore point: lock its dump, store its manifest, and store the signature.

    A list of restore points contains the restore point as soon as the signature is stored. If a
    lock is requested, the dump is locked before this. Therefore, the dump of a listed restore point
    is protected from deletion.

    Args:
        store: off-site store that contains the dump.
        manifest: manifest of the backup.
        signer: key that signs the manifest.
        lock_until: end of the lock of all objects; None for no lock.

    Raises:
        UsageError: the manifest is larger than `MANIFEST_BYTES`.
        StoreError: the store failed, or cannot lock objects.
    """
    prefix = folder(manifest.database, manifest.id)
    content = manifest.as_bytes()
    if len(content) > MANIFEST_BYTES:
        raise UsageError(
            f"The manifest of {manifest.database} has {len(content)} bytes, but readers accept at "
            f"most {MANIFEST_BYTES}.",
            "Split the database: it has too many tables for one restore point.",
        )
    if lock_until:
        store.lock(manifest.dump.key, lock_until, version_id=manifest.dump.version_id)
    store.put(prefix + MANIFEST_NAME, content, locked_until=lock_until)
    store.put(prefix + SIGNATURE_NAME, signer.sign(content), locked_until=lock_until)


def restore_points(
    store: ObjectStore,
    database: str,
    trusted: Sequence[bytes],
    unfinished: Collection[str] = (),
    *,
    point: str = "",
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return a database's usable restore points, oldest first, and the folders that are not usable.

    A folder that has a manifest but no signature is not usable, except if its id is in
    ``unfinished``. A folder without both is not included in the result.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures are accepted.
        unfinished: ids of restore points that runs of this installation were publishing or removing
            before the call.
        point: id of the only restore point to read; empty for all.
    """
    points: list[RestorePoint] = []
    rejected: list[Rejected] = []
    for listed in folders(store, database, point):
        if not listed.has(SIGNATURE_NAME) and (
            listed.id in unfinished or not listed.has(MANIFEST_NAME)
        ):
            continue
        if problem := key_problem(listed.prefix + MANIFEST_NAME):
            rejected.append(
                Rejected(ascii(listed.prefix), f"the name is not one that runs write: {problem}")
            )
            continue
        try:
            points.append(_open(store, database, listed, trusted))
        except ManifestRefused as error:
            rejected.append(Rejected(error.key, error.message))
        except NoRestorePoint:
            continue  # pruned since the store was listed
    return sorted(points, key=lambda point: (point.manifest.taken_at, point.id)), rejected


def load(store: ObjectStore, database: str, point: str, trusted: Sequence[bytes]) -> RestorePoint:
    """Return a restore point after verifying its signature.

    If the current manifest and signature do not match, older versions of both are tried. This
    function checks only the existence and the size of the dump. Its content is checked later, by
    `Source.check` and during the decryption.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        point: id of the restore point.
        trusted: public keys (PEM) whose signatures are accepted.

    Raises:
        NoRestorePoint: the restore point does not exist.
        ManifestRefused: the signature is invalid, an object is missing, the manifest belongs to
            another folder, or the size of the dump differs from the manifest.
    """
    for listed in folders(store, database, point):
        return _open(store, database, listed, trusted)
    raise no_restore_point(store, database, point)


def _open(
    store: ObjectStore, database: str, listed: PointFolder, trusted: Sequence[bytes]
) -> RestorePoint:
    """Return the restore point of a folder after verifying its signature.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        listed: folder with the versions of its objects.
        trusted: public keys (PEM) whose signatures are accepted.

    Raises:
        NoRestorePoint, ManifestRefused: see `load`.
    """
    key = listed.prefix + MANIFEST_NAME
    signatures = candidates(listed, SIGNATURE_NAME)
    if not signatures and listed.has(MANIFEST_NAME):
        raise ManifestRefused(
            listed.prefix + SIGNATURE_NAME, "it is missing, but its manifest exists"
        )
    signed = dict(signatures_of(store, listed, signatures))
    if not signed:  # removed since the store was listed, or never there
        raise no_restore_point(store, database, listed.id)
    refusal = ManifestRefused(key, "it is missing, but its signature exists")
    was_read = False
    for version_id in candidates(listed, MANIFEST_NAME):
        try:
            content = read_bounded(store, key, version_id, MANIFEST_BYTES)
            if content is None:
                continue
            signature_id = fitting_signature(content, signed, trusted, key)
            manifest = _parsed(content, database, listed.id, key)
            dump, is_copy = stat_dump(store, listed, manifest.dump)
        except ManifestRefused as error:
            refusal, was_read = (refusal if was_read else error), True  # keeps the first error
            continue
        used = {
            SIGNATURE_NAME: signature_id,
            MANIFEST_NAME: version_id,
            DUMP_NAME: dump.version_id,
        }
        return RestorePoint(
            manifest,
            dump.locked_until,
            hidden=tuple(hidden_objects(listed, used)),
            is_copy=is_copy,
        )
    raise refusal


def _parsed(content: bytes, database: str, point: str, key: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ManifestRefused(key, _unreadable(content, error)) from None
    if (manifest.database, manifest.id) != (database, point):
        raise ManifestRefused(
            key, f"it was moved here and is the manifest of {manifest.database}/{manifest.id}"
        )
    return manifest


def _unreadable(content: bytes, error: ValidationError) -> str:
    """Return the reason why a signed manifest cannot be read, as display text.

    If another version of ParcelSeal wrote the manifest, the reason names the format of the
    manifest.

    Args:
        content: content of the manifest.
        error: error of the attempt to parse the manifest.
    """
    version = re.search(rb'"format": ?"(parcelseal\.restore-point/[0-9]+)"', content)
    if version and version.group(1).decode() != FORMAT:
        name = version.group(1).decode()
        return f"it has the format {name}: restore it with the version of ParcelSeal that wrote it"
    return f"{error.error_count()} fields cannot be read"


def remove(
    store: ObjectStore, prefix: str, now: datetime, confirm: Callable[[], None] | None = None
) -> None:
    """Delete the objects of a restore point, its signature first.

    A restore point without a signature is never used. Because the signature is deleted first, this
    is also true after an interrupted deletion. Before anything is deleted, the locks and S3 legal
    holds of all versions of its objects are checked. The caller must record the start of the
    removal before this call. A later run can then complete an interrupted removal.

    Args:
        store: off-site store.
        prefix: prefix of the restore point's folder.
        now: current time. A lock whose end is later protects an object.
        confirm: function that is called after the checks and before the first deletion. If it
            raises an error, nothing is deleted.

    Raises:
        ObjectLocked: a lock or legal hold protects an object. Nothing was deleted.
    """
    keys = [prefix + name for name in NAMES]
    for key in keys:
        store.require_deletable(key, now)
    if confirm:
        confirm()
    for key in keys:
        store.delete(key)
