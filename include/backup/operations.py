"""Record in a ledger which runs publish or remove a restore point, and how that ended.

A run may publish or remove a restore point while another process lists the store. The folder of the
restore point is then incomplete, and looks as if someone had tampered with it. The ledger tells
both cases apart.

A killed run may leave an incomplete folder. Such a leftover is deleted only if the ledger says that
an operation on the folder has begun and not ended. A folder without an entry in the ledger is
reported and never deleted. Such a folder may be a valid backup, because the state database with its
ledger may have been lost or restored from an older backup.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, exists, select, update

from include.services.objectstore.base import ObjectStore
from include.state.tables import restore_point_operation


class Operation(StrEnum):
    """An operation of a run on the folder of a restore point: publish or remove it."""

    PUBLISH = "publish"
    REMOVE = "remove"


class Ending(StrEnum):
    """The result of an operation on the folder of a restore point."""

    PUBLISHED = "published"
    REMOVED = "removed"
    CLEARED = "cleared"  # a killed run's left-over was removed
    KEPT = "kept"  # the removal was interrupted before it deleted an object


def begin_operation(
    state: Engine,
    store: str,
    database: str,
    point: str,
    operation: Operation,
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
        operation: whether the restore point is published or removed.
        now: current time.
        dag_id: id of the workflow.
        run_id: id of the run.
    """
    row = {
        "store": store,
        "database": database,
        "point": point,
        "operation": str(operation),
        "dag_id": dag_id,
        "run_id": run_id,
        "started_at": now,
    }
    with state.begin() as conn:
        conn.execute(restore_point_operation.insert().values(row))


def end_operations(
    state: Engine, database: str, points: Collection[str], ending: Ending, now: datetime
) -> None:
    """Record how all unfinished operations on the given restore points ended.

    Args:
        state: state database.
        database: name of the database in the data map.
        points: ids of the restore points.
        ending: result of the operations.
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


def unfinished_operations(
    conn: Connection, database: str, store: str | None = None
) -> Mapping[str, Collection[Operation]]:
    """Return the unfinished operations on a database's restore points, by id of the restore point.

    Ids of restore points are unique. Therefore, operations can be found without the description of
    the store, for example after the address or path of the store has changed.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        store: description of the store in which the operations began; None for any store.
    """
    table = restore_point_operation
    query = select(table.c.point, table.c.operation).where(
        table.c.database == database, table.c.ended_at.is_(None)
    )
    rows = conn.execute(query if store is None else query.where(table.c.store == store))
    unfinished: dict[str, set[Operation]] = {}
    for row in rows:
        unfinished.setdefault(row.point, set()).add(Operation(row.operation))
    return unfinished


def removed_points(conn: Connection, database: str) -> set[str]:
    """Return the ids of a database's restore points that a run has removed or is removing.

    Restore points in all stores are included.
    """
    table = restore_point_operation
    query = select(table.c.point).where(
        table.c.database == database,
        table.c.operation == Operation.REMOVE,
        table.c.result.is_distinct_from(str(Ending.KEPT)),
    )
    return set(conn.scalars(query))


def published_points(conn: Connection, database: str, store: str) -> Mapping[str, datetime]:
    """Return the published restore points of a database in a store.

    Restore points that a run has removed or is removing are omitted.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        store: description of the off-site store.

    Returns:
        Id of the restore point -> time at which its backup began.
    """
    table = restore_point_operation
    removal = table.alias()
    was_removed = exists().where(
        removal.c.database == database,
        removal.c.point == table.c.point,
        removal.c.operation == Operation.REMOVE,
        removal.c.result.is_distinct_from(str(Ending.KEPT)),
    )
    query = select(table.c.point, table.c.started_at).where(
        table.c.database == database,
        table.c.store == store,
        table.c.result == Ending.PUBLISHED,
        ~was_removed,
    )
    return {row.point: row.started_at for row in conn.execute(query)}


@dataclass(frozen=True)
class KnownOperations:
    """The operations of runs on a database's restore points, as recorded in the ledger.

    Attributes:
        unfinished: ids of restore points with an operation that has begun and not ended.
        removed: ids of restore points that a run has removed or is removing.
        published: time at which the backup began, by the id of the restore point. Restore points
            that a run has removed or is removing are omitted.
    """

    unfinished: Collection[str] = ()
    removed: Collection[str] = ()
    published: Mapping[str, datetime] = field(default_factory=dict)


def operations_reader(
    state: Engine, database: str, store: ObjectStore
) -> Callable[[], KnownOperations]:
    """Return a function that reads the ledger's entries about a database's restore points.

    The function returns the entries that exist when it is called.

    Args:
        state: state database. A role that can only read is sufficient.
        database: name of the database in the data map.
        store: off-site store.
    """

    def read_operations() -> KnownOperations:
        with state.connect() as conn:
            return KnownOperations(
                set(unfinished_operations(conn, database)),
                removed_points(conn, database),
                published_points(conn, database, store.description),
            )

    return read_operations
