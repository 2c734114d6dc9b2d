"""List restore points, and keep a ledger of the runs that publish or remove a restore point.

A run may publish or remove a restore point while another process lists the store. The folder of the
restore point is then incomplete, and looks as if someone had tampered with it. Therefore, before
such a folder is reported, the ledger is read again and the folder is listed again.

A killed run may leave an incomplete folder. Such a leftover is deleted only if the ledger says that
work on the folder has begun and not ended. A folder without an entry in the ledger is reported and
never deleted. Such a folder may be a valid backup, because the state database with its ledger may
have been lost or restored from an older backup.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, exists, select, update

from include.backup.manifest import Rejected, RestorePoint, restore_points
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
from include.state.tables import restore_point_operation


class Work(StrEnum):
    """The work that a run does on the folder of a restore point: publish or remove it."""

    PUBLISH = "publish"
    REMOVE = "remove"


class Ending(StrEnum):
    """The way in which the work on the folder of a restore point ended."""

    PUBLISHED = "published"
    REMOVED = "removed"
    CLEARED = "cleared"  # a killed run's left-over was removed
    KEPT = "kept"  # the removal was interrupted before it deleted an object


def begin_work(
    state: Engine,
    store: str,
    database: str,
    point: str,
    work: Work,
    now: datetime,
    *,
    dag_id: str,
    run_id: str,
) -> None:
    """Record that a run begins to publish or remove a restore point, and commit the record.

    Args:
        state: state database.
        store: description of the off-site store.
        database: name of the database in the data map.
        point: id of the restore point.
        work: whether the restore point is published or removed.
        now: current time.
        dag_id: id of the workflow.
        run_id: id of the run.
    """
    row = {
        "store": store,
        "database": database,
        "point": point,
        "operation": str(work),
        "dag_id": dag_id,
        "run_id": run_id,
        "started_at": now,
    }
    with state.begin() as conn:
        conn.execute(restore_point_operation.insert().values(row))


def end_work(
    state: Engine, database: str, points: Collection[str], ending: Ending, now: datetime
) -> None:
    """Record how all unfinished work on the given restore points ended.

    Args:
        state: state database.
        database: name of the database in the data map.
        points: ids of the restore points.
        ending: way in which the work ended.
        now: current time.
    """
    table = restore_point_operation
    with state.begin() as conn:
        conn.execute(
            update(table)
            .where(
                table.c.database == database,
                table.c.point.in_(points),
                table.c.ended_at.is_(None),
            )
            .values(ended_at=now, result=str(ending))
        )


def unfinished_work(
    conn: Connection, database: str, store: str | None = None
) -> Mapping[str, Collection[Work]]:
    """Return the unfinished work on a database's restore points, by the id of the restore point.

    Ids of restore points are unique. Therefore, work can be found without the description of the
    store, for example after the address or path of the store has changed.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        store: description of the store in which the work began; None for any store.
    """
    table = restore_point_operation
    query = select(table.c.point, table.c.operation).where(
        table.c.database == database, table.c.ended_at.is_(None)
    )
    rows = conn.execute(query if store is None else query.where(table.c.store == store))
    works: dict[str, set[Work]] = {}
    for row in rows:
        works.setdefault(row.point, set()).add(Work(row.operation))
    return works


def removed_points(conn: Connection, database: str) -> set[str]:
    """Return the ids of a database's restore points that a run has removed or is removing.

    Restore points in all stores are included.
    """
    table = restore_point_operation
    query = select(table.c.point).where(
        table.c.database == database,
        table.c.operation == Work.REMOVE,
        table.c.result.is_distinct_from(str(Ending.KEPT)),
    )
    return set(conn.scalars(query))


def published_points(conn: Connection, database: str, store: str) -> Mapping[str, datetime]:
    """Return the start time of the backup of each published restore point.

    The key is the id of the restore point. Restore points that a run has removed or is removing are
    omitted.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        store: description of the off-site store.
    """
    table = restore_point_operation
    removal = table.alias()
    was_removed = exists().where(
        removal.c.database == database,
        removal.c.point == table.c.point,
        removal.c.operation == Work.REMOVE,
        removal.c.result.is_distinct_from(str(Ending.KEPT)),
    )
    query = select(table.c.point, table.c.started_at).where(
        table.c.database == database,
        table.c.store == store,
        table.c.result == Ending.PUBLISHED,
        ~was_removed,
    )
    return {row.point: row.started_at for row in conn.execute(query)}


VERSION_GONE = (
    "this store has another version of its dump than the signed version; restore the point by its "
    "id, which compares the digest"
)


@dataclass(frozen=True)
class KnownWork:
    """The work of runs on a database's restore points, as recorded in the ledger.

    Attributes:
        unfinished: ids of restore points on which work has begun and not ended.
        removed: ids of restore points that a run has removed or is removing.
        published: time at which the backup began, by the id of the restore point. Restore points
            that a run has removed or is removing are omitted.
    """

    unfinished: Collection[str] = ()
    removed: Collection[str] = ()
    published: Mapping[str, datetime] = field(default_factory=dict)


class PointRemoved(UsageError):
    """The error for a restore point that a run removed while another process read it."""


def work_reader(state: Engine, database: str, store: ObjectStore) -> Callable[[], KnownWork]:
    """Return a function that reads the ledger's entries about a database's restore points.

    The function returns the entries that exist when it is called.

    Args:
        state: state database. A role that can only read is sufficient.
        database: name of the database in the data map.
        store: off-site store.
    """

    def read_work() -> KnownWork:
        with state.connect() as conn:
            return KnownWork(
                set(unfinished_work(conn, database)),
                removed_points(conn, database),
                published_points(conn, database, store.description),
            )

    return read_work


def listed_points(
    store: ObjectStore,
    database: str,
    trusted: Sequence[bytes],
    read_work: Callable[[], KnownWork],
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return a database's usable restore points, oldest first, and the rejected folders.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures are accepted.
        read_work: function that reads from the ledger which restore points runs publish or remove.
            It is called again before a folder is rejected.

    Raises:
        StoreError: the store failed.
        ParcelSealError: ``read_work`` raised an error.
    """
    work = read_work()
    points, rejected = restore_points(store, database, trusted, work.unfinished)
    refused: list[Rejected] = []
    if rejected:
        work = read_work()
    for rejected_folder in rejected:
        if not rejected_folder.key.startswith(folder(database)):  # no run writes such a name
            refused.append(rejected_folder)
            continue
        points_now, rejected_now = restore_points(
            store, database, trusted, work.unfinished, point=rejected_folder.point
        )
        points += points_now
        refused += rejected_now
        if not (
            points_now or rejected_now or rejected_folder.point in {*work.unfinished, *work.removed}
        ):
            refused.append(rejected_folder)  # gone, although no run removed it
    # In the store in which this installation wrote it, the recorded version cannot be missing.
    refused += [
        Rejected(point.manifest.dump.key, VERSION_GONE)
        for point in points
        if point.is_copy and point.id in work.published
    ]
    usable = [point for point in points if not (point.is_copy and point.id in work.published)]
    return sorted(usable, key=lambda point: (point.manifest.taken_at, point.id)), refused


