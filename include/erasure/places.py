"""Tables of collections, primary keys as text, and foreign keys as conditions.

A condition on a foreign key uses the operators of the key and the collation of the parent, as
PostgreSQL does. A plain ``=`` differs if the columns differ in collation or if the key uses another
operator class.

A replay sets references to null as retention does (`detach`): a complaint outlives its waybill. A
backup from before the deletion contains both records and the reference, which would keep the
waybill from being erased again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.services.database import scalar
from include.services.errors import UsageError

MOST_COLUMNS = 5  # of a key whose order is looked for: 120 orders
PRIMARY_KEY = """
SELECT a.attname
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(num, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary AND k.place <= i.indnkeyatts
ORDER BY k.place
"""
_TYPES = """string_agg(CASE
    WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'whole number'
    WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) THEN 'text'
    -- Others are named without their schema, which depends on the session's search path.
    WHEN y.typnamespace <> 'pg_catalog'::regnamespace THEN y.typname
    ELSE format_type(a.atttypid, a.atttypmod) END, ', ' ORDER BY k.place)"""
TYPES_OF_KEY = f"""
SELECT {_TYPES}
FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_type y ON y.oid = a.atttypid
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary AND k.place <= i.indnkeyatts
"""  # noqa: S608 - fixed text
_TYPES_OF_COLUMNS = f"""
SELECT {_TYPES}
FROM unnest(%(columns)s::text[]) WITH ORDINALITY AS k (name, place)
JOIN pg_attribute a ON a.attrelid = to_regclass(%(name)s) AND a.attname = k.name
  AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid
