"""The manifest of a restore point: what was backed up, for whom, and how to know it again.

A restore point is the folder ``<database>/<id>/`` of the off-site store. It exists when its
manifest's Ed25519 signature is there and valid. Where the store keeps versions, every version
counts: an overwrite or a delete marker does not end a restore point whose objects are locked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import ValidationError

from include.backup.archive import LargeObjects
from include.encryption.records import EncryptionRecord, Frozen, RecipientRecord
from include.evidence import signing
from include.messages import Message, _
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    ObjectVersion,
    StoredObject,
)
from include.services.objectstore.keys import key_problem

FORMAT: Literal["parcelseal.restore-point/1"] = "parcelseal.restore-point/1"
DUMP_NAME = "database.dump.zst.enc"
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
NAMES = (SIGNATURE_NAME, MANIFEST_NAME, DUMP_NAME)  # in the order in which they are removed

# Both are read before anything about them is verified. A table takes about 200 bytes of a manifest.
MANIFEST_BYTES = 64 * 1024 * 1024
SIGNATURE_BYTES = 1024
MOST_VERSIONS = 16  # of a manifest and of a signature that are tried, the oldest first


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


DELETED = _("The object was deleted in the store; the version that was signed is intact.")
OVERWRITTEN = _("The object was overwritten in the store; the version that was signed is intact.")


@dataclass(frozen=True)
class HiddenObject:
    """An object of a valid restore point that is no longer the current version of its key.

    Attributes:
        key: of the object.
        is_deleted: a delete marker hides it; otherwise, a newer version does.
    """

    key: str
    is_deleted: bool

    @property
    def message(self) -> Message:
        """Return what happened to it, for people."""
        return DELETED if self.is_deleted else OVERWRITTEN


@dataclass(frozen=True)
class RestorePoint:
    """A manifest whose signature was checked.

    Attributes:
        manifest: what was signed.
        locked_until: end of the dump's retention, which may have passed; None without one.
        manifest_version_id: the version that was checked; empty where the store keeps none.
        signature_version_id: see ``manifest_version_id``.
        dump_version_id: the version that the manifest is about; verify and restore this one.
        hidden: its objects that somebody deleted or overwrote since.
    """

    manifest: Manifest
    locked_until: datetime | None = None
    manifest_version_id: str = ""
    signature_version_id: str = ""
    dump_version_id: str = ""
    hidden: tuple[HiddenObject, ...] = ()

    @property
    def id(self) -> str:
        """The restore point's name inside its database."""
        return self.manifest.id


@dataclass(frozen=True)
class Rejected:
    """A folder that looks like a restore point and cannot be trusted."""

    key: str
    reason: str


@dataclass(frozen=True)
class PointFolder:
    """A folder of a database in the off-site store, as it was listed.

    Attributes:
        id: the folder's name, which is the restore point's id if it is one.
        prefix: of the keys in it, with a slash at the end.
        versions: name -> versions and delete markers, the current one first, then newest first.
    """

    id: str
    prefix: str
    versions: Mapping[str, Sequence[ObjectVersion]]

    def readable(self, name: str) -> list[ObjectVersion]:
        """Return the versions of an object, without delete markers."""
        return [version for version in self.versions.get(name, ()) if not version.is_marker]

    def has(self, name: str) -> bool:
        """Return whether there is a version of the object that can be read."""
        return bool(self.readable(name))

    @property
    def is_empty(self) -> bool:
        """Return whether nothing in it can be read."""
        return not any(map(self.has, self.versions))


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

    The dump is locked first, by its version, so that no restore point is ever listed whose data can
    be deleted.

    Raises:
        UsageError: the manifest is larger than any that is read.
        StoreError: the store failed, or cannot lock.
    """
    prefix = folder(manifest.database, manifest.id)
    content = manifest.as_bytes()
    if len(content) > MANIFEST_BYTES:
        raise UsageError(
            f"The manifest of {manifest.database} has {len(content)} bytes, more than the "
            f"{MANIFEST_BYTES} that are read.",
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
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return a database's restore points, oldest first, and what must not be used.

    A manifest without a signature is refused, unless a run is still at work on it.

    Args:
        store: the off-site store.
        database: as the data map names it.
        trusted: public keys (PEM) whose signatures count.
        unfinished: ids that a run of this installation has begun and not ended; read them before.
    """
    points: list[RestorePoint] = []
    rejected: list[Rejected] = []
    for listed in folders(store, database):
        if not listed.has(SIGNATURE_NAME) and (
            listed.id in unfinished or not listed.has(MANIFEST_NAME)
        ):
            continue
        if problem := key_problem(listed.prefix + MANIFEST_NAME):
            rejected.append(Rejected(ascii(listed.prefix), f"no run writes such a name: {problem}"))
            continue
        try:
            points.append(_open(store, database, listed, trusted))
        except ManifestRefused as error:
            rejected.append(Rejected(error.key, error.message))
        except NoRestorePoint:
            continue  # pruned since the store was listed
    return sorted(points, key=lambda point: (point.manifest.taken_at, point.id)), rejected


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
    """Read one restore point's manifest; check its signature, its folder and that its dump exists.

    Older versions of manifest and signature are tried where the current ones do not fit. The dump's
    content is not read: `Source.check` and the decryption do that.

    Raises:
        NoRestorePoint: there is none of that name.
        ManifestRefused: signature, content or size do not fit, or a part is missing.
    """
    for listed in folders(store, database, point):
        return _open(store, database, listed, trusted)
    raise _no_restore_point(store, database, point)


