"""Where a collection's rows are in a database, and how the keys of its records are printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import psycopg
from psycopg import sql

from include.policy.datamap import MappedDatabase
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
    """Where a collection's rows are."""

    schema: str
    table: str

    @property
    def identifier(self) -> sql.Identifier:
        """The qualified name for a query."""
        return sql.Identifier(self.schema, self.table)


def places_of(database: MappedDatabase) -> dict[str, Place]:
    """Return where the data map says that each collection's rows are."""
    return {name: Place(one.schema_name, one.table) for name, one in database.collections.items()}


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
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone()
    if row is None or not row[0]:
        return None
    return [column for (column,) in connection.execute(PRIMARY_KEY, [name])]


def types_of_key(connection: psycopg.Connection, place: Place) -> str | None:
    """Return the types of a table's primary key in order; None where there is none.

    Types that print a value alike count as one: a key that grew from integer to bigint names its
    records as before. So does one whose column was renamed.
    """
    row = connection.execute(TYPES_OF_KEY, [place.identifier.as_string(connection)]).fetchone()
    return None if row is None else row[0]


def types_of_columns(
    connection: psycopg.Connection, place: Place, columns: Sequence[str]
) -> str | None:
    """Return the types of columns as `types_of_key` does; None where one is not in the table."""
    parameters = {"columns": list(columns), "name": place.identifier.as_string(connection)}
    row = connection.execute(_TYPES_OF_COLUMNS, parameters).fetchone()
    return None if row is None else row[0]


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


def key_texts(columns: Sequence[str]) -> sql.Composed:
    """Return the columns of a key as texts, for a query over records of alias ``t``.

    They name a record only in a session that did `PRINTING`.
    """
    return sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier("t", one)) for one in columns
    )
