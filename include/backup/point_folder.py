"""List and read the objects in the folder of a restore point before they are verified.

A manifest records the version id that the dump has in the store. If the store is copied to another
bucket or directory, the dump has another version id there. Each version with the recorded size is
then a candidate, and only its digest proves that it is the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from include.evidence import signing
from include.frozen import StrictModel
from include.messages import Message, _
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    ObjectVersion,
    StoredObject,
    read_sha256,
    versions_to_try,
)


class ObjectRecord(StrictModel):
    """The encrypted dump as its manifest records it.

    Attributes:
        key: key of the object in the store.
        size: size in bytes.
        sha256: SHA-256 (hex) of the object.
        checksum: checksum that the store computed, as in `StoredObject.checksum`.
        version_id: id of the version in the store; empty if the store keeps no versions.
    """

    key: str
    size: int
    sha256: str
    checksum: str
    version_id: str = ""


DUMP_NAME = "database.dump.zst.enc"
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
NAMES = (SIGNATURE_NAME, MANIFEST_NAME, DUMP_NAME)  # in the order in which they are removed

SIGNATURE_BYTES = 1024  # larger than any signature; limits the read of unverified content


def folder(database: str, point: str = "") -> str:
    """Return the prefix with which the keys of a database's objects in the off-site store begin.

    Args:
        database: name of the database in the data map.
        point: id of the restore point to which the objects belong; empty for all restore points of
            the database.
    """
    return f"{database}/{point}/" if point else f"{database}/"


class NoRestorePoint(UsageError):
    """The error for a restore point that does not exist."""


class ManifestRefused(ControlFailed):
    """The error for a restore point that differs from its signed manifest.

    Attributes:
        key: key of the object that differs.
    """

    exit_code = 1

    def __init__(self, key: str, why: str) -> None:
        super().__init__(
            f"{key}: {why}.",
            "Do not use this restore point. Use another one, and open an incident.",
        )
        self.key = key


def no_restore_point(store: ObjectStore, database: str, point: str) -> NoRestorePoint:
    """Return the error for a restore point that does not exist.

    Its advice to the user is to list the existing restore points.
    """
    return NoRestorePoint(
        f"There is no restore point {point} of {database} in {store.description}.",
        "List the restore points with ./parcelseal backup list.",
    )


DELETED = _("A backup file was deleted in the off-site store; its signed version is intact.")
OVERWRITTEN = _(
    "A backup file was overwritten in the off-site store; its signed version is intact."
)


@dataclass(frozen=True)
class HiddenObject:
    """An object whose verified version is hidden by a newer version or by a delete marker.

    Attributes:
        key: key of the object.
        is_deleted: whether a delete marker hides the verified version.
    """

    key: str
    is_deleted: bool

    @property
    def message(self) -> Message:
        """Return a text that says whether the object was deleted or overwritten."""
        return DELETED if self.is_deleted else OVERWRITTEN


@dataclass(frozen=True)
class PointFolder:
    """A folder in the off-site store with the versions of its objects.

    Attributes:
        id: name of the folder. For a restore point, this is the id of the restore point.
        prefix: prefix of the keys in the folder, with a trailing slash.
        versions: versions and delete markers by object name. The current version is first, then the
            others follow from the newest to the oldest.
    """

    id: str
    prefix: str
    versions: Mapping[str, Sequence[ObjectVersion]]

    def readable(self, name: str) -> list[ObjectVersion]:
        """Return the versions of an object that can be read. A delete marker cannot be read.

        Args:
            name: name of the object in the folder, without the prefix.
        """
        return [version for version in self.versions.get(name, ()) if not version.is_marker]

    def has(self, name: str) -> bool:
        """Return whether the object with the given name has a version that can be read."""
        return bool(self.readable(name))


def folders(store: ObjectStore, database: str, point: str = "") -> Iterator[PointFolder]:
    """Yield the folders of a database that contain readable objects, sorted by name.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        point: id of the only restore point whose folder is read; empty for all folders.
    """
    base = folder(database)
    grouped: dict[str, dict[str, list[ObjectVersion]]] = {}
    for version in store.list_versions(folder(database, point)):
        point_id, _, name = version.key.removeprefix(base).partition("/")
        if name and "/" not in name:
            grouped.setdefault(point_id, {}).setdefault(name, []).append(version)
    for point_id, versions in sorted(grouped.items()):
        listed = PointFolder(point_id, f"{base}{point_id}/", versions)
        if any(map(listed.has, versions)):
            yield listed


def signatures_of(
    store: ObjectStore, listed: PointFolder, version_ids: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the version id and the content of each version of a manifest's signature.

    If a version is too large to be a signature, it is not read, and its content is yielded as
    empty. A version that was removed after the folder was listed is omitted.

    Args:
        store: off-site store.
        listed: folder of the restore point.
        version_ids: ids of the versions to read.
    """
    key = listed.prefix + SIGNATURE_NAME
    for version_id in version_ids:
        try:
            content = read_bounded(store, key, version_id, SIGNATURE_BYTES)
        except ManifestRefused:
            content = b""
        if content is not None:
            yield version_id, content


def candidates(listed: PointFolder, name: str) -> list[str]:
    """Return the version ids of an object in the order in which to try them.

    `versions_to_try` defines the order.

    Args:
        listed: folder of the restore point.
        name: name of the object in the folder, without the prefix.
    """
    return [version.version_id for version in versions_to_try(listed.readable(name))]