def stored_restore_points(services: Services, database: str) -> list[StoredRestorePoint]:
    """Return a database's usable restore points and rejected folders in one list.

    An item for a rejected folder contains only the key of the folder, and no times.

    Args:
        services: services of a run.
        database: name of the database in the data map.

    Raises:
        ParcelSealError: the off-site store cannot be read.
    """
    store = services.store("offsite_store")
    work = work_reader(services.state, database, store)
    points, rejected = listed_points(store, database, services.trusted_for_manifests, work)
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
    store: ObjectStore, database: str, point: str, read_work: Callable[[], KnownWork]
) -> Iterator[None]:
    """Raise PointRemoved if the block fails because a run has removed the restore point.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        point: id of the restore point that the block reads.
        read_work: function that reads from the ledger which restore points runs publish or remove.

    Raises:
        PointRemoved: the block could not read the restore point. The ledger records that a run
            removed it, and its objects are missing in the store.
    """
    try:
        yield
    except (ContentRefused, ManifestRefused, NoRestorePoint, ObjectMissing):
        if not _is_removed(store, database, point, read_work()):
            raise
        raise PointRemoved(
            f"Restore point {point} was pruned, so it cannot be read any more. This is not "
            f"tampering.",
            "Choose another restore point. A repeated drill chooses a restore point by itself.",
        ) from None


def _is_removed(store: ObjectStore, database: str, point: str, work: KnownWork) -> bool:
    """Return whether a run removed a restore point, according to the ledger and the store.

    For True, the ledger must record the removal, and objects must be missing in the store. A
    removal deletes the signature first. Therefore, while the removal is unfinished, only the
    signature must be missing. When it is finished, all objects must be missing.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        point: id of the restore point.
        work: entries of the ledger, read before this call.
    """
    if point not in work.removed:
        return False
    deleted = [SIGNATURE_NAME] if point in work.unfinished else NAMES
    listed = [
        point_folder for point_folder in folders(store, database, point) if point_folder.id == point
    ]
    return not any(point_folder.has(name) for point_folder in listed for name in deleted)
