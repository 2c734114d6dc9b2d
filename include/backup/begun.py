"""The ledger of restore points that runs have begun to publish or to remove.

A folder is cleared as a left-over only if this ledger has work on it that has not ended. A folder
without an entry is reported and never cleared, because the state database may be lost or restored
from an older backup.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, exists, select, update

from include.state.tables import restore_point_begun


class Work(StrEnum):
    """The work of a run on a restore point's folder."""

    PUBLISH = "publish"
    REMOVE = "remove"


class Ending(StrEnum):
    """How the work on a folder has ended."""

    PUBLISHED = "published"
    REMOVED = "removed"
    CLEARED = "cleared"  # the left-over of a killed run was removed
    KEPT = "kept"  # the removal was interrupted before it deleted an object


def begin(
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


def end(
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


def unfinished(
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


def removed(conn: Connection, database: str) -> set[str]:
    """Return the ids of restore points that a run has removed or is removing, in any store."""
    table = restore_point_begun
    query = select(table.c.point).where(
        table.c.database == database,
        table.c.work == Work.REMOVE,
        table.c.ending.is_distinct_from(str(Ending.KEPT)),
    )
    return set(conn.scalars(query))


def published(conn: Connection, database: str, store: str) -> Mapping[str, datetime]:
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