HAVING count(*) = cardinality(%(columns)s::text[])
"""  # noqa: S608 - fixed text


@dataclass(frozen=True)
class Place:
    """The table of a collection."""

    schema: str
    table: str

    @property
    def identifier(self) -> Identifier:
        """The qualified name for a query."""
        return Identifier(self.schema, self.table)


def places_of(database: MappedDatabase) -> dict[str, Place]:
    """Return the tables of a database by collection, as the data map names them."""
    return {name: Place(it.schema_name, it.table) for name, it in database.collections.items()}


def primary_key(connection: psycopg.Connection, place: Place) -> list[str] | None:
    """Return a table's primary key columns in order, None when there is no such table.

    Raises:
        UsageError: the table has no primary key.
    """
    columns = key_columns(connection, place)
    if columns == []:
        name = place.identifier.as_string(connection)
        raise UsageError(f"Table {name} has no primary key, so its erased records have no name.")
    return columns


def key_columns(connection: psycopg.Connection, place: Place) -> list[str] | None:
    """Return a table's primary key columns in order, none without such a key.

    Returns:
        None when there is no such table.
    """
    name = place.identifier.as_string(connection)
    if not scalar(connection, "SELECT to_regclass(%s) IS NOT NULL", [name]):
        return None
    return [column for (column,) in connection.execute(PRIMARY_KEY, [name])]


def types_of_key(connection: psycopg.Connection, place: Place) -> str | None:
    """Return the types of a table's primary key in order; None where there is none.

    Types that print a value alike count as one: a key that grew from integer to bigint names its
    records as before. So does one whose column was renamed.
    """
    types: str | None = scalar(connection, TYPES_OF_KEY, [place.identifier.as_string(connection)])
    return types


def types_of_columns(
    connection: psycopg.Connection, place: Place, columns: Sequence[str]
) -> str | None:
    """Return the types of columns as `types_of_key` does; None where one is not in the table."""
    parameters = {"columns": list(columns), "name": place.identifier.as_string(connection)}
    types: str | None = scalar(connection, _TYPES_OF_COLUMNS, parameters)
    return types


def order_of_key(
    columns: Sequence[str], types: str | None, types_in: Callable[[Sequence[str]], str | None]
) -> tuple[str, ...] | None:
    """Return the columns of a key in the order in which their types are these.

    The data map names a key's columns without their order, and the ledger names records by it.

    Args:
        columns: of the key, in any order.
        types: as `types_of_key` returns them; None where they are unknown.
        types_in: returns the types of columns in order, None where one does not exist.

    Returns:
        None where no order has these types, or where several have.
    """
    if not columns or len(columns) > MOST_COLUMNS:
        return None
    orders = [
        order
        for order in permutations(columns)
        if (of_order := types_in(order)) is not None and types in (None, of_order)
    ]
    return orders[0] if len(orders) == 1 else None


def key_texts(columns: Sequence[str]) -> Composed:
    """Return the columns of a key as texts, for a query over records of alias ``t``.

    They name a record only in a session that did `PRINTING`.
    """
    return SQL(", ").join(SQL("{}::text").format(Identifier("t", column)) for column in columns)


COMPARED = """array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY ord)
           AS columns,
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY ord)
           AS targets,
       array(SELECT ARRAY[n.nspname::text, o.oprname::text]
             FROM unnest(k.conpfeqop) WITH ORDINALITY u(op, ord)
             JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace n ON n.oid = o.oprnamespace
             ORDER BY ord) AS operators,
       array(SELECT CASE WHEN a.attcollation <> b.attcollation
                    THEN ARRAY[n.nspname::text, l.collname::text] ELSE ARRAY['', ''] END
             FROM unnest(k.confkey, k.conkey) WITH ORDINALITY u(theirs, mine, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.theirs
             JOIN pg_attribute b ON b.attrelid = k.conrelid AND b.attnum = u.mine
             LEFT JOIN pg_collation l ON l.oid = a.attcollation
             LEFT JOIN pg_namespace n ON n.oid = l.collnamespace ORDER BY ord) AS collations"""
"""Columns of a query over ``pg_constraint k``: the first four attributes of a `Reference`."""


@dataclass(frozen=True)
class Reference:
    """How a foreign key compares.

    Attributes:
        columns: of the child.
        targets: of the parent, in the same order.
        operators: schema and name of the operators that compare parent and child, by column.
        collations: schema and name of the parent's collation where the child has another; else
            twice nothing.
        partitions: oids of the tables whose records it leads to; any of the parent where empty.
    """

    columns: Sequence[str]
    targets: Sequence[str]
    operators: Sequence[Sequence[str]]
    collations: Sequence[Sequence[str]]
    partitions: Sequence[int] = ()

    def joined(self, child: str, parent: str) -> Composable:
        """The condition that a child's record refers to a parent's, for a query without parameters.

        Args:
            child: alias of the child, whose columns are called as in the table.
            parent: alias of the parent, likewise, with its ``tableoid``.
        """
        same: list[Composable] = []
        for at, (mine, theirs) in enumerate(zip(self.columns, self.targets, strict=True)):
            schema, operator = self.operators[at]
            by: Composable = SQL("")
            if self.collations[at][1]:
                by = SQL(" COLLATE {}").format(Identifier(*self.collations[at]))
            same.append(
                SQL("{} OPERATOR({}.{}) {}{}").format(
                    Identifier(parent, theirs),
                    Identifier(schema),
                    SQL(operator),
                    Identifier(child, mine),
                    by,
                )
            )
        if self.partitions:
            where = Identifier(parent, "tableoid")
            same.append(SQL("{} = ANY ({}::oid[])").format(where, Literal(list(self.partitions))))
        return SQL("({})").format(SQL(" AND ").join(same))


# Keys that partitions have from their parents are the parent's.
_KEYS = f"""
WITH parents AS (
    SELECT to_regclass(%(parent)s)::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(parent)s))
), children AS (
    SELECT to_regclass(%(child)s)::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(child)s))
)
SELECT n.nspname::text, c.relname::text,
       {COMPARED},
       array(SELECT k.confrelid UNION SELECT relid::oid FROM pg_partition_tree(k.confrelid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND k.confrelid IN (SELECT oid FROM parents) AND k.conrelid IN (SELECT oid FROM children)
ORDER BY 1, 2, k.conname
"""  # noqa: S608 - fixed text


def detached_of(rules: Iterable[RetentionRule]) -> dict[str, tuple[str, ...]]:
    """Return what retention.yaml detaches from each collection, as ``collection.field``."""
    detached: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        if rule.detach:
            detached[rule.collection] = (*detached.get(rule.collection, ()), *rule.detach)
    return detached


def detach(
    copy: psycopg.Connection[Any],
    place: Place,
    fields: Sequence[str],
    places: Mapping[str, Place],
    erased: Composable,
) -> None:
    """Set the named columns of references to erased records to null.

    Args:
        copy: the restored database.
        place: table of the erased records.
        fields: that are detached from it, as ``collection.field``.
        places: collection -> table.
        erased: FROM and WHERE of the erased records, called ``t``.

    Raises:
        psycopg.Error: a reference cannot be null, or a trigger refuses.
    """
    for collection in dict.fromkeys(name.rpartition(".")[0] for name in fields):
        if collection not in places:
            continue
        names = {
            "parent": place.identifier.as_string(copy),
            "child": places[collection].identifier.as_string(copy),
        }
        for schema, table, *compared in copy.execute(_KEYS, names).fetchall():
            key = Reference(*compared)
            nulled = [column for column in key.columns if f"{collection}.{column}" in fields]
            if not nulled:
                continue
            query = SQL(
                "UPDATE {child} AS c SET {nulls} "
                "FROM (SELECT t.tableoid, {targets} {erased}) AS p WHERE {refers}"
            ).format(
                child=Identifier(schema, table),
                nulls=SQL(", ").join(
                    SQL("{} = NULL").format(Identifier(column)) for column in nulled
                ),
                targets=SQL(", ").join(Identifier("t", column) for column in key.targets),
                erased=erased,
                refers=key.joined("c", "p"),
            )
            copy.execute(query)
