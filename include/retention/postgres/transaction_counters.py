"""Compare the rows that a transaction changed with the rows that the run recorded for it.

PostgreSQL counts the rows that each transaction inserts, updates and deletes in each table, by
statement, trigger, rule or foreign key. A transaction commits only if its counters equal the
recorded numbers, so that an application's trigger cannot change a mapped record unnoticed.
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
# A table's file also changes when another session rewrites it; then this session has no such lock.
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
    """Unrecorded changes of a transaction in one mapped table.

    Attributes:
        table: ``schema.table``.
        deleted: deleted rows minus recorded deletions; negative if fewer were deleted.
        updated: updated rows minus recorded updates; negative if fewer were updated.
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


class ChangedUnrecorded(psycopg.DataError):
    """A transaction changed rows that were not recorded.

    It is a psycopg error, so that it is handled as a refusal by the database.

    Args:
        effects: the side effects, one for each table.
    """

    sqlstate = "changed"

    def __init__(self, effects: Collection[SideEffect]) -> None:
        super().__init__("a trigger or rule changed rows")
        self.effects = tuple(effects)


@dataclass(frozen=True)
class ByTriggers:
    """Rows that triggers and rules changed in a transaction, and that were allowed.

    Attributes:
        inserted: rows by ``schema.table``.
        updated: likewise, of tables that `triggers_update` in retention.yaml names.
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
    """Counters of one transaction over all mapped tables.

    Attributes:
        connection: with the open transaction.
        relations: the mapped tables.
        dropped: oids of partitions that the transaction drops.
        updatable: oids of tables in which triggers may update rows.
        deleted: rows that were recorded as deleted, by the oid of the collection's table or of a
            part of it.
        updated: likewise, of updated rows.
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

    def require_recorded(self) -> ByTriggers:
        """Fire deferred triggers, and refuse changes that were neither recorded nor allowed.

        Returns:
            Rows that triggers or rules changed and that are allowed.

        Raises:
            ChangedUnrecorded: rows were deleted or updated, or a table emptied or rewritten.
            psycopg.Error: a deferred trigger or constraint refuses.
            UsageError: the server does not count.
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
            raise ChangedUnrecorded(effects)
        return ByTriggers(inserted, allowed)

    def _read(self) -> dict[int, _Reading]:
        tables = sorted({relation.oid for relation in self.relations.by_collection.values()})
        rows = self.connection.execute(
            _COUNTERS, {"tables": tables, "dropped": sorted(self.dropped)}
        ).fetchall()
        if rows and not rows[0][-1]:
            raise not_counted(self.connection.info.user)
        return {root: _Reading(*counters) for root, *counters, _counts in rows}

    def _is_locked(self, oid: int) -> bool:
        return bool(scalar(self.connection, _LOCKED, {"table": oid}))


def require_counting(connection: psycopg.Connection[Any], database: MappedDatabase) -> None:
    """Refuse a session whose changes the server does not count.

    Raises:
        UsageError: `track_counts` is off.
    """
    if not scalar(connection, "SELECT current_setting('track_counts')::boolean"):
        raise not_counted(connection.info.user, database.name)


def not_counted(user: str, database: str | None = None) -> UsageError:
    """Return the error of a session whose changes the server does not count."""
    where = f" of {database}" if database else ""
    return UsageError(
        f"The server{where} does not count the rows that {user} changes (track_counts is off): "
        "whether a trigger changes records unseen could not be checked. Nothing was erased.",
        f"As a superuser: ALTER ROLE {user} SET track_counts = on; or set it in postgresql.conf, "
        "which autovacuum needs too.",
    )
