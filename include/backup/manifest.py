"""The manifest of a restore point: what was backed up, for whom, and how to know it again.

A restore point is the folder ``<database>/<id>/`` of the off-site store. It exists when its
manifest's Ed25519 signature is there and valid; anything less is left-over of a killed run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import ValidationError

from include.backup.archive import LargeObjects
from include.encryption.records import EncryptionRecord, Frozen, RecipientRecord
from include.evidence import signing
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import (
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    StoredObject,
)

FORMAT: Literal["parcelseal.restore-point/1"] = "parcelseal.restore-point/1"
DUMP_NAME = "database.dump.zst.enc"
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"


class TableRecord(Frozen):
    """One table of the snapshot.

    Attributes:
        rows: counted in the dump's own snapshot.
        bytes: size of its data in the archive, before compression.
        sha256: of that data, in the archive's framing.
    """

    schema_name: str
    name: str
    rows: int
    bytes: int
    sha256: str

    @property
    def label(self) -> str:
        """Schema and name for people."""
        return f"{self.schema_name}.{self.name}"


class LargeObjectsRecord(Frozen):
    """All large objects of the snapshot.

    Attributes:
        count: how many.
        bytes: of their content.
        sum: over the SHA-256 of each one's number and content, modulo 2^256, in hex.
    """

    count: int
    bytes: int
    sum: str

    @classmethod
    def of(cls, found: LargeObjects) -> Self:
        """Record what an archive held."""
        return cls(count=found.count, bytes=found.bytes, sum=f"{found.sum:064x}")


class NewestRecord(Frozen):
    """The latest moment in a mapped clock column, None for an empty table."""

    collection: str
    field: str
    moment: datetime | None


class ObjectRecord(Frozen):
    """The encrypted object."""

    key: str
    size: int
    sha256: str
    checksum: str
    version_id: str = ""


class Manifest(Frozen):
    """Everything a restore needs to know, and a drill compares with.

    Attributes:
        timezone: of the server's session, in which its timestamps without a zone are read.
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

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)

    def as_bytes(self) -> bytes:
        """Return the JSON that is stored and signed."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True)
class RestorePoint:
    """A manifest whose signature was checked."""

    manifest: Manifest
    locked_until: datetime | None = None

    @property
    def id(self) -> str:
        """The restore point's name inside its database."""
        return self.manifest.id


@dataclass(frozen=True)
class Rejected:
    """A folder that looks like a restore point and cannot be trusted."""

    key: str
    reason: str


def new_id(taken_at: datetime, suffix: str) -> str:
    """Name a restore point by its moment in UTC, so that names sort by time."""
    return f"{taken_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{suffix}"


def folder(database: str, point: str = "") -> str:
    """Return the key prefix of a database or of one restore point."""
    return f"{database}/{point}/" if point else f"{database}/"


def publish(
    store: ObjectStore, manifest: Manifest, signer: signing.Signer, lock_until: datetime | None
) -> None:
    """Sign and store the manifest; with the signature in place the restore point exists.

    The dump is locked first, so that no restore point is ever listed whose data can be deleted.
    """
    place = folder(manifest.database, manifest.id)
    if lock_until:
        store.lock(manifest.dump.key, lock_until)
    content = manifest.as_bytes()
    store.put(place + MANIFEST_NAME, content, locked_until=lock_until)
    store.put(place + SIGNATURE_NAME, signer.sign(content), locked_until=lock_until)


