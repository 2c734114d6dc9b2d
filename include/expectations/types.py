"""Types of columns in the live database, and days and moments in the pack's timezone, as SQL."""

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
    """How values of a type are compared with arguments of a policy pack."""

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
"""Kinds whose values have one canonical text."""
RANGED = (
    NUMBERS | CALENDAR | {Kind.TEXT, Kind.CASELESS, Kind.ENUM, Kind.WORD, Kind.TIME, Kind.INTERVAL}
)


@dataclass(frozen=True)
class ColumnType:
    """The type of a column.

    Attributes:
        title: the declared type, as PostgreSQL prints it.
        sql: qualified name of the base type without a length, so that a cast to it cuts nothing.
        kind: how its values are compared.
        has_equality: whether PostgreSQL can compare its values for equality.
    """

    title: str
    sql: str
    kind: Kind
    has_equality: bool = True


def read_types(
    connection: psycopg.Connection[Any], schema: str, table: str
) -> dict[str, ColumnType]:
    """Return the types of a table's columns, by column.

    Args:
        connection: to the mapped database, in a transaction; no row is read.
        schema: PostgreSQL schema.
        table: in it.
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
    """Return whether PostgreSQL can group by a type.

    An operator ``=`` alone proves no equality: for boxes it compares areas.
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
    """Return a text as an SQL literal, independent of ``standard_conforming_strings``."""
    quoted = text.replace("'", "''")
    if "\\" not in quoted:
        return f"'{quoted}'"
    escaped = quoted.replace("\\", "\\\\")
    return f"E'{escaped}'"


def in_zone(timestamp: str, timezone: str) -> str:
    """Return a local timestamp as the moment that it is in a timezone, or a moment as a local one.

    Args:
        timestamp: as SQL.
        timezone: IANA name.
    """
    return f"({timestamp} AT TIME ZONE {text_literal(timezone)})"


def local_form(column: str, kind: ColumnType, timezone: str, as_day: bool) -> str:
    """Return a day or moment as a local one: a date, or a timestamp without timezone.

    Args:
        column: as SQL.
        kind: of the column.
        timezone: IANA name of the pack's timezone.
        as_day: whether a date is wanted.
    """
    local = in_zone(column, timezone) if kind.kind is Kind.MOMENT else column
    return f"{local}::date" if as_day else f"{local}::timestamp"


def before(
    now: datetime, period: Period, timezone: str, kind: Kind
) -> sa.ColumnElement[date] | sa.ColumnElement[datetime]:
    """Return the day or moment that lies a period before another moment.

    PostgreSQL counts back once, not for every record, and in its own calendar.

    Args:
        now: the moment.
        period: years to days are counted in the timezone, hours to seconds are of equal length.
        timezone: IANA name.
        kind: of the column that is compared: a day, a local timestamp or a moment.
    """
    days = sa.func.make_interval(0, period.months, 0, period.days)
    seconds = sa.func.make_interval(0, 0, 0, 0, 0, 0, period.seconds)
    local = sa.func.timezone(timezone, sa.cast(now, sa.DateTime(timezone=True))) - days
    moment = sa.func.timezone(timezone, local) - seconds
    if kind in (Kind.DAY, Kind.LOCAL):
        moment = sa.func.timezone(timezone, moment)
    type_ = sa.Date() if kind is Kind.DAY else sa.DateTime(timezone=kind is not Kind.LOCAL)
    return sa.select(sa.cast(moment, type_)).scalar_subquery()
