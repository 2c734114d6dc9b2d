"""Delete and mask the records of a restored copy that have an entry in the erasure ledger.

First, the keys of these records are staged: they are stored in temporary tables of the copy.

When a row is deleted, PostgreSQL does not delete its large objects. An application deletes them by
a trigger, which a replay suspends, or by a scheduled job, which never ran on the copy. So the
replay deletes a large object if an erased record referred to it and no column refers to it any
more, as PostgreSQL's `vacuumlo` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql
from psycopg.sql import SQL, Composed, Identifier

from include.erasure.masks import (
    Mask,
    mask_assignments,
    needs_masking,
    read_column_shapes,
    record_exceeds_mask,
)
from include.erasure.matching import ComparedTable, Match, copy_failures
from include.erasure.search import SearchedCollection
from include.erasure.tables import COMPARISON_COLUMNS, Reference, TableName, detach
from include.services.database import scalar
from include.services.errors import ControlFailed, UsageError

_CANNOT_ERASE = "Erased records cannot be deleted from the copy: the database refuses"
_CANNOT_MASK = "Erased records cannot be masked again: the copy refuses"
# Foreign keys with ON DELETE CASCADE, which delete records of another table too. A partition
# inherits its keys, so the query returns only the keys of the partitioned table.
_CASCADES = f"""
SELECT n.nspname::text, c.relname::text, c.relkind = 'p', k.conname::text,
       array(SELECT k.conrelid UNION SELECT relid::oid FROM pg_partition_tree(k.conrelid)),
       {COMPARISON_COLUMNS},
       array(SELECT k.confrelid UNION SELECT relid::oid FROM pg_partition_tree(k.confrelid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.conparentid = 0 AND k.confrelid IN (
    SELECT to_regclass(%(parent)s)::oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(parent)s))
    UNION SELECT relid::oid FROM pg_partition_ancestors(to_regclass(%(parent)s)))
ORDER BY 1, 2, k.conname
"""  # noqa: S608 - fixed text
_PARTS = """
SELECT array(SELECT to_regclass(%(name)s)::oid
             UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(name)s)))