def restore_points(
    store: ObjectStore, database: str, trusted: Sequence[bytes]
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return a database's restore points, oldest first, and what must not be used.

    Args:
        store: the off-site store.
        database: as the data map names it.
        trusted: public keys (PEM) whose signatures count.
    """
    found: list[RestorePoint] = []
    rejected: list[Rejected] = []
    for point in _folders(store, database):
        if SIGNATURE_NAME not in point.objects:
            continue
        try:
            found.append(load(store, database, point.id, trusted))
        except ManifestRefused as error:
            rejected.append(Rejected(error.key, error.message))
        except NoRestorePoint:
            continue  # pruned since the store was listed
    return sorted(found, key=lambda one: (one.manifest.taken_at, one.id)), rejected


class NoRestorePoint(UsageError):
    """There is no restore point of that name."""


class ManifestRefused(ControlFailed):
    """A restore point is not what was signed.

    Attributes:
        key: the object that gave it away.
    """

    exit_code = 1

    def __init__(self, key: str, why: str) -> None:
        super().__init__(
            f"{key}: {why}.", "Do not use this restore point; take another and raise an incident."
        )
        self.key = key


def load(store: ObjectStore, database: str, point: str, trusted: Sequence[bytes]) -> RestorePoint:
    """Read one restore point's manifest; check its signature, its place and that its dump is there.

    The dump's content is not looked at: `Source.check` and the decryption do that.

    Raises:
        NoRestorePoint: there is none of that name.
        ManifestRefused: signature, content or size do not fit, or a part is missing.
    """
    place = folder(database, point)
    key = place + MANIFEST_NAME
    try:
        signature = store.get(place + SIGNATURE_NAME)
    except ObjectMissing:
        raise NoRestorePoint(
            f"There is no restore point {point} of {database} in {store.description}.",
            "See ./parcelseal backup list.",
        ) from None
    try:
        content = store.get(key)
    except ObjectMissing:
        raise ManifestRefused(key, "it is missing, its signature is there") from None
    if not any(signing.verify(pem, signature, content) for pem in trusted):
        raise ManifestRefused(
            key, "the signature does not fit; the manifest was changed or signed elsewhere"
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ManifestRefused(key, _unreadable(content, error)) from None
    if (manifest.database, manifest.id) != (database, point):
        raise ManifestRefused(
            key, f"it is the manifest of {manifest.database}/{manifest.id}, moved here"
        )
    return RestorePoint(manifest, _stat_dump(store, manifest).locked_until)


def _unreadable(content: bytes, error: ValidationError) -> str:
    """Tell a manifest of another version, which is no tampering, from one that is broken."""
    found = re.search(rb'"format": ?"(parcelseal\.restore-point/[0-9]+)"', content)
    if found and found.group(1).decode() != FORMAT:
        return f"it is of format {found.group(1).decode()}: restore it with its own ParcelSeal"
    return f"{error.error_count()} fields cannot be read"


def _stat_dump(store: ObjectStore, manifest: Manifest) -> StoredObject:
    """Return what the store knows of the dump; a hollow restore point must not count as one."""
    dump = manifest.dump
    try:
        found = store.stat(dump.key)
    except ObjectMissing:
        raise ManifestRefused(dump.key, "it is missing, its manifest is there") from None
    if found.size != dump.size:
        raise ManifestRefused(dump.key, f"it has {found.size} bytes instead of {dump.size}")
    return found


def remove(store: ObjectStore, database: str, point: str, now: datetime) -> None:
    """Delete a restore point, its signature first, so that it never stands half.

    All three objects are asked for locks first: the dump alone may be under a legal hold.

    Raises:
        ObjectLocked: a retention or legal hold keeps one of them; nothing was removed then.
    """
    keys = [folder(database, point) + name for name in (SIGNATURE_NAME, MANIFEST_NAME, DUMP_NAME)]
    for key in keys:
        store.require_deletable(key, now)
    for key in keys:
        store.delete(key)


@dataclass(frozen=True)
class Cleared:
    """What a killed run had left behind."""

    uploads: int
    folders: tuple[str, ...]
    locked: tuple[str, ...]


def clear_unfinished(store: ObjectStore, database: str) -> Cleared:
    """Remove unfinished uploads and folders without a signature. Call under the database's lock."""
    uploads = store.clear_abandoned(folder(database))
    cleared: list[str] = []
    locked: list[str] = []
    for point in _folders(store, database):
        if SIGNATURE_NAME in point.objects:
            continue
        try:
            for name in point.objects:
                store.delete(point.prefix + name)
            cleared.append(point.prefix)
        except ObjectLocked:
            locked.append(point.prefix)
    return Cleared(uploads, tuple(cleared), tuple(locked))


@dataclass(frozen=True)
class _Folder:
    prefix: str
    id: str
    objects: Mapping[str, StoredObject]


def _folders(store: ObjectStore, database: str) -> Iterator[_Folder]:
    base = folder(database)
    grouped: dict[str, dict[str, StoredObject]] = {}
    for stored in store.list(base):
        point, _, name = stored.key.removeprefix(base).partition("/")
        if name and "/" not in name:
            grouped.setdefault(point, {})[name] = stored
    for point, objects in sorted(grouped.items()):
        yield _Folder(folder(database, point), point, objects)
