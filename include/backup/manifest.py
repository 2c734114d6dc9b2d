"""The manifest of a restore point: content, recipients and digests.

A restore point is the folder ``<database>/<id>/`` of the off-site store. It exists when its
manifest's Ed25519 signature is there and valid. Where the store keeps versions, every version
counts: an overwrite or a delete marker does not end a restore point whose objects are locked.
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
# Read before anything about it is verified. A table takes about 200 bytes of it.
MANIFEST_BYTES = 64 * 1024 * 1024


class TableRecord(StrictModel):
    """A table of the snapshot.

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


class LargeObjectsRecord(StrictModel):
    """All large objects of the snapshot.

    Attributes:
        count: how many.
        bytes: of their content.
        sum: over the SHA-256 of each object's number and content, modulo 2^256, in hex.
    """

    count: int
    bytes: int
    sum: str

    @classmethod
    def of(cls, objects: LargeObjects) -> Self:
        """Record the large objects of an archive."""
        return cls(count=objects.count, bytes=objects.bytes, sum=f"{objects.sum:064x}")


class NewestRecord(StrictModel):
    """The latest moment in a mapped clock column, None for an empty table."""

    collection: str
    field: str
    moment: datetime | None


class HeadRecord(StrictModel):
    """The archive's header and table of contents: every statement that a restore executes."""

    bytes: int
    sha256: str


class Manifest(StrictModel):
    """The data that a restore needs and a drill compares with.

    Attributes:
        timezone: of the server's session, in which its timestamps without a zone are read.
        head: None in manifests of earlier versions.
        mappings_without_options: user mappings, ``role SERVER server``, whose options the backup's
            role could not read, so that the backup does not hold them.
        encoding: of the database and of its dump, as PostgreSQL names it; empty for a dump in UTF8.
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
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)

    def as_bytes(self) -> bytes:
        """Return the JSON that is stored and signed; an earlier version's stays as it was."""
        optional = ("head", "mappings_without_options", "encoding")
        later = {name for name in optional if not getattr(self, name)}
        return self.model_dump_json(indent=1, exclude=later).encode() + b"\n"


@dataclass(frozen=True)
class RestorePoint:
    """A manifest whose signature was checked.

    Attributes:
        manifest: as it was signed.
        locked_until: end of the dump's retention, which may have passed; None without one.
        hidden: its objects that were deleted or overwritten since.
        is_copy: the store has no version of the recorded id, as in a copy of another store. Only
            the digest of the dump proves it; `Source` compares it, a listing does not.
    """

    manifest: Manifest
    locked_until: datetime | None = None
    hidden: tuple[HiddenObject, ...] = ()
    is_copy: bool = False

    @property
    def id(self) -> str:
        """The restore point's name inside its database."""
        return self.manifest.id


@dataclass(frozen=True)
class Rejected:
    """A folder that looks like a restore point and cannot be trusted.

    Attributes:
        key: the object that differs from the signed manifest, or the folder.
        reason: for people.
    """

    key: str
    reason: str

    @property
    def point(self) -> str:
        """The folder's name, the restore point's id if it is one."""
        return self.key.partition("/")[2].partition("/")[0]


def new_id(taken_at: datetime, suffix: str) -> str:
    """Name a restore point by its moment in UTC, so that names sort by time."""
    return f"{taken_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{suffix}"


def publish(
    store: ObjectStore, manifest: Manifest, signer: signing.Signer, lock_until: datetime | None
) -> None:
    """Sign and store the manifest; with the signature in place the restore point exists.

    The dump is locked first, by its version, so that no restore point is ever listed whose data can
    be deleted.

    Raises:
        UsageError: the manifest is larger than readers accept.
        StoreError: the store failed, or cannot lock.
    """
    prefix = folder(manifest.database, manifest.id)
    content = manifest.as_bytes()
    if len(content) > MANIFEST_BYTES:
        raise UsageError(
            f"The manifest of {manifest.database} has {len(content)} bytes, and readers accept "
            f"at most {MANIFEST_BYTES}.",
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
    """Return a database's usable restore points, oldest first, and its rejected folders.

    A manifest without a signature is rejected, unless a run is still at work on it.

    Args:
        store: the off-site store.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures count.
        unfinished: ids on which runs of this installation are at work, read before the call.
        point: read only the folder of this id; empty for all folders.
    """
    points: list[RestorePoint] = []
    rejected: list[Rejected] = []
    for listed in folders(store, database, point):
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
    raise no_restore_point(store, database, point)


def _open(
    store: ObjectStore, database: str, listed: PointFolder, trusted: Sequence[bytes]
) -> RestorePoint:
    """Return the restore point of a listed folder; raises what `load` does."""
    key = listed.prefix + MANIFEST_NAME
    signatures = candidates(listed, SIGNATURE_NAME)
    if not signatures and listed.has(MANIFEST_NAME):
        raise ManifestRefused(
            listed.prefix + SIGNATURE_NAME, "it is missing, its manifest is there"
        )
    signed = dict(signatures_of(store, listed, signatures))
    if not signed:  # removed since the store was listed, or never there
        raise no_restore_point(store, database, listed.id)
    refusal = ManifestRefused(key, "it is missing, its signature is there")
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
            refusal, was_read = (refusal if was_read else error), True  # reports the first version
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
            key, f"it is the manifest of {manifest.database}/{manifest.id}, moved here"
        )
    return manifest


def _unreadable(content: bytes, error: ValidationError) -> str:
    """Return why a manifest cannot be read; one of another version is no tampering."""
    version = re.search(rb'"format": ?"(parcelseal\.restore-point/[0-9]+)"', content)
    if version and version.group(1).decode() != FORMAT:
        return f"it is of format {version.group(1).decode()}: restore it with its own ParcelSeal"
    return f"{error.error_count()} fields cannot be read"


def remove(
    store: ObjectStore, prefix: str, now: datetime, confirm: Callable[[], None] | None = None
) -> None:
    """Delete a restore point, its signature first, so that it never counts while a part is gone.

    The locks of all versions of all three objects are checked first: the dump alone may be under a
    legal hold. Record that the removal has begun before, so that an interrupted one is completed.

    Args:
        store: the off-site store.
        prefix: of the restore point's folder.
        now: the moment at which locks are compared.
        confirm: called when nothing can refuse any more, and nothing is deleted yet; it may raise.

    Raises:
        ObjectLocked: a retention or legal hold keeps one of them; nothing was removed then.
    """
    keys = [prefix + name for name in NAMES]
    for key in keys:
        store.require_deletable(key, now)
    if confirm:
        confirm()
    for key in keys:
        store.delete(key)
