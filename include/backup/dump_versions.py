"""Find the stored version of a dump that a manifest records, also in a copy of the store.

A manifest records the version id that its run wrote. In a copy of the store, in another bucket or
directory, versions have other ids. Then each version of the recorded size is a candidate, and only
its digest proves that it is the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.backup.object_record import ObjectRecord
from include.backup.point_folder import DUMP_NAME, ManifestRefused, PointFolder, candidates
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    StoredObject,
    read_sha256,
)

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
