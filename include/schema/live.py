"""Read tables, columns, keys and types of a live PostgreSQL database from its catalogue.

Only names, types and estimates are read, never rows of the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

Kind = Literal["table", "partitioned", "view", "materialized_view", "foreign_table"]
Name = tuple[str, str]
"""Schema and table, as PostgreSQL spells them."""

_KINDS: dict[str, Kind] = {
    "r": "table",
    "p": "partitioned",
    "v": "view",
    "m": "materialized_view",
    "f": "foreign_table",
}
# Omitted: partitions, which are part of their parent; temporary tables; and tables of extensions
# (PostGIS' spatial_ref_sys), and the schemas of transient logins (`LOGIN_PREFIX`), which hold no
# data of the company.
_TABLES = """
SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       obj_description(c.oid, 'pg_class') AS comment,
       CASE WHEN c.relkind = 'p' THEN (
           SELECT coalesce(sum(nullif(leaf.reltuples, -1)), -1)
           FROM pg_partition_tree(c.oid) part JOIN pg_class leaf ON leaf.oid = part.relid
           WHERE part.isleaf)
       ELSE c.reltuples END::bigint AS rows,
       array(SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno)
           AS parents
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname !~ '^(pg_|parcelseal_use_)' AND n.nspname <> 'information_schema'
  AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY (%(schemas)s))
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""
# Resolves domains and arrays to the type of their values.
_COLUMNS = """
WITH RECURSIVE base (attrelid, attnum, oid, is_array) AS (
    SELECT a.attrelid, a.attnum, a.atttypid, false
    FROM pg_attribute a
    WHERE a.attrelid = ANY (%(tables)s) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attrelid, b.attnum, CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END,
           b.is_array OR t.typtype <> 'd'
    FROM base b JOIN pg_type t ON t.oid = b.oid
    WHERE t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0
)
SELECT a.attrelid AS table, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       t.typname::text AS base, t.typtype::text AS form, b.is_array,
       NOT a.attnotnull AS nullable, a.attgenerated <> '' AS generated,
       a.attislocal AS own, col_description(a.attrelid, a.attnum) AS comment
FROM base b JOIN pg_attribute a USING (attrelid, attnum) JOIN pg_type t ON t.oid = b.oid
WHERE NOT (t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0)
ORDER BY a.attrelid, a.attnum
"""
_KEYS = """
SELECT k.conrelid AS table, k.conname::text AS name, k.contype::text AS kind,
       rn.nspname::text AS target_schema, rc.relname::text AS target_table,
       array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord)
           AS columns,
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord)
           AS targets
FROM pg_constraint k
LEFT JOIN pg_class rc ON rc.oid = k.confrelid LEFT JOIN pg_namespace rn ON rn.oid = rc.relnamespace
WHERE k.conrelid = ANY (%(tables)s) AND k.contype IN ('p', 'u', 'f') AND k.conparentid = 0
ORDER BY k.conrelid, k.conname
"""
# A unique index without condition or expressions has the same effect as a constraint.
_INDEXES = """
SELECT i.indrelid AS table, i.indisunique AS unique,
       array(SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num
             WHERE ord <= i.indnkeyatts ORDER BY ord) AS columns
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = ANY (%(tables)s) AND i.indisvalid AND m.amname IN ('btree', 'hash')
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY 1, 3
"""


@dataclass(frozen=True)
class LiveColumn:
    """A column of a table in a live database.

    Attributes:
        name: name as PostgreSQL spells it.
        type: declared type, such as ``character varying(40)``.
        base: name in ``pg_type`` of the type of a single value, such as ``varchar``. For a domain,
            it is the type on which the domain is based; for an array, the type of its items.
        form: ``typtype`` of `base`: ``b`` base, ``e`` enum, ``c`` composite, ``r`` range.
        is_array: whether the values are arrays of `base`.
        nullable: whether the column allows null.
        generated: whether the column is computed from other columns.
        own: whether the table itself declares the column. Otherwise it inherits the column.
        comment: comment of the column in the database; None if the column has no comment.
    """

    name: str
    type: str
    base: str
    form: str = "b"
    is_array: bool = False
    nullable: bool = True
    generated: bool = False
    own: bool = True
    comment: str | None = None


@dataclass(frozen=True)
class LiveForeignKey:
    """A foreign key of a table in a live database.

    Attributes:
        name: name of the foreign key.
        columns: columns of the table.
        target: schema and name of the table to which the foreign key refers.
        targets: columns of the target table, in the order of the `columns` that refer to them.
    """

    name: str
    columns: tuple[str, ...]
    target: Name
    targets: tuple[str, ...]


