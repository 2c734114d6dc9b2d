"""Check that a transaction changed only the rows that the run recorded as changed.

PostgreSQL counts the rows that each transaction inserts, updates and deletes in each table, no
matter whether a statement, trigger, rule or foreign key caused the change. A transaction is
committed only if its counts of updated and deleted rows equal the recorded numbers, apart from
updates that retention.yaml allows. An update or deletion of a mapped record by an application's
trigger is therefore always detected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from include.policy.datamap import MappedDatabase
from include.retention.postgres.relations import Relations
from include.services.database import scalar
from include.services.errors import UsageError

# The server collects the counters of a session only outside of transactions, so the changes of a
# transaction are the difference of two readings. A nested collection counts with the table that
# contains it. TRUNCATE resets the counters and gives the table a new file.
_COUNTERS = """
WITH RECURSIVE parts AS (
    SELECT oid AS root, oid FROM unnest(%(tables)s::oid[]) AS t (oid)
    UNION SELECT p.root, i.inhrelid FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid
)
SELECT root::bigint, sum(pg_stat_get_xact_tuples_inserted(oid))::bigint,
       sum(pg_stat_get_xact_tuples_updated(oid))::bigint,
       sum(pg_stat_get_xact_tuples_deleted(oid))::bigint,
       md5(string_agg(coalesce(pg_relation_filenode(oid), 0)::text, ' ' ORDER BY oid)),
       array_agg(oid::bigint), current_setting('track_counts')::boolean
FROM parts
WHERE oid <> ALL (%(dropped)s::oid[])
  AND root NOT IN (SELECT oid FROM parts p WHERE p.oid <> p.root)
GROUP BY root
"""
# A table's file also changes when another session rewrites it. Then this session has no such lock.
_LOCKED = """
WITH RECURSIVE parts AS (
    SELECT %(table)s::oid AS oid
    UNION SELECT i.inhrelid FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid
)
SELECT EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
    AND l.mode = 'AccessExclusiveLock' AND l.relation IN (SELECT oid FROM parts))
"""


@dataclass(frozen=True)
class SideEffect:
    """Changes that a transaction made in a mapped table and that the run did not record.

    Attributes:
        table: ``schema.table`` of the table.
        deleted: number of deleted rows minus number of recorded deletions.
        updated: number of updated rows minus number of recorded updates.
        rewritten: whether the table was emptied (TRUNCATE) or rewritten.
    """

    table: str
    deleted: int = 0
    updated: int = 0
    rewritten: bool = False

    def __add__(self, other: SideEffect) -> SideEffect:
        return SideEffect(
            self.table,
            self.deleted + other.deleted,
            self.updated + other.updated,
            self.rewritten or other.rewritten,
        )


class UnrecordedChanges(psycopg.DataError):
    """Raised if a transaction made changes that the run did not record.

    The exception derives from a psycopg error. Callers therefore handle it like an error with which
    the database refuses a change.

    Args:
        effects: the unrecorded changes of each table.
    """

    sqlstate = "changed"

    def __init__(self, effects: Collection[SideEffect]) -> None:
        super().__init__("a trigger or rule changed rows")
        self.effects = tuple(effects)


@dataclass(frozen=True)
class TriggerChanges:
    """The numbers of rows that triggers and rules were allowed to change in a transaction.

    Attributes:
        inserted: ``schema.table`` -> number of inserted rows.
        updated: ``schema.table`` -> number of updated rows, for tables that `triggers_update` in
            retention.yaml lists.
    """

    inserted: Mapping[str, int] = field(default_factory=dict)
    updated: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reading:
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    files: str = ""
    parts: Collection[int] = ()


@dataclass
class TransactionCounters:
    """Counters of the rows that a single transaction changes in the mapped tables.

    Attributes:
        connection: connection with the open transaction.
        relations: the mapped tables.
        dropped: oids of the partitions that the transaction drops.
        updatable: oids of the tables in which triggers may update rows.
        deleted: oid of a table or partition -> number of rows that the run recorded as deleted.
        updated: oid of a table or partition -> number of rows that the run recorded as updated.
    """

    connection: psycopg.Connection[Any]
    relations: Relations
    dropped: frozenset[int] = frozenset()
    updatable: frozenset[int] = frozenset()
    deleted: Counter[int] = field(default_factory=Counter)
    updated: Counter[int] = field(default_factory=Counter)
    _before: Mapping[int, _Reading] = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._read()

    def require_recorded(self) -> TriggerChanges:
        """Check that the transaction made only changes that were recorded or are allowed.

        Deferred triggers are fired before the check.

        Returns:
            The numbers of rows that triggers and rules were allowed to change.

        Raises:
            UnrecordedChanges: the numbers of deleted or updated rows differ from the recorded
                numbers, or a table was emptied or rewritten.
            psycopg.Error: a deferred trigger or constraint refuses the change.
            UsageError: the server does not count changed rows.
        """
        self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        after = self._read()
        effects = []
        inserted: dict[str, int] = {}
        allowed: dict[str, int] = {}
        for relation in self.relations.by_collection.values():
            oid = relation.oid
            if oid not in self._before and oid not in after:
                continue  # a part of another collection's table
            before, now = self._before.get(oid, _Reading()), after.get(oid, _Reading())
            parts = {oid, *before.parts, *now.parts}
            updated = now.updated - before.updated - sum(map(self.updated.__getitem__, parts))
            deleted = now.deleted - before.deleted - sum(map(self.deleted.__getitem__, parts))
            added = now.inserted - before.inserted
            # A row that moves to another partition counts as deleted and inserted.
            if relation.partitioned and 0 < deleted == -updated and added >= deleted:
                added -= deleted
                deleted = updated = 0
            rewritten = now.files != before.files and self._is_locked(oid)
            label = f"{relation.schema}.{relation.name}"
            if oid in self.updatable and updated > 0:
                allowed[label], updated = updated, 0
            if deleted or updated or rewritten:
                effects.append(SideEffect(label, deleted, updated, rewritten))
            if added > 0:
                inserted[label] = added
        if effects:
            raise UnrecordedChanges(effects)
        return TriggerChanges(inserted, allowed)

    def _read(self) -> dict[int, _Reading]:
        tables = sorted({relation.oid for relation in self.relations.by_collection.values()})
        rows = self.connection.execute(
            _COUNTERS, {"tables": tables, "dropped": sorted(self.dropped)}
        ).fetchall()
        if rows and not rows[0][-1]:
            raise counting_disabled_error(self.connection.info.user)
        return {root: _Reading(*counters) for root, *counters, _counts in rows}

    def _is_locked(self, oid: int) -> bool:
        return bool(scalar(self.connection, _LOCKED, {"table": oid}))


def require_counting(connection: psycopg.Connection[Any], database: MappedDatabase) -> None:
    """Check that the server counts the rows that this session changes.

    Raises:
        UsageError: the setting `track_counts` is off.
    """
    if not scalar(connection, "SELECT current_setting('track_counts')::boolean"):
        raise counting_disabled_error(connection.info.user, database.name)


def counting_disabled_error(user: str, database: str | None = None) -> UsageError:
    """Return the error which states that the server does not count rows that sessions change.

    Args:
        user: database user of the sessions.
        database: name of the database; None to leave the name out of the error message.
    """
    where = f" of {database}" if database else ""
    return UsageError(
        f"The server{where} does not count the rows that {user} changes (track_counts is off): "
        "changes by triggers could not be checked. Nothing was erased.",
        f"As a superuser: ALTER ROLE {user} SET track_counts = on; or set it in postgresql.conf, "
        "which autovacuum needs too.",
    )