"""


@dataclass(frozen=True)
class StagedKeys:
    """Two temporary tables with keys of a collection: keys to delete and keys to mask.

    Attributes:
        number: number in the names of the two temporary tables, which distinguishes them from the
            temporary tables of other collections.
        table: table of the collection.
    """

    number: int
    table: ComparedTable

    def name(self, action: str) -> Identifier:
        """Return the name of the temporary table for an action (``delete`` or ``mask``)."""
        return Identifier(f"parcelseal_{action}_{self.number}")

    @property
    def searched_collection(self) -> SearchedCollection:
        """The collection and its key columns, in the form that `include.erasure.search` needs."""
        table, staged = self.table, self.name("delete")
        return SearchedCollection(
            table.collection, table.name, table.columns, table.key_types or (), staged
        )

    @property
    def key_columns(self) -> list[Identifier]:
        """The names of the key columns in the temporary tables. The columns have the type text."""
        return [Identifier(f"k{at}") for at in range(len(self.table.columns))]

    @property
    def same_key(self) -> sql.Composed:
        """The SQL condition that record ``t`` has the key in row ``e`` of the temporary table."""
        return self.same_key_as("t")

    def same_key_as(self, alias: str) -> sql.Composed:
        """Return the SQL condition that a record has the same key as a row of the temporary table.

        The alias of the temporary table in the query is ``e``.

        Args:
            alias: alias of the record's table in the query.
        """
        return SQL(" AND ").join(
            SQL("{}::text = e.{}").format(Identifier(alias, column), part)
            for column, part in zip(self.table.columns, self.key_columns, strict=True)
        )


def create_staged(copy: psycopg.Connection, keys: StagedKeys) -> None:
    """Create two empty temporary tables for a collection: for keys to delete and keys to mask."""
    columns = SQL(", ").join(SQL("{} text").format(part) for part in keys.key_columns)
    for action in ("delete", "mask"):
        copy.execute(SQL("DROP TABLE IF EXISTS pg_temp.{}").format(keys.name(action)))
        copy.execute(
            SQL("CREATE TEMP TABLE {} (record_class text, {})").format(keys.name(action), columns)
        )


def stage_matches(
    copy: psycopg.Connection, keys: StagedKeys, matches: Iterable[Sequence[Match]]
) -> int:
    """Store the keys of matching records in the temporary tables.

    Args:
        copy: the restored database, in a transaction.
        keys: the temporary tables of the collection.
        matches: lists of records that have an entry in the erasure ledger.

    Returns:
        Number of keys to delete.
    """
    erased = 0
    for chunk in matches:
        for action in ("delete", "mask"):
            staged = [match for match in chunk if match.action == action]
            erased += len(staged) if action == "delete" else 0
            into = SQL("COPY {} FROM STDIN").format(keys.name(action))
            with copy.cursor() as cursor, cursor.copy(into) as rows:
                for match in staged:
                    rows.write_row((match.record_class, *match.key))
    return erased


def detach_references(
    copy: psycopg.Connection,
    staged: Sequence[StagedKeys],
    table_names: Mapping[str, TableName],
    detached: Mapping[str, Sequence[str]],
) -> None:
    """Set foreign key columns to null if they refer to records that will be deleted.

    Args:
        copy: the restored database, in a transaction.
        staged: keys of the records to delete.
        table_names: collection -> table.
        detached: collection -> foreign key columns, as ``collection.field``, that refer to this
            collection and that retention.yaml sets to null.
    """
    for keys in staged:
        fields = detached.get(keys.table.collection, ())
        if not fields or not _has_rows(copy, keys.name("delete")):
            continue
        erased = SQL("FROM {} AS t JOIN {} AS e ON {}").format(
            keys.table.name.identifier, keys.name("delete"), keys.same_key
        )
        with copy_failures(copy, _CANNOT_ERASE):
            detach(copy, keys.table.name, fields, table_names, erased)


def erase_staged(copy: psycopg.Connection, staged: Sequence[StagedKeys]) -> None:
    """Delete the records whose keys to delete are stored in temporary tables, in one statement.

    Args:
        copy: the restored database, in a transaction.
        staged: the temporary tables of each collection. Their keys to mask are not used.

    Raises:
        ControlFailed: a record that is not deleted refers to a deleted record.
    """
    parts = [
        SQL("{} AS (DELETE FROM {} t USING {} e WHERE {})").format(
            Identifier(f"d{keys.number}"),
            keys.table.name.identifier,
            keys.name("delete"),
            keys.same_key,
        )
        for keys in staged
        if _has_rows(copy, keys.name("delete"))
    ]
    if not parts:
        return
    with copy_failures(copy, _CANNOT_ERASE):
        try:
            _refuse_cascades(copy, staged)
            copy.execute(SQL("WITH {} SELECT 1").format(SQL(", ").join(parts)))
            copy.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except (errors.ForeignKeyViolation, errors.RestrictViolation) as error:
            raise _still_referenced_error(
                copy, error.diag.table_name, error.diag.constraint_name
            ) from None


def _refuse_cascades(copy: psycopg.Connection, staged: Sequence[StagedKeys]) -> None:
    """Raise ControlFailed if ``ON DELETE CASCADE`` would delete a record that was never erased.

    The record refers to an erased record. In the live database, it cannot have referred to it when
    the erased record was deleted, because PostgreSQL would have deleted both.
    """
    erased = [keys for keys in staged if _has_rows(copy, keys.name("delete"))]
    parts = {keys.number: _partition_oids(copy, keys) for keys in erased}
    for keys in erased:
        parent = {"parent": keys.table.name.identifier.as_string(copy)}
        for schema, table, is_partitioned, name, child_oids, *compared in copy.execute(
            _CASCADES, parent
        ).fetchall():
            child = Identifier(schema, table)
            others = [
                _is_not_erased(other, parts[other.number])
                for other in erased
                if set(parts[other.number]) & set(child_oids)
            ]
            # The foreign keys of a plain table do not apply to tables that inherit from it.
            query = SQL(
                "SELECT FROM {child} AS c, {parent} AS t JOIN {entries} AS e ON {same} "
                "WHERE {refers} AND {others} LIMIT 1"
            ).format(
                child=child if is_partitioned else SQL("ONLY {}").format(child),
                parent=keys.table.name.identifier,
                entries=keys.name("delete"),
                same=keys.same_key,
                refers=Reference(*compared).joined("c", "t"),
                others=SQL(" AND ").join([SQL("true"), *others]),
            )
            if copy.execute(query).fetchone() is not None:
                raise _still_referenced_error(copy, table, name)


def _partition_oids(copy: psycopg.Connection, keys: StagedKeys) -> list[int]:
    """Return the oids of a collection's table and of the table's partitions."""
    name = keys.table.name.identifier.as_string(copy)
    return list(scalar(copy, _PARTS, {"name": name}))


def _is_not_erased(keys: StagedKeys, parts: Sequence[int]) -> sql.Composed:
    """Return the SQL condition that record ``c`` is not one of the collection's records to delete.

    Args:
        keys: keys of the collection.
        parts: oids of the collection's table and its partitions.
    """
    return SQL("NOT EXISTS (SELECT FROM {} AS e WHERE c.tableoid = ANY({}::oid[]) AND {})").format(
        keys.name("delete"), sql.Literal(parts), keys.same_key_as("c")
    )


def mask_again(
    copy: psycopg.Connection, staged: Sequence[StagedKeys], masks: Mapping[str, Mask], at: datetime
) -> int:
    """Mask those records in the temporary tables that are not masked yet.

    A record is not masked yet if it has no time of masking, or if it shows more than its mask
    allows.

    Args:
        copy: the restored database, in a transaction.
        staged: temporary tables with the keys of the records.
        masks: record class -> mask.
        at: time that is stored as the time of masking.

    Returns:
        Number of records that were masked.
    """
    masked = 0
    for keys in staged:
        for record_class in _classes(copy, keys):
            mask, shape = _mask_of(record_class, masks), read_column_shapes(copy, keys.table.name)
            change = mask_assignments(mask, shape, sql.Literal(at))
            query = SQL(
                "UPDATE {table} AS t SET {change} FROM {entries} AS e "
                "WHERE {same} AND e.record_class = {name} AND {due}"
            ).format(
                table=keys.table.name.identifier,
                change=change,
                entries=keys.name("mask"),
                same=keys.same_key,
                name=sql.Literal(record_class),
                due=needs_masking(mask, shape),
            )
            with copy_failures(copy, _CANNOT_MASK):
                masked += copy.execute(query).rowcount
    return masked


def check_deferred(copy: psycopg.Connection) -> None:
    """Check deferred constraints now, while the triggers of the application are still suspended."""
    with copy_failures(copy, _CANNOT_MASK):
        copy.execute("SET CONSTRAINTS ALL IMMEDIATE")


def count_remaining(
    copy: psycopg.Connection, staged: Sequence[StagedKeys], masks: Mapping[str, Mask]
) -> int:
    """Count the records that should have been deleted or masked, but were not.

    A record that should be masked is counted if it shows more than its mask allows.

    Args:
        copy: the restored database, in a transaction.
        staged: temporary tables with the keys of the records.
        masks: record class -> mask.
    """
    query = SQL("SELECT count(*) FROM {} t WHERE {} AND EXISTS (SELECT FROM {} e WHERE {} AND {})")
    remaining = 0
    for keys in staged:
        table_name = keys.table.name
        conditions = [("delete", SQL("true"), SQL("true"))] + [
            (
                "mask",
                record_exceeds_mask(
                    _mask_of(record_class, masks), read_column_shapes(copy, table_name)
                ),
                SQL("e.record_class = {}").format(sql.Literal(record_class)),
            )
            for record_class in _classes(copy, keys)
        ]
        for action, condition, entry in conditions:
            names = table_name.identifier, condition, keys.name(action), keys.same_key, entry
            remaining += scalar(copy, query.format(*names))
    return remaining


def _has_rows(copy: psycopg.Connection, table: Identifier) -> bool:
    return copy.execute(SQL("SELECT FROM {} LIMIT 1").format(table)).fetchone() is not None


def _classes(copy: psycopg.Connection, keys: StagedKeys) -> list[str]:
    query = SQL("SELECT DISTINCT record_class FROM {} ORDER BY 1").format(keys.name("mask"))
    return [row[0] for row in copy.execute(query)]


def _mask_of(record_class: str, masks: Mapping[str, Mask]) -> Mask:
    if record_class not in masks:
        raise UsageError(
            f"Records of the class {record_class} were masked, but retention.yaml no longer has "
            "its mask.",
            "Keep the class with its mask in retention.yaml as long as backups may contain it.",
        )
    return masks[record_class]


def _still_referenced_error(
    copy: psycopg.Connection, table: str | None, constraint: str | None
) -> ControlFailed:
    copy.rollback()
    return ControlFailed(
        f"Erased records cannot be deleted from the copy: {table} still refers to them "
        f"({constraint}).",
        "Do not use the copy. Delete the referring records too, or restore a later restore point.",
    )


_CANNOT_DELETE_OBJECTS = "Large objects of erased records cannot be deleted"
_LARGE_OBJECTS = Identifier("pg_temp", "parcelseal_large_objects")
# Types that contain an oid at any depth: domains (lo of the extension lo), arrays, composite types.
_COLUMNS = """
WITH RECURSIVE parts (type, of_type, is_plain) AS (
    SELECT typbasetype, oid, true FROM pg_type WHERE typtype = 'd'
    UNION ALL SELECT typelem, oid, false FROM pg_type WHERE typcategory = 'A' AND typelem <> 0
    UNION ALL SELECT a.atttypid, t.oid, false
    FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
    WHERE t.typtype = 'c' AND t.typrelid >= 16384 AND NOT a.attisdropped
), types (type, is_plain) AS (
    SELECT 'oid'::regtype::oid, true
    UNION SELECT p.of_type, p.is_plain AND t.is_plain FROM parts p JOIN types t USING (type)
)
SELECT DISTINCT n.nspname::text, c.relname::text, a.attname::text,
    EXISTS (SELECT FROM types t WHERE t.type = a.atttypid AND t.is_plain)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND (c.relkind <> 'm' OR c.relispopulated)
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND a.atttypid IN (SELECT type FROM types) AND {condition}
ORDER BY 1, 2, 3
"""
# A partition is read with its partitioned table.
_ANYWHERE = "NOT c.relispartition"
# The table itself, which may be a partition, and tables that inherit from it, which may have more
# columns.
_OF_TABLE = """(c.oid = to_regclass(%(table)s) OR NOT c.relispartition AND c.oid IN (
    WITH RECURSIVE heirs (oid) AS (
        SELECT to_regclass(%(table)s)::oid
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN heirs h ON h.oid = i.inhparent
    ) SELECT oid FROM heirs))"""


@dataclass(frozen=True)
class _Column:
    """A column that may refer to large objects.

    Attributes:
        is_single_oid: whether the column has a single oid. Otherwise it has an array or a composite
            type that contains oids.
    """

    schema: str
    relation: str
    name: str
    is_single_oid: bool

    @property
    def identifier(self) -> Identifier:
        """The name of the column's relation with its schema, for a query."""
        return Identifier(self.schema, self.relation)

    @property
    def listed_oids(self) -> Composed:
        """SQL of a relation ``v (loid)`` that lists the oids in this column of record ``t``.

        In an array or a composite value, a text that equals the oid of a large object counts as a
        reference.
        """
        column = Identifier("t", self.name)
        if self.is_single_oid:
            return SQL("LATERAL (SELECT {}::oid AS loid) AS v").format(column)
        return SQL(
            "LATERAL (SELECT CASE WHEN p #>> '{{}}' ~ '^[0-9]{{1,10}}$' "
            "AND (p #>> '{{}}')::bigint < 4294967296 THEN (p #>> '{{}}')::oid END AS loid "
            "FROM jsonb_path_query(to_jsonb({}), 'strict $.**') AS p) AS v"
        ).format(column)