@dataclass(frozen=True)
class LiveTable:
    """A table, view or foreign table of a live database.

    Attributes:
        schema: PostgreSQL schema.
        name: name of the table in the schema.
        kind: kind of relation. A partitioned table includes its partitions.
        columns: column name -> column, in the order of the table.
        primary_key: columns of the primary key, in the order of the key; empty if the table has no
            primary key.
        unique: sets of columns that a constraint or index makes unique, including the primary key.
        indexed: columns that are the first column of an index.
        foreign_keys: foreign keys, sorted by name.
        parents: tables from which the table inherits.
        rows: PostgreSQL's estimate of the number of rows; None if the table was never analysed.
        comment: comment of the table in the database; None if the table has no comment.
    """

    schema: str
    name: str
    kind: Kind
    columns: Mapping[str, LiveColumn]
    primary_key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    indexed: frozenset[str] = frozenset()
    foreign_keys: tuple[LiveForeignKey, ...] = ()
    parents: tuple[Name, ...] = ()
    rows: int | None = None
    comment: str | None = None

    @property
    def label(self) -> str:
        """Return the schema and the name of the table, separated by a dot."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class LiveSchema:
    """The tables of a live database.

    Attributes:
        tables: schema and name -> table, sorted by schema and name.
    """

    tables: Mapping[Name, LiveTable] = field(default_factory=dict)


def read_schema(
    connection: psycopg.Connection[Any], schemas: Collection[str] | None = None
) -> LiveSchema:
    """Read the tables of a live database from its catalogue.

    System schemas, temporary tables, partitions and objects of extensions are omitted.

    Args:
        connection: connection to the database; only the catalogue is read.
        schemas: PostgreSQL schemas to read; None to read all schemas.
    """
    requested = None if schemas is None else sorted(schemas)
    with connection.cursor(row_factory=dict_row) as cursor:
        tables = cursor.execute(_TABLES, {"schemas": requested}).fetchall()
        parameters = {"tables": [table["oid"] for table in tables]}
        columns = _by_table(cursor.execute(_COLUMNS, parameters).fetchall())
        keys = _by_table(cursor.execute(_KEYS, parameters).fetchall())
        indexes = _by_table(cursor.execute(_INDEXES, parameters).fetchall())
    names = {table["oid"]: (table["schema"], table["name"]) for table in tables}
    live_tables = [
        _table(table, columns[table["oid"]], keys[table["oid"]], indexes[table["oid"]], names)
        for table in tables
    ]
    return LiveSchema({(live.schema, live.name): live for live in live_tables})


class _ByTable(dict[int, list[dict[str, Any]]]):
    def __missing__(self, key: int) -> list[dict[str, Any]]:
        return []


def _by_table(rows: list[dict[str, Any]]) -> _ByTable:
    grouped = _ByTable()
    for row in rows:
        grouped.setdefault(row.pop("table"), []).append(row)
    return grouped


def _table(
    raw: dict[str, Any],
    columns: list[dict[str, Any]],
    keys: list[dict[str, Any]],
    indexes: list[dict[str, Any]],
    names: Mapping[int, Name],
) -> LiveTable:
    return LiveTable(
        schema=raw["schema"],
        name=raw["name"],
        kind=_KINDS[raw["kind"]],
        columns={column["name"]: LiveColumn(**column) for column in columns},
        primary_key=next((tuple(key["columns"]) for key in keys if key["kind"] == "p"), ()),
        unique=tuple(tuple(index["columns"]) for index in indexes if index["unique"]),
        indexed=frozenset(index["columns"][0] for index in indexes),
        foreign_keys=tuple(
            LiveForeignKey(
                key["name"],
                tuple(key["columns"]),
                (key["target_schema"], key["target_table"]),
                tuple(key["targets"]),
            )
            for key in keys
            if key["kind"] == "f"
        ),
        parents=tuple(names[oid] for oid in raw["parents"] if oid in names),
        rows=raw["rows"] if raw["rows"] >= 0 else None,
        comment=raw["comment"],
    )


# fideslang has string, integer, float, boolean, object and object_id, each also as an array
# (fideslang.models, DataType of Fides). Other types - dates, uuids, networks, bytes, enums,
# ranges - are strings there, as in Fides' own PostgreSQL maps.
_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), ("integer",)),
    **dict.fromkeys(("float4", "float8"), ("float",)),
    "numeric": ("float",),
    "money": ("float", "string"),
    "bool": ("boolean",),
    **dict.fromkeys(("json", "jsonb", "hstore"), ("object", "string")),
    "xml": ("string", "object"),
    "uuid": ("string", "object_id"),
}
_ANY_FORM = {"json", "jsonb"}  # JSON types can contain arrays, which a data map may declare


def fides_type(column: LiveColumn) -> str:
    """Return the fideslang data type that a drafted data map states for a column."""
    return _types(column)[0] + ("[]" if column.is_array else "")


def matches_type(column: LiveColumn, data_type: str) -> bool:
    """Return whether the type of a live column fits the fideslang data type in the data map."""
    scalar_type, is_array = data_type.removesuffix("[]"), data_type.endswith("[]")
    if column.base in _ANY_FORM and is_array and not column.is_array:
        return True
    return is_array == column.is_array and scalar_type in _types(column)


def _types(column: LiveColumn) -> tuple[str, ...]:
    if column.form == "c":
        return ("object",)
    if column.base == "numeric" and column.type.endswith(",0)"):
        return ("integer", "float")
    return _TYPES.get(column.base, ("string", "object_id"))
