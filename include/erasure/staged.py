"""The steps of a replay, over a collection's keys that the ledger and the copy have in common.

Deleting a row does not delete its large objects. An application does that by a trigger, which a
replay suspends, or by a job, which never ran on the copy. As `vacuumlo` does, the replay deletes a
large object if a replayed record referred to it and no column refers to it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql
from psycopg.sql import SQL, Composed, Identifier

from include.erasure.masks import Mask, assignments, shapes, shows, to_mask
from include.erasure.matching import Match, Table, copy_failures
from include.erasure.places import COMPARED, Place, Reference, detach
from include.erasure.search import Sought
from include.services.database import scalar
from include.services.errors import ControlFailed, UsageError

_CANNOT_ERASE = "Erased records cannot be erased again: the copy refuses"
_CANNOT_MASK = "Erased records cannot be masked again: the copy refuses"
# Foreign keys that delete records of another table too (ON DELETE CASCADE). A partition inherits
# its keys, so the query returns those of its parent alone.
_CASCADES = f"""
SELECT n.nspname::text, c.relname::text, c.relkind = 'p', k.conname::text,
       array(SELECT k.conrelid UNION SELECT relid::oid FROM pg_partition_tree(k.conrelid)),
       {COMPARED},
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
    """Temporary tables of the copy: keys of a collection that ledger and copy both have."""

    number: int
    table: Table

    def name(self, action: str) -> Identifier:
        """Return the name of the table with the deleted keys, or with the masked keys."""
        return Identifier(f"parcelseal_{action}_{self.number}")

    @property
    def sought(self) -> Sought:
        """The collection with its key, for the search."""
        table, staged = self.table, self.name("delete")
        return Sought(table.collection, table.place, table.columns, table.key_types or (), staged)

    @property
    def parts(self) -> list[Identifier]:
        """The columns of these tables that hold a key, as texts."""
        return [Identifier(f"k{at}") for at in range(len(self.table.columns))]

    @property
    def same(self) -> sql.Composed:
        """The condition that record ``t`` and entry ``e`` have the same key."""
        return self.same_as("t")

    def same_as(self, alias: str) -> sql.Composed:
        """Return the condition that an alias's record and entry ``e`` have the same key."""
        return SQL(" AND ").join(
            SQL("{}::text = e.{}").format(Identifier(alias, column), part)
            for column, part in zip(self.table.columns, self.parts, strict=True)
        )


def create_staged(copy: psycopg.Connection, keys: StagedKeys) -> None:
    """Create the temporary tables of a collection's keys, for the session."""
    columns = SQL(", ").join(SQL("{} text").format(part) for part in keys.parts)
    for action in ("delete", "mask"):
        copy.execute(SQL("DROP TABLE IF EXISTS pg_temp.{}").format(keys.name(action)))
        copy.execute(
            SQL("CREATE TEMP TABLE {} (record_class text, {})").format(keys.name(action), columns)
        )


def stage(copy: psycopg.Connection, keys: StagedKeys, matches: Iterable[Sequence[Match]]) -> int:
    """Store the matched keys in the temporary tables; return how many the ledger has as deleted."""
    erased = 0
    for chunk in matches:
        for action in ("delete", "mask"):
            those = [match for match in chunk if match.action == action]
            erased += len(those) if action == "delete" else 0
            into = SQL("COPY {} FROM STDIN").format(keys.name(action))
            with copy.cursor() as cursor, cursor.copy(into) as rows:
                for match in those:
                    rows.write_row((match.record_class, *match.key))
    return erased


def detach_references(
    copy: psycopg.Connection,
    staged: Sequence[StagedKeys],
    places: Mapping[str, Place],
    detached: Mapping[str, Sequence[str]],
) -> None:
    """Set references to the records that go to null, where the schedule detaches them."""
    for keys in staged:
        fields = detached.get(keys.table.collection, ())
        if not fields or not _has_rows(copy, keys.name("delete")):
            continue
        erased = SQL("FROM {} AS t JOIN {} AS e ON {}").format(
            keys.table.place.identifier, keys.name("delete"), keys.same
        )
        with copy_failures(copy, _CANNOT_ERASE):
            detach(copy, keys.table.place, fields, places, erased)


