"""Names of tables, primary keys as text, and foreign keys as SQL conditions.

A condition on a foreign key uses the operators of the foreign key and the collation of the
referenced table, as PostgreSQL does. A comparison with ``=`` can give another result if the columns
differ in collation or if the foreign key uses another operator class.

A replay sets references to null with `detach`, as a retention run does before it deletes records.
For example, a complaint is kept longer than the waybill to which it refers. A backup from before
the deletion of the waybill has both records, and the reference would prevent the replay from
erasing the waybill.
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

MAX_ORDERED_COLUMNS = 5  # a key of five columns has 120 possible orders
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
    -- Without the schema, since format_type prints it depending on the session's search path.
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
class TableName:
    """The name of a table and its schema."""

    schema: str
    table: str

    @property
    def identifier(self) -> Identifier:
        """The table's name with its schema, for a query."""
        return Identifier(self.schema, self.table)


def table_names_of(database: MappedDatabase) -> dict[str, TableName]:
    """Return the tables of a mapped database: collection -> table."""
    return {
        name: TableName(collection.schema_name, collection.table)
        for name, collection in database.collections.items()
    }


def require_primary_key(connection: psycopg.Connection, table_name: TableName) -> list[str] | None:
    """Return a table's primary key columns in order, or None if the table does not exist.

    Raises:
        UsageError: the table has no primary key.
    """
    columns = key_columns(connection, table_name)
    if columns == []:
        name = table_name.identifier.as_string(connection)
        raise UsageError(
            f"Table {name} has no primary key, so the ledger cannot identify its erased records."
        )
    return columns


def key_columns(connection: psycopg.Connection, table_name: TableName) -> list[str] | None:
    """Return a table's primary key columns in order, or None if the table does not exist.

    The list is empty if the table has no primary key.
    """
    name = table_name.identifier.as_string(connection)
    if not scalar(connection, "SELECT to_regclass(%s) IS NOT NULL", [name]):
        return None
    return [column for (column,) in connection.execute(PRIMARY_KEY, [name])]


def primary_key_types(connection: psycopg.Connection, table_name: TableName) -> str | None:
    """Return the types of a table's primary key columns in order; None if it has no primary key.

    The integer types share the name ``whole number``, and text types share the name ``text``. So a
    key still matches the ledger after its type changed from integer to bigint. The result contains
    no column names, so a key matches even after a column was renamed.
    """
    types: str | None = scalar(
        connection, TYPES_OF_KEY, [table_name.identifier.as_string(connection)]
    )
    return types


def column_types(
    connection: psycopg.Connection, table_name: TableName, columns: Sequence[str]
) -> str | None:
    """Return the types of the columns `columns` of a table, in the form of `primary_key_types`.

    Return None if one of the columns does not exist.
    """
    parameters = {"columns": list(columns), "name": table_name.identifier.as_string(connection)}
    types: str | None = scalar(connection, _TYPES_OF_COLUMNS, parameters)
    return types


def order_key_columns(
    columns: Sequence[str], types: str | None, types_in: Callable[[Sequence[str]], str | None]
) -> tuple[str, ...] | None:
    """Return the columns of a key, in the order in which their types equal `types`.

    The data map lists the columns of a key in any order, but the digest of a key in the ledger
    depends on the order of the columns.

    Args:
        columns: columns of the key, in any order.
        types: types of the key, as `primary_key_types` returns them; None if they are unknown. Any
            order then equals `types`.
        types_in: function that returns the types of the columns that are passed to it, in the same
            order. It returns None if a column does not exist.

    Returns:
        The columns in this order; None if no order or more than one order has these types.
    """
    if not columns or len(columns) > MAX_ORDERED_COLUMNS:
        return None
    orders = [
        order
        for order in permutations(columns)
        if (ordered_types := types_in(order)) is not None and types in (None, ordered_types)
    ]
    return orders[0] if len(orders) == 1 else None


def key_texts(columns: Sequence[str]) -> Composed:
    """Return SQL that selects the key columns of record ``t`` as texts.

    The session must have the settings of `include.services.database.PRINTING`. With other settings,
    equal keys could have different texts.
    """
    return SQL(", ").join(SQL("{}::text").format(Identifier("t", column)) for column in columns)


