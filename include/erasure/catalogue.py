"""Read the tables, foreign keys and view columns of a restored copy.

`include.erasure.search` uses this information to find the columns that may contain keys of erased
records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.tables import TableName

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
    """A table or a populated materialized view of a restored copy.

    Attributes:
        kind: value of `pg_class.relkind`, such as ``r`` for a table.
        is_partition: whether the relation is a partition of another table.
        columns: column names, in the order of the relation.
        types: names of the column types, in the same order as `columns`.
        numbered: names of the identity and serial columns. PostgreSQL generates their values from a
            sequence of this relation, so they are not keys of another table.
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
        """The relation's name with its schema, for messages."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> Composable:
        """The relation's name with its schema, for a query.

        The name of an ordinary table follows the keyword ONLY. A query on it therefore leaves out
        the rows of tables that inherit from the table.
        """
        name = Identifier(self.schema, self.name)
        return SQL("ONLY {}").format(name) if self.kind == "r" else name


@dataclass
class Catalogue:
    """The relations, foreign keys and view columns of a restored copy.

    Attributes:
        relations: tables and populated materialized views.
        foreign_keys: one tuple for each foreign key: oid of the referencing table, oid of the
            referenced table, whether PostgreSQL has checked the foreign key for all rows, names of
            the referencing columns, names of the referenced columns.
        origins: source of each view column: (oid of the view, name of the view's column) -> (oid of
            the relation that the view reads, name of that relation's column).
    """

    relations: Sequence[Relation]
    foreign_keys: Sequence[tuple[int, int, bool, list[str], list[str]]]
    origins: Mapping[tuple[int, str], tuple[int, str]]


def read_catalogue(copy: psycopg.Connection[Any]) -> Catalogue:
    """Read the tables, foreign keys and view columns of a restored copy.

    The function does not end the connection's transaction.
    """
    relations = [Relation(*row) for row in copy.execute(_RELATIONS).fetchall()]
    foreign_keys = copy.execute(_FOREIGN_KEYS).fetchall()
    names = {(oid, number): name for oid, number, name in copy.execute(_ATTRIBUTES).fetchall()}
    origins: dict[tuple[int, str], tuple[int, str]] = {}
    for oid, definition in copy.execute(_DEFINITIONS).fetchall():
        columns = sorted(number for reader, number in names if reader == oid)
        for number, origin in zip(columns, _describe_columns(copy, definition), strict=False):
            if origin in names:
                origins[oid, names[oid, number]] = (origin[0], names[origin])
    return Catalogue(relations, foreign_keys, origins)


def _describe_columns(copy: psycopg.Connection[Any], query: str) -> list[tuple[int, int]]:
    """Return the table column from which each output column of a query comes.

    The server does not execute the query, so it does not connect to foreign servers.

    Args:
        copy: the restored database.
        query: the SQL query.

    Returns:
        For each output column: oid of the table, and number of the column in this table. Both are 0
        for an output column that is computed from an expression. The list is empty if the server
        cannot describe the query.
    """
    with copy.transaction():
        copy.pgconn.prepare(b"", query.encode(copy.info.encoding))
        result = copy.pgconn.describe_prepared(b"")
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.Rollback  # the origins of the columns stay unknown
        return [(result.ftable(n), result.ftablecol(n)) for n in range(result.nfields)]
    return []


def partition_family(copy: psycopg.Connection[Any], table_name: TableName) -> set[int]:
    """Return the oids of a table, of its partitions, and of its partitioned parent tables."""
    name = table_name.identifier.as_string(copy)
    return {oid for (oid,) in copy.execute(_FAMILY, {"name": name}).fetchall()}


def columns_referring_elsewhere(
    catalogue: Catalogue, relation: Relation, family: Collection[int]
) -> set[str]:
    """Return the columns of a relation whose foreign keys refer to a table outside of `family`.

    Such a column cannot contain a key of the tables in `family`.

    Args:
        catalogue: schema of the restored copy.
        relation: relation whose columns are examined.
        family: oids of a table and its partitions, as `partition_family` returns them.
    """
    return {
        column
        for child, parent, _validated, columns, _targets in catalogue.foreign_keys
        if child == relation.oid and parent not in family
        for column in columns
    }