def _columns(
    copy: psycopg.Connection[Any], condition: LiteralString, table: str | None = None
) -> list[_Column]:
    query = SQL(_COLUMNS).format(condition=SQL(condition))
    return [_Column(*row) for row in copy.execute(query, {"table": table}).fetchall()]


def remember_large_objects(copy: psycopg.Connection[Any], staged: Sequence[StagedKeys]) -> None:
    """Store the oids of those large objects to which the records to be erased refer.

    The caller must call the function before it erases the records. The oids are stored in a
    temporary table of the copy.

    Args:
        copy: the restored database, in a transaction, which stays open.
        staged: keys of the records to delete or mask.

    Raises:
        ServiceError: a table cannot be read.
    """
    copy.execute(
        SQL("CREATE TEMP TABLE IF NOT EXISTS {} (loid oid PRIMARY KEY)").format(_LARGE_OBJECTS)
    )
    if copy.execute("SELECT FROM pg_largeobject_metadata LIMIT 1").fetchone() is None:
        return
    insert = SQL(
        "INSERT INTO {kept} SELECT DISTINCT v.loid FROM {table} AS t JOIN {keys} AS e "
        "ON {same} CROSS JOIN {numbers} WHERE v.loid IS NOT NULL ON CONFLICT DO NOTHING"
    )
    with copy_failures(copy, _CANNOT_DELETE_OBJECTS):
        for keys in staged:
            table = keys.table.name.identifier.as_string(copy)
            for column in _columns(copy, _OF_TABLE, table):
                for action in ("delete", "mask"):
                    copy.execute(
                        insert.format(
                            kept=_LARGE_OBJECTS,
                            numbers=column.listed_oids,
                            table=column.identifier,
                            keys=keys.name(action),
                            same=keys.same_key,
                        )
                    )


