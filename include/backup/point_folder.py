"""List and read a restore point's folder in the off-site store, before its content is verified.

A manifest records the version id that its run wrote. In a copy of the store, in another bucket or
directory, versions have other ids. Then each version of the recorded size is a candidate, and only
its digest proves that it is the same object.
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
    """The encrypted dump in the store."""

    key: str
    size: int
    sha256: str
    checksum: str
    version_id: str = ""


DUMP_NAME = "database.dump.zst.enc"
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
NAMES = (SIGNATURE_NAME, MANIFEST_NAME, DUMP_NAME)  # in the order in which they are removed

SIGNATURE_BYTES = 1024  # more than any signature has; bounds a read of unverified content


def folder(database: str, point: str = "") -> str:
    """Return the key prefix of a database or of one restore point."""
    return f"{database}/{point}/" if point else f"{database}/"


class NoRestorePoint(UsageError):
    """The restore point does not exist."""


class ManifestRefused(ControlFailed):
    """A restore point differs from its signed manifest.

    Attributes:
        key: the object that differs.
    """

    exit_code = 1

    def __init__(self, key: str, why: str) -> None:
        super().__init__(
            f"{key}: {why}.", "Do not use this restore point; take another and raise an incident."
        )
        self.key = key


def no_restore_point(store: ObjectStore, database: str, point: str) -> NoRestorePoint:
    """Return the error for a restore point that does not exist."""
    return NoRestorePoint(
        f"There is no restore point {point} of {database} in {store.description}.",
        "See ./parcelseal backup list.",
    )


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


def folders(store: ObjectStore, database: str, point: str = "") -> Iterator[PointFolder]:
    """Yield the non-empty folders of a database, or the folder of one restore point, by name."""
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
    """Yield version ids of the signature with their content, empty if it is too large."""
    key = listed.prefix + SIGNATURE_NAME
    for version_id in version_ids:
        try:
            content = read_bounded(store, key, version_id, SIGNATURE_BYTES)
        except ManifestRefused:
            content = b""
        if content is not None:
            yield version_id, content


def candidates(listed: PointFolder, name: str) -> list[str]:
    """Return the ids of an object's versions in the order of trial; see `versions_to_try`."""
    return [version.version_id for version in versions_to_try(listed.readable(name))]


def read_bounded(store: ObjectStore, key: str, version_id: str, limit: int) -> bytes | None:
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


def fitting_signature(
    content: bytes, signed: Mapping[str, bytes], trusted: Sequence[bytes], key: str
) -> str:
    """Return the version id of the signature that fits; raises ManifestRefused."""
    for version_id, signature in signed.items():
        if any(signing.verify(pem, signature, content) for pem in trusted):
            return version_id
    raise ManifestRefused(
        key, "the signature does not fit; the manifest was changed or signed elsewhere"
    )


def hidden_objects(listed: PointFolder, used: Mapping[str, str]) -> Iterator[HiddenObject]:
    """Yield the objects whose current version is not the verified version.

    Args:
        listed: the folder.
        used: name -> id of the version that was verified.
    """
    for name, version_id in used.items():
        current = next((each for each in listed.versions.get(name, ()) if each.is_current), None)
        if current and (current.is_marker or current.version_id != version_id):
            yield HiddenObject(listed.prefix + name, current.is_marker)


_UNNAMED = ("", "null")  # S3's names for the version of a bucket that keeps none


@dataclass(frozen=True)
class DumpVersions:
    """Versions of a dump that may be read.

    Attributes:
        ids: the recorded version, or in a copy the candidates of its size in the order of trial.
            Empty if the object is missing or has another size.
        is_copy: the store has no version of the recorded id. A candidate counts only once its
            digest was compared with the manifest's.
    """

    ids: Sequence[str]
    is_copy: bool = False


def versions_of_dump(listed: PointFolder | None, dump: ObjectRecord) -> DumpVersions:
    """Return the versions of a listed restore point's dump that may be read.

    Args:
        listed: the restore point's folder; None where the store has none.
        dump: the object as a signed manifest records it.
    """
    if listed is None or listed.prefix + DUMP_NAME != dump.key or not listed.has(DUMP_NAME):
        return DumpVersions((dump.version_id,))  # reading it names the problem
    readable = listed.readable(DUMP_NAME)
    for version in readable:
        if version.version_id == dump.version_id or (
            version.version_id in _UNNAMED and dump.version_id in _UNNAMED
        ):
            return DumpVersions((version.version_id,))
    if dump.version_id in _UNNAMED and len(readable) == 1 and readable[0].is_current:
        return DumpVersions((dump.version_id,))  # a directory was copied to a bucket with versions
    sizes = {version.version_id: version.size for version in readable}
    fitting = [each for each in candidates(listed, DUMP_NAME) if sizes[each] == dump.size]
    return DumpVersions(fitting, is_copy=True)


def stat_dump(
    store: ObjectStore, listed: PointFolder, dump: ObjectRecord
) -> tuple[StoredObject, bool]:
    """Return the stored object of a dump, and whether the store is a copy.

    The dump's content is not read.

    Raises:
        ManifestRefused: it is missing or has another size.
    """
    versions = versions_of_dump(listed, dump)
    if not versions.ids:
        raise ManifestRefused(
            dump.key, f"it is missing: no version of it has the {dump.size} bytes of its manifest"
        )
    try:
        stored = store.stat(dump.key, version_id=versions.ids[0])
    except ObjectMissing:
        raise ManifestRefused(dump.key, "it is missing, its manifest is there") from None
    except ObjectDamaged as error:
        raise ManifestRefused(dump.key, error.message.rstrip(".")) from None
    if stored.size != dump.size:
        raise ManifestRefused(dump.key, f"it has {stored.size} bytes instead of {dump.size}")
    return stored, versions.is_copy


def version_by_digest(store: ObjectStore, dump: ObjectRecord, ids: Sequence[str]) -> str | None:
    """Return the first version whose SHA-256 is the manifest's, or None.

    Reads each candidate whole.

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