def read_bounded(store: ObjectStore, key: str, version_id: str, limit: int) -> bytes | None:
    """Read an object that is not verified yet, if it is not larger than a limit.

    Args:
        store: off-site store.
        key: key of the object.
        version_id: id of the version to read.
        limit: largest accepted size in bytes.

    Returns:
        The content; None if the object has been removed since it was listed.

    Raises:
        ManifestRefused: the object is larger than ``limit`` bytes.
    """
    try:
        return store.get(key, version_id=version_id, limit=limit)
    except ObjectMissing:
        return None
    except ObjectDamaged:
        raise ManifestRefused(key, f"it is larger than {limit} bytes") from None


def fitting_signature(
    content: bytes, signed: Mapping[str, bytes], trusted: Sequence[bytes], key: str
) -> str:
    """Return the version id of the first signature that is valid for a manifest.

    Args:
        content: content of the manifest.
        signed: content of each version of the signature, by version id. The versions are tried in
            this order.
        trusted: public keys (PEM) whose signatures are accepted.
        key: key of the manifest, for the error message.

    Raises:
        ManifestRefused: no signature is valid.
    """
    for version_id, signature in signed.items():
        if any(signing.verify(pem, signature, content) for pem in trusted):
            return version_id
    raise ManifestRefused(
        key, "the signature does not fit: the manifest was changed or signed by another key"
    )


def hidden_objects(listed: PointFolder, used: Mapping[str, str]) -> Iterator[HiddenObject]:
    """Yield the objects whose current version is not the verified version.

    Args:
        listed: folder of the restore point.
        used: id of the verified version, by object name.
    """
    for name, version_id in used.items():
        current = next(
            (version for version in listed.versions.get(name, ()) if version.is_current), None
        )
        if current and (current.is_marker or current.version_id != version_id):
            yield HiddenObject(listed.prefix + name, current.is_marker)


_UNNAMED = ("", "null")  # S3's names for the version of a bucket that keeps none


@dataclass(frozen=True)
class DumpVersions:
    """The versions of a dump from which a restore may choose.

    Attributes:
        ids: id of the version that the manifest records. If only other versions exist, ids of those
            with the recorded size, in the order in which to try them; empty if no version has this
            size.
        is_copy: whether the store has only other versions than the manifest records. A version may
            then be used only after its digest was compared with the manifest.
    """

    ids: Sequence[str]
    is_copy: bool = False


def versions_of_dump(listed: PointFolder | None, dump: ObjectRecord) -> DumpVersions:
    """Return the versions of a dump from which a restore may choose.

    Args:
        listed: folder of the restore point; None if the store lacks it.
        dump: dump as the signed manifest records it.
    """
    if listed is None or listed.prefix + DUMP_NAME != dump.key or not listed.has(DUMP_NAME):
        return DumpVersions((dump.version_id,))  # reading this version reports the problem
    readable = listed.readable(DUMP_NAME)
    for version in readable:
        if version.version_id == dump.version_id or (
            version.version_id in _UNNAMED and dump.version_id in _UNNAMED
        ):
            return DumpVersions((version.version_id,))
    if dump.version_id in _UNNAMED and len(readable) == 1 and readable[0].is_current:
        return DumpVersions((dump.version_id,))  # a directory was copied to a bucket with versions
    sizes = {version.version_id: version.size for version in readable}
    fitting = [
        version_id for version_id in candidates(listed, DUMP_NAME) if sizes[version_id] == dump.size
    ]
    return DumpVersions(fitting, is_copy=True)


def stat_dump(
    store: ObjectStore, listed: PointFolder, dump: ObjectRecord
) -> tuple[StoredObject, bool]:
    """Return the dump's metadata in the store, and whether the dump is a copy.

    It is a copy if the store lacks the version that the manifest records. The content of the dump
    is not read.

    Args:
        store: off-site store.
        listed: folder of the restore point.
        dump: dump as the signed manifest records it.

    Raises:
        ManifestRefused: the dump is missing or has another size.
    """
    versions = versions_of_dump(listed, dump)
    if not versions.ids:
        raise ManifestRefused(
            dump.key, f"it is missing: no version of it has the {dump.size} bytes of its manifest"
        )
    try:
        stored = store.stat(dump.key, version_id=versions.ids[0])
    except ObjectMissing:
        raise ManifestRefused(dump.key, "it is missing, but its manifest exists") from None
    except ObjectDamaged as error:
        raise ManifestRefused(dump.key, error.message.rstrip(".")) from None
    if stored.size != dump.size:
        raise ManifestRefused(dump.key, f"it has {stored.size} bytes instead of {dump.size}")
    return stored, versions.is_copy


def version_by_digest(store: ObjectStore, dump: ObjectRecord, ids: Sequence[str]) -> str | None:
    """Return the id of the version of the dump that has the SHA-256 in the manifest.

    The given versions are read completely, one after the other, until one has this SHA-256. If no
    version has it, return None.

    Args:
        store: off-site store.
        dump: dump as the signed manifest records it.
        ids: ids of the versions in the order in which they are read.

    Raises:
        StoreError: the store failed.
    """
    for version_id in ids:
        try:
            digest = read_sha256(store, dump.key, version_id=version_id)
        except ObjectMissing:  # removed since it was listed
            continue
        if digest == dump.sha256:
            return version_id
    return None