def erase(copy: psycopg.Connection, staged: Sequence[StagedKeys]) -> None:
    """Delete the records in one statement; ControlFailed when others still refer to them."""
    parts = [
        SQL("{} AS (DELETE FROM {} t USING {} e WHERE {})").format(
            Identifier(f"d{keys.number}"),
            keys.table.place.identifier,
            keys.name("delete"),
            keys.same,
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
            raise _referred_to(copy, error.diag.table_name, error.diag.constraint_name) from None


def _refuse_cascades(copy: psycopg.Connection, staged: Sequence[StagedKeys]) -> None:
    """Raise ControlFailed when a cascade would delete a record that was never erased.

    Such a record no longer referred to the erased record when the live database erased that.
    """
    erased = [keys for keys in staged if _has_rows(copy, keys.name("delete"))]
    parts = {keys.number: _parts(copy, keys) for keys in erased}
    for keys in erased:
        parent = {"parent": keys.table.place.identifier.as_string(copy)}
        for schema, table, parted, name, below, *compared in copy.execute(
            _CASCADES, parent
        ).fetchall():
            child = Identifier(schema, table)
            others = [
                _not_among(other, parts[other.number])
                for other in erased
                if set(parts[other.number]) & set(below)
            ]
            # The keys of a plain table say nothing of tables that inherit from it.
            query = SQL(
                "SELECT FROM {child} AS c, {parent} AS t JOIN {entries} AS e ON {same} "
                "WHERE {refers} AND {others} LIMIT 1"
            ).format(
                child=child if parted else SQL("ONLY {}").format(child),
                parent=keys.table.place.identifier,
                entries=keys.name("delete"),
                same=keys.same,
                refers=Reference(*compared).joined("c", "t"),
                others=SQL(" AND ").join([SQL("true"), *others]),
            )
            if copy.execute(query).fetchone() is not None:
                raise _referred_to(copy, table, name)


def _parts(copy: psycopg.Connection, keys: StagedKeys) -> list[int]:
    """Return the oids of a table and its partitions."""
    name = keys.table.place.identifier.as_string(copy)
    return list(scalar(copy, _PARTS, {"name": name}))


def _not_among(keys: StagedKeys, parts: Sequence[int]) -> sql.Composed:
    """Return the condition that ``c`` is not an erased record of a collection."""
    return SQL("NOT EXISTS (SELECT FROM {} AS e WHERE c.tableoid = ANY({}::oid[]) AND {})").format(
        keys.name("delete"), sql.Literal(parts), keys.same_as("c")
    )


def mask_again(
    copy: psycopg.Connection, staged: Sequence[StagedKeys], masks: Mapping[str, Mask], at: datetime
) -> int:
    """Mask the records that show more than their mask leaves; return their number."""
    done = 0
    for keys in staged:
        for record_class in _classes(copy, keys):
            mask, shape = _mask_of(record_class, masks), shapes(copy, keys.table.place)
            change = assignments(mask, shape, sql.Literal(at))
            query = SQL(
                "UPDATE {table} AS t SET {change} FROM {entries} AS e "
                "WHERE {same} AND e.record_class = {name} AND {due}"
            ).format(
                table=keys.table.place.identifier,
                change=change,
                entries=keys.name("mask"),
                same=keys.same,
                name=sql.Literal(record_class),
                due=to_mask(mask, shape),
            )
            with copy_failures(copy, _CANNOT_MASK):
                done += copy.execute(query).rowcount
    return done


def check_deferred(copy: psycopg.Connection) -> None:
    """Check deferred constraints now, since triggers are enabled again before the commit."""
    with copy_failures(copy, _CANNOT_MASK):
        copy.execute("SET CONSTRAINTS ALL IMMEDIATE")


def count_remaining(
    copy: psycopg.Connection, staged: Sequence[StagedKeys], masks: Mapping[str, Mask]
) -> int:
    """Count erased records that still exist, and masked records that show more than their mask."""
    query = SQL("SELECT count(*) FROM {} t WHERE {} AND EXISTS (SELECT FROM {} e WHERE {} AND {})")
    left = 0
    for keys in staged:
        place = keys.table.place
        conditions = [("delete", SQL("true"), SQL("true"))] + [
            (
                "mask",
                shows(_mask_of(record_class, masks), shapes(copy, place)),
                SQL("e.record_class = {}").format(sql.Literal(record_class)),
            )
            for record_class in _classes(copy, keys)
        ]
        for action, condition, entry in conditions:
            names = place.identifier, condition, keys.name(action), keys.same, entry
            left += scalar(copy, query.format(*names))
    return left


def _has_rows(copy: psycopg.Connection, table: Identifier) -> bool:
    return copy.execute(SQL("SELECT FROM {} LIMIT 1").format(table)).fetchone() is not None


def _classes(copy: psycopg.Connection, keys: StagedKeys) -> list[str]:
    query = SQL("SELECT DISTINCT record_class FROM {} ORDER BY 1").format(keys.name("mask"))
    return [row[0] for row in copy.execute(query)]


def _mask_of(record_class: str, masks: Mapping[str, Mask]) -> Mask:
    if record_class not in masks:
        raise UsageError(
            f"Records of the class {record_class} were masked, but retention.yaml does not say how "
            "any more.",
            "Keep the class with its mask in retention.yaml as long as backups may contain it.",
        )
    return masks[record_class]


def _referred_to(
    copy: psycopg.Connection, table: str | None, constraint: str | None
) -> ControlFailed:
    copy.rollback()
    return ControlFailed(
        f"Erased records cannot be erased again: {table} still refers to them ({constraint}).",
        "Do not use the copy. Erase the referring records too, or restore a later point.",
    )


_CANNOT_DELETE_OBJECTS = "Large objects of erased records cannot be deleted"
_LARGE_OBJECTS = Identifier("pg_temp", "parcelseal_large_objects")
# Types that hold an oid at any depth: domains (lo of the extension lo), arrays, composite types.
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
# A partition is read with the table above it.
_ANYWHERE = "NOT c.relispartition"
# The table itself, which may be a partition, and tables that inherit from it: these may have more
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
        is_plain: the column holds one oid; otherwise its values are composed of oids and others.
    """

    schema: str
    relation: str
    name: str
    is_plain: bool

    @property
    def identifier(self) -> Identifier:
        """The qualified name of the relation."""
        return Identifier(self.schema, self.relation)

    @property
    def numbers(self) -> Composed:
        """The numbers in the column of ``t``: a relation to join, ``v`` with the column ``loid``.

        Text in a composite value that equals the number of a large object counts as a reference.
        """
        column = Identifier("t", self.name)
        if self.is_plain:
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
    """Store the ids of the large objects to which records refer, before these are erased.

    Args:
        copy: the restored database, in a transaction, which stays open.
        staged: keys of the records that are deleted or masked.

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
            table = keys.table.place.identifier.as_string(copy)
            for column in _columns(copy, _OF_TABLE, table):
                for action in ("delete", "mask"):
                    copy.execute(
                        insert.format(
                            kept=_LARGE_OBJECTS,
                            numbers=column.numbers,
                            table=column.identifier,
                            keys=keys.name(action),
                            same=keys.same,
                        )
                    )


def delete_unreferenced_large_objects(copy: psycopg.Connection[Any]) -> int:
    """Delete the remembered large objects to which no column refers, and forget the others.

    Call it after the records were erased and materialized views were refreshed.

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
                    _LARGE_OBJECTS, column.identifier, column.numbers
                )
            )
        deleted = copy.execute(
            SQL(
                "SELECT lo_unlink(m.oid) FROM {} k JOIN pg_largeobject_metadata m ON m.oid = k.loid"
            ).format(_LARGE_OBJECTS)
        ).rowcount
        copy.execute(SQL("TRUNCATE {}").format(_LARGE_OBJECTS))
    return deleted