def _no_restore_point(store: ObjectStore, database: str, point: str) -> NoRestorePoint:
    return NoRestorePoint(
        f"There is no restore point {point} of {database} in {store.description}.",
        "See ./parcelseal backup list.",
    )


def _open(
    store: ObjectStore, database: str, listed: PointFolder, trusted: Sequence[bytes]
) -> RestorePoint:
    """Return the restore point of a listed folder; raises what `load` does."""
    key = listed.prefix + MANIFEST_NAME
    signatures = _candidates(listed, SIGNATURE_NAME)
    if not signatures and listed.has(MANIFEST_NAME):
        raise ManifestRefused(
            listed.prefix + SIGNATURE_NAME, "it is missing, its manifest is there"
        )
    signed = dict(_signatures(store, listed, signatures))
    if not signed:  # removed since the store was listed, or never there
        raise _no_restore_point(store, database, listed.id)
    refusal = ManifestRefused(key, "it is missing, its signature is there")
    was_read = False
    for version_id in _candidates(listed, MANIFEST_NAME):
        try:
            content = _read(store, key, version_id, MANIFEST_BYTES)
            if content is None:
                continue
            signature_id = _signature_of(content, signed, trusted, key)
            manifest = _parsed(content, database, listed.id, key)
            dump = _stat_dump(store, manifest)
        except ManifestRefused as error:
            refusal, was_read = (refusal if was_read else error), True  # the current one's counts
            continue
        used = {
            SIGNATURE_NAME: signature_id,
            MANIFEST_NAME: version_id,
            DUMP_NAME: dump.version_id,
        }
        return RestorePoint(
            manifest,
            dump.locked_until,
            manifest_version_id=version_id,
            signature_version_id=signature_id,
            dump_version_id=dump.version_id,
            hidden=tuple(_hidden(listed, used)),
        )
    raise refusal


