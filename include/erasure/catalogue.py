"""Relations of a restored copy, and where their columns lead, for the search in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.places import Place

_RELATIONS = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition,
       array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped ORDER BY a.attnum),
       array(SELECT t.typname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND (a.attidentity <> '' OR EXISTS (
                  SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass
                  AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype = 'a'
                  AND d.classid = 'pg_class'::regclass)))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind IN ('r', 'p') OR c.relkind = 'm' AND c.relispopulated)
  AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2, 3
"""
_FOREIGN_KEYS = """
SELECT k.conrelid::int8, k.confrelid::int8, k.convalidated,
       array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord),
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord)
FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0
"""
_FAMILY = """
SELECT to_regclass(%(name)s)::oid::int8
UNION SELECT relid::oid::int8 FROM pg_partition_tree(to_regclass(%(name)s))
UNION SELECT relid::oid::int8 FROM pg_partition_ancestors(to_regclass(%(name)s))
"""
_DEFINITIONS = """
SELECT oid::int8, pg_get_viewdef(oid) FROM pg_class WHERE relkind IN ('v', 'm') AND oid >= 16384
"""
_ATTRIBUTES = """
SELECT attrelid::int8, attnum::int, attname::text FROM pg_attribute
WHERE attnum > 0 AND NOT attisdropped AND attrelid >= 16384
"""


@dataclass(frozen=True)
class Relation:
    """A table or a populated materialized view.

    Attributes:
        kind: `pg_class.relkind`.
        columns: names, in order.
        types: names of their types, in the same order.
        numbered: columns that number the relation's own records.
    """

    oid: int
    schema: str
    name: str
    kind: str
    is_partition: bool
    columns: Sequence[str]
    types: Sequence[str]
    numbered: Collection[str]

    @property
    def label(self) -> str:
        """The name for people."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> Composable:
        """The name for a query, without tables that inherit from it."""
        named = Identifier(self.schema, self.name)
        return SQL("ONLY {}").format(named) if self.kind == "r" else named


@dataclass
class Catalogue:
    """The schema of the copy: its relations, and where their columns lead."""

    relations: Sequence[Relation]
    foreign_keys: Sequence[tuple[int, int, bool, list[str], list[str]]]
    origins: Mapping[tuple[int, str], tuple[int, str]]  # column of a view -> column that it shows


def read_catalogue(copy: psycopg.Connection[Any]) -> Catalogue:
    """Return the schema of the copy; its transaction stays open."""
    relations = [Relation(*row) for row in copy.execute(_RELATIONS).fetchall()]
    foreign_keys = copy.execute(_FOREIGN_KEYS).fetchall()
    names = {(oid, number): name for oid, number, name in copy.execute(_ATTRIBUTES).fetchall()}
    origins: dict[tuple[int, str], tuple[int, str]] = {}
    for oid, definition in copy.execute(_DEFINITIONS).fetchall():
        columns = sorted(number for reader, number in names if reader == oid)
        for number, origin in zip(columns, _described(copy, definition), strict=False):
            if origin in names:
                origins[oid, names[oid, number]] = (origin[0], names[origin])
    return Catalogue(relations, foreign_keys, origins)


def _described(copy: psycopg.Connection[Any], query: str) -> list[tuple[int, int]]:
    """Return the relation and column that each column of a query shows; (0, 0) where none.

    The server describes the query and does not execute it, so no foreign server is reached.
    """
    with copy.transaction():
        copy.pgconn.prepare(b"", query.encode(copy.info.encoding))
        result = copy.pgconn.describe_prepared(b"")
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.Rollback  # its columns are known by their names only
        return [(result.ftable(at), result.ftablecol(at)) for at in range(result.nfields)]
    return []


def family_of(copy: psycopg.Connection[Any], place: Place) -> set[int]:
    """Return the oids of a table, its partitions and the tables that it is a partition of."""
    name = place.identifier.as_string(copy)
    return {oid for (oid,) in copy.execute(_FAMILY, {"name": name}).fetchall()}


def led_elsewhere(catalogue: Catalogue, relation: Relation, family: Collection[int]) -> set[str]:
    """Return the columns of a relation that a foreign key leads to another table."""
    return {
        column
        for child, parent, _validated, columns, _targets in catalogue.foreign_keys
        if child == relation.oid and parent not in family
        for column in columns
    }
