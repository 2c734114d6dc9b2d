"""Tables, columns, keys and types of a live PostgreSQL database, read from its catalogue.

Only names, types and estimates are read, never a row.
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
# Partitions are part of their parent; temporary tables are nobody's; what an extension brought
# along (PostGIS' spatial_ref_sys) is a program's and not the company's.
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
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (%(schemas)s::text[] IS NULL OR n.nspname = ANY (%(schemas)s))
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""
# Domains and arrays are followed down to the type that values have.
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
# A unique index without a constraint enforces the same, unless it has a condition or expressions.
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
    """A column of a live table.

    Attributes:
        name: as PostgreSQL spells it.
        type: as declared, ``character varying(40)``.
        base: name in ``pg_type`` of the type that values have, domains and arrays followed:
            ``varchar``.
        form: ``typtype`` of that type: ``b`` base, ``e`` enum, ``c`` composite, ``r`` range.
        is_array: whether it holds arrays of ``base``.
        nullable: whether null is allowed by the column itself.
        generated: computed from other columns.
        own: declared by the table itself, not only inherited from a parent.
        comment: what its designer wrote about it.
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
    """A foreign key, its columns and their targets in the same order."""

    name: str
    columns: tuple[str, ...]
    target: Name
    targets: tuple[str, ...]


@dataclass(frozen=True)
class LiveTable:
    """A table, view or foreign table.

    Attributes:
        schema: PostgreSQL schema.
        name: table in it.
        kind: what it is; partitions are part of their ``partitioned`` parent.
        columns: by name, in the table's order.
        primary_key: its columns in the key's order; empty without one.
        unique: columns that are unique together by a constraint or index, the primary key's too.
        indexed: columns by whose value an index finds rows.
        foreign_keys: by name.
        parents: tables that it inherits from.
        rows: the server's estimate; None when it has none (never analysed).
        comment: what its designer wrote about it.
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
        """Schema and name for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class LiveSchema:
    """What was read of a database.

    Attributes:
        tables: by schema and name, in that order.
    """

    tables: Mapping[Name, LiveTable] = field(default_factory=dict)


def read_schema(
    connection: psycopg.Connection[Any], schemas: Collection[str] | None = None
) -> LiveSchema:
    """Read the live schema of a database from its catalogue.

    System schemas, temporary tables, partitions and what belongs to an extension are left out.

    Args:
        connection: to the database; nothing is written and no table is opened.
        schemas: PostgreSQL schemas to look at, None for all.
    """
    wanted = None if schemas is None else sorted(schemas)
    with connection.cursor(row_factory=dict_row) as cursor:
        tables = cursor.execute(_TABLES, {"schemas": wanted}).fetchall()
        asked = {"tables": [one["oid"] for one in tables]}
        columns = _by_table(cursor.execute(_COLUMNS, asked).fetchall())
        keys = _by_table(cursor.execute(_KEYS, asked).fetchall())
        indexes = _by_table(cursor.execute(_INDEXES, asked).fetchall())
    names = {one["oid"]: (one["schema"], one["name"]) for one in tables}
    found = [
        _table(one, columns[one["oid"]], keys[one["oid"]], indexes[one["oid"]], names)
        for one in tables
    ]
    return LiveSchema({(one.schema, one.name): one for one in found})


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
        columns={one["name"]: LiveColumn(**one) for one in columns},
        primary_key=next((tuple(one["columns"]) for one in keys if one["kind"] == "p"), ()),
        unique=tuple(tuple(one["columns"]) for one in indexes if one["unique"]),
        indexed=frozenset(one["columns"][0] for one in indexes),
        foreign_keys=tuple(
            LiveForeignKey(
                one["name"],
                tuple(one["columns"]),
                (one["target_schema"], one["target_table"]),
                tuple(one["targets"]),
            )
            for one in keys
            if one["kind"] == "f"
        ),
        parents=tuple(names[oid] for oid in raw["parents"] if oid in names),
        rows=raw["rows"] if raw["rows"] >= 0 else None,
        comment=raw["comment"],
    )


# fideslang knows string, integer, float, boolean, object and object_id, each also as an array
# (fideslang.models, DataType of Fides). What it has no word for - dates, uuids, networks, bytes,
# enums, ranges - is a string there, as Fides' own PostgreSQL maps write it.
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
_ANY_FORM = {"json", "jsonb"}  # may hold arrays, which a map may say


def fides_type(column: LiveColumn) -> str:
    """The fideslang data type that a draft names for a column."""
    return _types(column)[0] + ("[]" if column.is_array else "")


def agrees(column: LiveColumn, data_type: str) -> bool:
    """Whether a column holds what the map's fideslang data type says."""
    said, is_array = data_type.removesuffix("[]"), data_type.endswith("[]")
    if column.base in _ANY_FORM and is_array and not column.is_array:
        return True
    return is_array == column.is_array and said in _types(column)


def _types(column: LiveColumn) -> tuple[str, ...]:
    if column.form == "c":
        return ("object",)
    if column.base == "numeric" and column.type.endswith(",0)"):
        return ("integer", "float")
    return _TYPES.get(column.base, ("string", "object_id"))