def delete_unreferenced_large_objects(copy: psycopg.Connection[Any]) -> int:
    """Delete the large objects of erased records to which no column refers any more.

    Only large objects whose oids `remember_large_objects` stored are considered. The caller must
    first erase the records and refresh the materialized views.

    Args:
        copy: the restored database, in a transaction, which stays open.

    Returns:
        Number of deleted large objects.

    Raises:
        ServiceError: a table cannot be read, or a large object belongs to another role.
    """
    with copy_failures(copy, _CANNOT_DELETE_OBJECTS):
        if copy.execute(SQL("SELECT FROM {} LIMIT 1").format(_LARGE_OBJECTS)).fetchone() is None:
            return 0
        for column in _columns(copy, _ANYWHERE):
            copy.execute(
                SQL("DELETE FROM {} k USING {} t CROSS JOIN {} WHERE v.loid = k.loid").format(
                    _LARGE_OBJECTS, column.identifier, column.listed_oids
                )
            )
        deleted = copy.execute(
            SQL(
                "SELECT lo_unlink(m.oid) FROM {} k JOIN pg_largeobject_metadata m ON m.oid = k.loid"
            ).format(_LARGE_OBJECTS)
        ).rowcount
        copy.execute(SQL("TRUNCATE {}").format(_LARGE_OBJECTS))
    return deleted