COMPARISON_COLUMNS = """array(SELECT a.attname::text
             FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
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
    """The columns of a foreign key, and the operators with which PostgreSQL compares them.

    The *child* is the table that has the foreign key, and the *parent* is the referenced table.

    Attributes:
        columns: columns of the child.
        targets: columns of the parent, in the same order as `columns`.
        operators: for each column, schema and name of the operator that compares parent and child.
        collations: for each column, schema and name of the parent's collation if the child has
            another collation; otherwise two empty texts.
        partitions: oids of the tables to whose records the foreign key can refer; empty if it can
            refer to every record of the parent.
    """

    columns: Sequence[str]
    targets: Sequence[str]
    operators: Sequence[Sequence[str]]
    collations: Sequence[Sequence[str]]
    partitions: Sequence[int] = ()

    def joined(self, child: str, parent: str) -> Composable:
        """Return the SQL condition that a record of the child refers to a record of the parent.

        The caller must use the condition only in a query without parameters, because the name of an
        operator may contain ``%``, which psycopg treats as a placeholder.

        Args:
            child: alias of the referencing table in the query.
            parent: alias of the referenced table in the query. It must provide the column
                ``tableoid``.
        """
        conditions: list[Composable] = []
        for at, (column, target) in enumerate(zip(self.columns, self.targets, strict=True)):
            schema, operator = self.operators[at]
            collation: Composable = SQL("")
            if self.collations[at][1]:
                collation = SQL(" COLLATE {}").format(Identifier(*self.collations[at]))
            conditions.append(
                SQL("{} OPERATOR({}.{}) {}{}").format(
                    Identifier(parent, target),
                    Identifier(schema),
                    SQL(operator),
                    Identifier(child, column),
                    collation,
                )
            )
        if self.partitions:
            oid = Identifier(parent, "tableoid")
            conditions.append(
                SQL("{} = ANY ({}::oid[])").format(oid, Literal(list(self.partitions)))
            )
        return SQL("({})").format(SQL(" AND ").join(conditions))


# A key that a partition inherits counts as a key of the partitioned table.
_KEYS = f"""
WITH parents AS (
    SELECT to_regclass(%(parent)s)::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(parent)s))
), children AS (
    SELECT to_regclass(%(child)s)::oid AS oid
    UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(%(child)s))
)
SELECT n.nspname::text, c.relname::text,
       {COMPARISON_COLUMNS},
       array(SELECT k.confrelid UNION SELECT relid::oid FROM pg_partition_tree(k.confrelid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND k.confrelid IN (SELECT oid FROM parents) AND k.conrelid IN (SELECT oid FROM children)
ORDER BY 1, 2, k.conname
"""  # noqa: S608 - fixed text


def detached_fields(rules: Iterable[RetentionRule]) -> dict[str, tuple[str, ...]]:
    """Return the foreign key columns that retention.yaml sets to null before a deletion.

    Returns:
        Collection whose records are deleted -> columns that refer to this collection, as
        ``collection.field``.
    """
    detached: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        if rule.detach:
            detached[rule.collection] = (*detached.get(rule.collection, ()), *rule.detach)
    return detached


def detach(
    copy: psycopg.Connection[Any],
    table_name: TableName,
    fields: Sequence[str],
    table_names: Mapping[str, TableName],
    erased: Composable,
) -> None:
    """Set foreign key columns to null if they refer to records that are erased.

    Args:
        copy: the restored database.
        table_name: table of the erased records.
        fields: columns to set to null, as ``collection.field``.
        table_names: collection -> table.
        erased: FROM and WHERE clauses that select the erased records. The alias of their table is
            ``t``.

    Raises:
        psycopg.Error: a column does not accept null, or a trigger refuses the change.
    """
    for collection in dict.fromkeys(name.rpartition(".")[0] for name in fields):
        if collection not in table_names:
            continue
        names = {
            "parent": table_name.identifier.as_string(copy),
            "child": table_names[collection].identifier.as_string(copy),
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