def _signatures(
    store: ObjectStore, listed: PointFolder, version_ids: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield version ids of the signature with their content; of one that is too large, nothing."""
    key = listed.prefix + SIGNATURE_NAME
    for version_id in version_ids:
        try:
            content = _read(store, key, version_id, SIGNATURE_BYTES)
        except ManifestRefused:
            content = b""
        if content is not None:
            yield version_id, content


def _candidates(listed: PointFolder, name: str) -> list[str]:
    """Return the version ids that are tried: the current one, then from the oldest on.

    A run writes each object once, so the genuine version is the oldest. However many versions
    somebody puts on top of it, it is among those that are tried.
    """
    versions = listed.readable(name)
    current = [version.version_id for version in versions if version.is_current]
    older = [version.version_id for version in reversed(versions) if not version.is_current]
    return current + older[:MOST_VERSIONS]


def _read(store: ObjectStore, key: str, version_id: str, limit: int) -> bytes | None:
    """Return an object that is not verified yet; None when it was removed since it was listed.

    Raises:
        ManifestRefused: it is too large.
    """
    try:
        return store.get(key, version_id=version_id, limit=limit)
    except ObjectMissing:
        return None
    except ObjectDamaged:
        raise ManifestRefused(key, f"it is larger than {limit} bytes") from None


def _signature_of(
    content: bytes, signed: Mapping[str, bytes], trusted: Sequence[bytes], key: str
) -> str:
    """Return the version id of the signature that fits; raises ManifestRefused."""
    for version_id, signature in signed.items():
        if any(signing.verify(pem, signature, content) for pem in trusted):
            return version_id
    raise ManifestRefused(
        key, "the signature does not fit; the manifest was changed or signed elsewhere"
    )


def _parsed(content: bytes, database: str, point: str, key: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ManifestRefused(key, _unreadable(content, error)) from None
    if (manifest.database, manifest.id) != (database, point):
        raise ManifestRefused(
            key, f"it is the manifest of {manifest.database}/{manifest.id}, moved here"
        )
    return manifest


def _hidden(listed: PointFolder, used: Mapping[str, str]) -> Iterator[HiddenObject]:
    for name, version_id in used.items():
        current = next((each for each in listed.versions.get(name, ()) if each.is_current), None)
        if current and (current.is_marker or current.version_id != version_id):
            yield HiddenObject(listed.prefix + name, current.is_marker)


def _unreadable(content: bytes, error: ValidationError) -> str:
    """Tell a manifest of another version, which is no tampering, from one that is broken."""
    found = re.search(rb'"format": ?"(parcelseal\.restore-point/[0-9]+)"', content)
    if found and found.group(1).decode() != FORMAT:
        return f"it is of format {found.group(1).decode()}: restore it with its own ParcelSeal"
    return f"{error.error_count()} fields cannot be read"


def _stat_dump(store: ObjectStore, manifest: Manifest) -> StoredObject:
    """Return what the store knows of the dump's version; a hollow restore point is refused."""
    dump = manifest.dump
    try:
        stored = store.stat(dump.key, version_id=dump.version_id)
    except ObjectMissing:
        raise ManifestRefused(dump.key, "it is missing, its manifest is there") from None
    except ObjectDamaged as error:
        raise ManifestRefused(dump.key, error.message.rstrip(".")) from None
    if stored.size != dump.size:
        raise ManifestRefused(dump.key, f"it has {stored.size} bytes instead of {dump.size}")
    return stored


def remove(
    store: ObjectStore,
    database: str,
    point: str,
    now: datetime,
    confirm: Callable[[], None] | None = None,
) -> None:
    """Delete a restore point, its signature first, so that it never counts while a part is gone.

    The locks of all versions of all three objects are checked first: the dump alone may be under a
    legal hold. Record that the removal has begun before, so that an interrupted one is completed.

    Args:
        store: the off-site store.
        database: as the data map names it.
        point: id of the restore point.
        now: the moment at which locks are compared.
        confirm: called when nothing can refuse any more, and nothing is deleted yet; it may raise.

    Raises:
        ObjectLocked: a retention or legal hold keeps one of them; nothing was removed then.
    """
    remove_objects(store, folder(database, point), now, confirm)


def remove_objects(
    store: ObjectStore, prefix: str, now: datetime, confirm: Callable[[], None] | None = None
) -> None:
    """Delete the objects of a restore point's folder; see `remove`."""
    keys = [prefix + name for name in NAMES]
    for key in keys:
        store.require_deletable(key, now)
    if confirm:
        confirm()
    for key in keys:
        store.delete(key)


def folders(store: ObjectStore, database: str, point: str = "") -> Iterator[PointFolder]:
    """Yield the folders of a database in which something can be read, or the named one, by name."""
    base = folder(database)
    grouped: dict[str, dict[str, list[ObjectVersion]]] = {}
    for version in store.list_versions(folder(database, point)):
        point_id, _, name = version.key.removeprefix(base).partition("/")
        if name and "/" not in name:
            grouped.setdefault(point_id, {}).setdefault(name, []).append(version)
    for point_id, versions in sorted(grouped.items()):
        listed = PointFolder(point_id, f"{base}{point_id}/", versions)
        if not listed.is_empty:
            yield listed
