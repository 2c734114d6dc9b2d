"""List restore points while runs publish and remove others, and record that work in a ledger.

A run may be at work on a folder that is listed. A folder that looks changed is therefore listed
again, after the ledger was read again, before it is reported as tampered with.

A folder is cleared as a left-over only if this ledger has work on it that has not ended. A folder
without an entry is reported and never cleared, because the state database may be lost or restored
from an older backup.
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
from include.encryption.crypto import Refused
from include.holds.records import StoredRestorePoint
from include.holds.registry import restore_points_held
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectMissing, ObjectStore
from include.state.tables import restore_point_begun
from include.workplace import Workplace


class Work(StrEnum):
    """The work of a run on a restore point's folder."""

    PUBLISH = "publish"
    REMOVE = "remove"


class Ending(StrEnum):
    """The end of the work on a folder."""

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
    """Record that a run begins work on a restore point's folder, and commit.

    Args:
        state: the state database.
        store: the store's description.
        database: name of the database in the data map.
        point: id of the restore point.
        work: kind of work.
        now: the moment.
        dag_id: the workflow.
        run_id: its run.
    """
    row = {
        "store": store,
        "database": database,
        "point": point,
        "work": str(work),
        "dag_id": dag_id,
        "run_id": run_id,
        "begun_at": now,
    }
    with state.begin() as conn:
        conn.execute(restore_point_begun.insert().values(row))


def end_work(
    state: Engine, database: str, points: Collection[str], ending: Ending, now: datetime
) -> None:
    """Record that all unfinished work on some restore points has ended, and how."""
    table = restore_point_begun
    with state.begin() as conn:
        conn.execute(
            update(table)
            .where(
                table.c.database == database,
                table.c.point.in_(points),
                table.c.ended_at.is_(None),
            )
            .values(ended_at=now, ending=str(ending))
        )


def unfinished_work(
    conn: Connection, database: str, store: str | None = None
) -> Mapping[str, Collection[Work]]:
    """Return the unfinished work on restore points: id -> the work.

    Ids are unique, so work is found even if the store has another address or path since.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        store: description of the store in which the work began; None for any store.
    """
    table = restore_point_begun
    query = select(table.c.point, table.c.work).where(
        table.c.database == database, table.c.ended_at.is_(None)
    )
    rows = conn.execute(query if store is None else query.where(table.c.store == store))
    works: dict[str, set[Work]] = {}
    for row in rows:
        works.setdefault(row.point, set()).add(Work(row.work))
    return works


def removed_points(conn: Connection, database: str) -> set[str]:
    """Return the ids of restore points that a run has removed or is removing, in any store."""
    table = restore_point_begun
    query = select(table.c.point).where(
        table.c.database == database,
        table.c.work == Work.REMOVE,
        table.c.ending.is_distinct_from(str(Ending.KEPT)),
    )
    return set(conn.scalars(query))


def published_points(conn: Connection, database: str, store: str) -> Mapping[str, datetime]:
    """Return the published restore points that no run removed: id -> when it was begun.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        store: the store's description.
    """
    table = restore_point_begun
    removal = table.alias()
    was_removed = exists().where(
        removal.c.database == database,
        removal.c.point == table.c.point,
        removal.c.work == Work.REMOVE,
        removal.c.ending.is_distinct_from(str(Ending.KEPT)),
    )
    query = select(table.c.point, table.c.begun_at).where(
        table.c.database == database,
        table.c.store == store,
        table.c.ending == Ending.PUBLISHED,
        ~was_removed,
    )
    return {row.point: row.begun_at for row in conn.execute(query)}


VERSION_GONE = (
    "the signed version of its dump is gone from this store, and another version is there; restore "
    "the point by its id, which compares the digest"
)


@dataclass(frozen=True)
class KnownWork:
    """The work of runs on a database's restore points, as the state database records it.

    Attributes:
        unfinished: ids of work that has begun and not ended.
        removed: ids that a run has removed or is removing.
        published: id -> begin of the backup, for published points that no run removed.
    """

    unfinished: Collection[str] = ()
    removed: Collection[str] = ()
    published: Mapping[str, datetime] = field(default_factory=dict)


