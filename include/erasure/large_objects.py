"""Delete the large objects of erased records in a restored copy.

Deleting a row does not delete its large objects. An application does that by a trigger, which a
replay suspends, or by a job, which never ran on the copy. As `vacuumlo` does, the replay deletes a
large object if a replayed record referred to it and no column refers to it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from include.erasure.matching import copy_failures
from include.erasure.staged import StagedKeys

_PROBLEM = "Large objects of erased records cannot be deleted"
_TABLE = Identifier("pg_temp", "parcelseal_large_objects")
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
    copy.execute(SQL("CREATE TEMP TABLE IF NOT EXISTS {} (loid oid PRIMARY KEY)").format(_TABLE))
    if copy.execute("SELECT FROM pg_largeobject_metadata LIMIT 1").fetchone() is None:
        return
    insert = SQL(
        "INSERT INTO {kept} SELECT DISTINCT v.loid FROM {table} AS t JOIN {keys} AS e "
        "ON {same} CROSS JOIN {numbers} WHERE v.loid IS NOT NULL ON CONFLICT DO NOTHING"
    )
    with copy_failures(copy, _PROBLEM):
        for keys in staged:
            table = keys.table.place.identifier.as_string(copy)
            for column in _columns(copy, _OF_TABLE, table):
                for action in ("delete", "mask"):
                    copy.execute(
                        insert.format(
                            kept=_TABLE,
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
    with copy_failures(copy, _PROBLEM):
        if copy.execute(SQL("SELECT FROM {} LIMIT 1").format(_TABLE)).fetchone() is None:
            return 0
        for column in _columns(copy, _ANYWHERE):
            copy.execute(
                SQL("DELETE FROM {} k USING {} t CROSS JOIN {} WHERE v.loid = k.loid").format(
                    _TABLE, column.identifier, column.numbers
                )
            )
        deleted = copy.execute(
            SQL(
                "SELECT lo_unlink(m.oid) FROM {} k JOIN pg_largeobject_metadata m ON m.oid = k.loid"
            ).format(_TABLE)
        ).rowcount
        copy.execute(SQL("TRUNCATE {}").format(_TABLE))
    return deleted
