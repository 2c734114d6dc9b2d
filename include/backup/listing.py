"""List the restore points of a database, and report folders that are not valid restore points.

A run may publish or remove a restore point while another process lists the store. Therefore, before
an incomplete folder is reported, the ledger of operations is read again and the folder is listed
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from include.backup.manifest import Rejected, RestorePoint, restore_points
from include.backup.operations import KnownOperations, operations_reader
from include.backup.point_folder import (
    NAMES,
    SIGNATURE_NAME,
    ManifestRefused,
    NoRestorePoint,
    folder,
    folders,
)
from include.encryption.crypto import ContentRefused
from include.holds.records import StoredRestorePoint
from include.holds.registry import restore_points_on_hold
from include.service_container import Services
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectMissing, ObjectStore

VERSION_GONE = (
    "this store has another version of its dump than the signed version; restore the point by its "
    "id, which compares the digest"
)


class PointRemoved(UsageError):
    """The error for a restore point that a run removed while another process read it."""


def listed_points(
    store: ObjectStore,
    database: str,
    trusted: Sequence[bytes],
    read_operations: Callable[[], KnownOperations],
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return a database's usable restore points, oldest first, and the folders that are not usable.

    For example, a folder is not usable if its signature is invalid.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures are accepted.
        read_operations: function that reads the ledger of operations on restore points. It is
            called again before a folder is rejected.

    Raises:
        StoreError: the store failed.
        ParcelSealError: ``read_operations`` raised an error.
    """
    recorded = read_operations()
    points, rejected = restore_points(store, database, trusted, recorded.unfinished)
    refused: list[Rejected] = []
    if rejected:
        recorded = read_operations()
    for rejected_folder in rejected:
        if not rejected_folder.key.startswith(folder(database)):  # no run writes such a name
            refused.append(rejected_folder)
            continue
        points_now, rejected_now = restore_points(
            store, database, trusted, recorded.unfinished, point=rejected_folder.point
        )
        points += points_now
        refused += rejected_now
        if not (
            points_now
            or rejected_now
            or rejected_folder.point in {*recorded.unfinished, *recorded.removed}
        ):
            refused.append(rejected_folder)  # gone, although no run removed it
    # If this installation published a restore point in this store, the store must have its version.
    refused += [
        Rejected(point.manifest.dump.key, VERSION_GONE)
        for point in points
        if point.is_copy and point.id in recorded.published
    ]
    usable = [point for point in points if not (point.is_copy and point.id in recorded.published)]
    return sorted(usable, key=lambda point: (point.manifest.taken_at, point.id)), refused


def stored_restore_points(services: Services, database: str) -> list[StoredRestorePoint]:
    """Return a database's usable restore points, and the folders that are not valid restore points.

    For example, a folder is not a valid restore point if its signature is invalid. An item for such
    a folder contains only its object key, and its times are None.

    Args:
        services: services of a run.
        database: name of the database in the data map.

    Raises:
        ParcelSealError: the off-site store cannot be read.
    """
    store = services.store("offsite_store")
    read_operations = operations_reader(services.state, database, store)
    points, rejected = listed_points(
        store, database, services.trusted_for_manifests, read_operations
    )
    with services.state.connect() as conn:
        held = restore_points_on_hold(conn, database, [point.id for point in points])
    return [
        StoredRestorePoint(
            point.id, point.manifest.taken_at, point.manifest.expires_at, point.id in held
        )
        for point in points
    ] + [StoredRestorePoint(rejected_folder.key) for rejected_folder in rejected]


@contextmanager
def raising_point_removed(
    store: ObjectStore, database: str, point: str, read_operations: Callable[[], KnownOperations]
) -> Iterator[None]:
    """Raise PointRemoved if the block fails because a run has removed the restore point.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        point: id of the restore point that the block reads.
        read_operations: function that reads the ledger of operations on restore points. The ledger
            shows whether a run has removed the restore point.

    Raises:
        PointRemoved: the block could not read the restore point. The ledger records that a run
            removed it, and its objects are missing in the store.
    """
    try:
        yield
    except (ContentRefused, ManifestRefused, NoRestorePoint, ObjectMissing):
        if not _is_removed(store, database, point, read_operations()):
            raise
        raise PointRemoved(
            f"Restore point {point} was pruned, so it cannot be read any more. This is not "
            f"tampering.",
            "Choose another restore point. A repeated drill chooses a restore point by itself.",
        ) from None


def _is_removed(store: ObjectStore, database: str, point: str, recorded: KnownOperations) -> bool:
    """Return whether a run removed a restore point, according to the ledger and the store.

    The result is True if the ledger records the removal and the store lacks the deleted objects. A
    removal deletes the signature first. Therefore, during an unfinished removal, the store only has
    to lack the signature. After a finished removal, it has to lack all objects.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        point: id of the restore point.
        recorded: entries of the ledger, read before this call.
    """
    if point not in recorded.removed:
        return False
    deleted = [SIGNATURE_NAME] if point in recorded.unfinished else NAMES
    listed = [
        point_folder for point_folder in folders(store, database, point) if point_folder.id == point
    ]
    return not any(point_folder.has(name) for point_folder in listed for name in deleted)