class PointRemoved(UsageError):
    """A run removed the restore point while a reader used it."""


def work_reader(state: Engine, database: str, store: ObjectStore) -> Callable[[], KnownWork]:
    """Return a function that reads the known work on a database's restore points in a store.

    Args:
        state: the state database; a role that only reads is enough.
        database: name of the database in the data map.
        store: the off-site store.
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
    """Return a database's usable restore points, oldest first, and its rejected folders.

    Args:
        store: the off-site store.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures count.
        read_work: returns the known work at the time of the call; it is called again before a
            folder is rejected.

    Raises:
        StoreError: the store failed.
        ParcelSealError: an error of ``read_work``.
    """
    work = read_work()
    points, rejected = restore_points(store, database, trusted, work.unfinished)
    refused: list[Rejected] = []
    if rejected:
        work = read_work()
    for each in rejected:
        if not each.key.startswith(folder(database)):  # no run writes such a name
            refused.append(each)
            continue
        points_now, rejected_now = restore_points(
            store, database, trusted, work.unfinished, point=each.point
        )
        points += points_now
        refused += rejected_now
        if not (points_now or rejected_now or each.point in {*work.unfinished, *work.removed}):
            refused.append(each)  # gone, although no run removed it
    # In the store in which this installation wrote it, the recorded version cannot be missing.
    refused += [
        Rejected(point.manifest.dump.key, VERSION_GONE)
        for point in points
        if point.is_copy and point.id in work.published
    ]
    usable = [point for point in points if not (point.is_copy and point.id in work.published)]
    return sorted(usable, key=lambda point: (point.manifest.taken_at, point.id)), refused


def stored_restore_points(services: Workplace, database: str) -> list[StoredRestorePoint]:
    """Return a database's restore points; a rejected folder has neither moment nor hold.

    Args:
        services: of a run.
        database: name of the database in the data map.

    Raises:
        ParcelSealError: the off-site store cannot be read.
    """
    store = services.store("offsite_store")
    work = work_reader(services.state, database, store)
    points, rejected = listed_points(store, database, services.trusted_for_manifests, work)
    with services.state.connect() as conn:
        held = restore_points_held(conn, database, [point.id for point in points])
    return [
        StoredRestorePoint(
            point.id, point.manifest.taken_at, point.manifest.expires_at, point.id in held
        )
        for point in points
    ] + [StoredRestorePoint(each.key) for each in rejected]


@contextmanager
def naming_removals(
    store: ObjectStore, database: str, point: str, read_work: Callable[[], KnownWork]
) -> Iterator[None]:
    """Raise PointRemoved if the block fails because a run removed the restore point.

    Args:
        store: the off-site store.
        database: name of the database in the data map.
        point: id of the restore point that the block reads.
        read_work: returns the known work at the time of the call.

    Raises:
        PointRemoved: the reader failed, and the removal of the restore point has ended or is under
            way. A restore point that still exists was not removed, whatever the ledger says.
    """
    try:
        yield
    except (Refused, ManifestRefused, NoRestorePoint, ObjectMissing):
        if not _is_removed(store, database, point, read_work()):
            raise
        raise PointRemoved(
            f"Restore point {point} was pruned, so it cannot be read any more. "
            "Nothing was tampered with.",
            "Choose another restore point. A drill that is run again chooses one itself.",
        ) from None


def _is_removed(store: ObjectStore, database: str, point: str, work: KnownWork) -> bool:
    """Return whether the objects that a removal has deleted by now are gone.

    A removal deletes the signature first, and leaves none of the objects when it ends. So the
    ledger has to be read before the folder is listed.
    """
    if point not in work.removed:
        return False
    deleted = [SIGNATURE_NAME] if point in work.unfinished else NAMES
    listed = [each for each in folders(store, database, point) if each.id == point]
    return not any(each.has(name) for each in listed for name in deleted)
