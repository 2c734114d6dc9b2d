"""Read the types of database columns, and build SQL for dates and times in a timezone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.sql import SQL

from include.policy.period import Period

# A domain counts as its base type.
_COLUMNS = """
WITH RECURSIVE base (attnum, attname, title, oid) AS (
    SELECT a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), a.atttypid
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attnum, b.attname, b.title, t.typbasetype
    FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd'
)
SELECT b.attname, b.title, format('%%I.%%I', n.nspname, t.typname),
       CASE WHEN t.typtype = 'e' THEN 'enum'
            WHEN t.typtype = 'b' AND (n.nspname = 'pg_catalog' OR t.typname = 'citext')
            THEN t.typname::text ELSE '' END, t.typcategory::text
FROM base b JOIN pg_type t ON t.oid = b.oid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype <> 'd' ORDER BY b.attnum
"""


class Kind(StrEnum):
    """The kinds of column types. Columns of the same kind are compared in the same way.

    They are compared with the values that expectations of the policy pack contain. Not all names
    are obvious: ``CASELESS`` is citext, ``EXACT`` is numeric, ``WORD`` are types such as uuid and
    inet, ``LOCAL`` is timestamp without timezone, and ``MOMENT`` is timestamp with timezone.
    """

    TEXT = "text"
    CASELESS = "caseless"
    INTEGER = "integer"
    EXACT = "exact"
    FLOAT = "float"
    MONEY = "money"
    BOOLEAN = "boolean"
    ENUM = "enum"
    WORD = "word"
    DAY = "day"
    LOCAL = "local"
    MOMENT = "moment"
    TIME = "time"
    INTERVAL = "interval"
    BYTES = "bytes"
    BITS = "bits"
    OTHER = "other"


_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "char"), Kind.TEXT),
    "citext": Kind.CASELESS,
    **dict.fromkeys(("int2", "int4", "int8", "oid"), Kind.INTEGER),
    "numeric": Kind.EXACT,
    **dict.fromkeys(("float4", "float8"), Kind.FLOAT),
    "money": Kind.MONEY,
    "bool": Kind.BOOLEAN,
    "enum": Kind.ENUM,
    **dict.fromkeys(("uuid", "inet", "cidr", "macaddr", "macaddr8"), Kind.WORD),
    "date": Kind.DAY,
    "timestamp": Kind.LOCAL,
    "timestamptz": Kind.MOMENT,
    "time": Kind.TIME,
    "interval": Kind.INTERVAL,
    "bytea": Kind.BYTES,
    **dict.fromkeys(("bit", "varbit"), Kind.BITS),
}
NUMBERS = frozenset({Kind.INTEGER, Kind.EXACT, Kind.FLOAT, Kind.MONEY})
CALENDAR = frozenset({Kind.DAY, Kind.LOCAL, Kind.MOMENT})
WRITTEN = frozenset(
    {Kind.TEXT, Kind.CASELESS, Kind.ENUM, Kind.WORD, Kind.INTEGER, Kind.EXACT, Kind.MONEY}
)
"""Groups of types whose values have one canonical text."""
RANGED = (
    NUMBERS | CALENDAR | {Kind.TEXT, Kind.CASELESS, Kind.ENUM, Kind.WORD, Kind.TIME, Kind.INTERVAL}
)


@dataclass(frozen=True)
class ColumnType:
    """The type of a column in the database.

    Attributes:
        title: type with which the column is declared, as PostgreSQL prints it.
        sql: name of the base type, with its schema and without a length, so that a cast to this
            type does not shorten the value.
        kind: kind of the type, which decides how values are compared.
        has_equality: whether PostgreSQL can compare values of the type for equality.
    """

    title: str
    sql: str
    kind: Kind
    has_equality: bool = True


def read_types(
    connection: psycopg.Connection[Any], schema: str, table: str
) -> dict[str, ColumnType]:
    """Return the types of a table's columns, by column name.

    Args:
        connection: connection to the mapped database, on which a transaction is open. No record is
            read.
        schema: PostgreSQL schema of the table.
        table: name of the table.
    """
    types = {}
    equality: dict[str, bool] = {}
    for column, title, sql, name, category in connection.execute(_COLUMNS, [schema, table]):
        kind = _KINDS.get(name, Kind.TEXT if category == "S" and not name else Kind.OTHER)
        types[column] = ColumnType(title, sql, kind)
    for column, column_type in types.items():
        if column_type.kind is Kind.OTHER:
            if column_type.sql not in equality:
                equality[column_type.sql] = _has_equality(connection, column_type.sql)
            types[column] = ColumnType(
                column_type.title, column_type.sql, column_type.kind, equality[column_type.sql]
            )
    return types


def _has_equality(connection: psycopg.Connection[Any], sql: str) -> bool:
    """Return whether PostgreSQL can compare values of a type for equality, as GROUP BY does.

    It is not sufficient that the type has an operator ``=``. For the type box, for example, this
    operator compares areas.

    Args:
        connection: connection on which a transaction is open.
        sql: name of the type with its schema.
    """
    # The catalogue quoted the name of the type.
    query = SQL("SELECT FROM (SELECT NULL::{} AS v) AS s GROUP BY v").format(SQL(sql))
    try:
        with connection.transaction():
            connection.execute(query)
    except psycopg.errors.UndefinedFunction:
        return False
    return True


def text_literal(text: str) -> str:
    """Return a text as an SQL literal.

    The literal is correct whether ``standard_conforming_strings`` is on or off.
    """
    quoted = text.replace("'", "''")
    if "\\" not in quoted:
        return f"'{quoted}'"
    escaped = quoted.replace("\\", "\\\\")
    return f"E'{escaped}'"


def in_zone(timestamp: str, timezone: str) -> str:
    """Return SQL that converts a timestamp between local time and absolute time.

    A timestamp without timezone is interpreted as local time of ``timezone``, and becomes a
    timestamp with timezone. A timestamp with timezone becomes the local time of ``timezone``.

    Args:
        timestamp: SQL expression of the timestamp.
        timezone: IANA name of the timezone.
    """
    return f"({timestamp} AT TIME ZONE {text_literal(timezone)})"


def local_form(column: str, kind: ColumnType, timezone: str, as_day: bool) -> str:
    """Return SQL that converts a column to a date or a timestamp in the local time of a timezone.

    Args:
        column: SQL expression of the column.
        kind: type of the column.
        timezone: IANA name of the policy pack's timezone.
        as_day: True if the result is a date, False if it is a timestamp without timezone.
    """
    local = in_zone(column, timezone) if kind.kind is Kind.MOMENT else column
    return f"{local}::date" if as_day else f"{local}::timestamp"


def before(
    now: datetime, period: Period, timezone: str, kind: Kind
) -> sa.ColumnElement[date] | sa.ColumnElement[datetime]:
    """Return SQL for the date or time that is `period` earlier than `now`.

    PostgreSQL computes the result once per query, with its own calendar.

    Args:
        now: time from which the period is subtracted.
        period: length of time to subtract. Its years, months, weeks and days are calendar units in
            the timezone. Its hours, minutes and seconds have a fixed length.
        timezone: IANA name of the timezone.
        kind: kind of the column type with which the result is compared. It decides whether the
            result is a date, a timestamp without timezone, or a timestamp with timezone.
    """
    days = sa.func.make_interval(0, period.months, 0, period.days)
    seconds = sa.func.make_interval(0, 0, 0, 0, 0, 0, period.seconds)
    local = sa.func.timezone(timezone, sa.cast(now, sa.DateTime(timezone=True))) - days
    moment = sa.func.timezone(timezone, local) - seconds
    if kind in (Kind.DAY, Kind.LOCAL):
        moment = sa.func.timezone(timezone, moment)
    type_ = sa.Date() if kind is Kind.DAY else sa.DateTime(timezone=kind is not Kind.LOCAL)
    return sa.select(sa.cast(moment, type_)).scalar_subquery()
