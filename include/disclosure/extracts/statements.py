"""Build the SQL statements of an extract.

All statements are complete: values are merged into them as literals, because COPY has no
parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal

from include.disclosure.extracts.model import ExtractColumn, ExtractSource
from include.services.database import PRINTING

# Type OIDs of PostgreSQL (pg_type.dat)
BOOLEAN, DATE, NUMERIC = 16, 1082, 1700
INTEGERS = (20, 21, 23, 26)  # int8, int2, int4, oid
FLOATS = (700, 701)  # float4, float8
TIMESTAMPS = (1114, 1184)  # without and with timezone
_TIMES, _TEXTS = (1083, 1266), (25, 1043)
_BYTEA, _INTERVAL, _UUID = 17, 1186, 2950
# Their text is never a formula of a user: numbers, times and hexadecimal digits.
_HARMLESS = {
    BOOLEAN,
    DATE,
    NUMERIC,
    *INTEGERS,
    *FLOATS,
    *TIMESTAMPS,
    *_TIMES,
    _BYTEA,
    _INTERVAL,
    _UUID,
}
FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"
"""First characters of a formula in a spreadsheet program (CWE-1236), with full-width ones, which
Excel reads as formulas in Chinese and Japanese."""
MARK = "'"  # before a text that could become a formula
_FIRST = SQL(", ").join(Literal(character) for character in FORMULA_STARTS + MARK)
_SET = "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s(name, value)"


@dataclass(frozen=True)
class QueryColumn:
    """A column of an extract with its data type.

    Attributes:
        column: name and title.
        oid: OID of the data type; for a domain, of its base type.
        scale: decimal places of a ``numeric`` type with a declared scale; otherwise None.
    """

    column: ExtractColumn
    oid: int
    scale: int | None


@dataclass(frozen=True)
class PreparedQuery:
    """A query that the server has checked.

    Attributes:
        connection: connection on which it was prepared.
        text: statement with its values merged into it.
        columns: columns in the order of the query.
    """

    connection: psycopg.Connection[Any]
    text: str
    columns: tuple[QueryColumn, ...]

    def copy_text(self, most_rows: int) -> bytes:
        """Return the COPY statement that sends rows in PostgreSQL's text format.

        Args:
            most_rows: largest number of rows to send.
        """
        return self._copy(self._names(), most_rows, "ENCODING 'UTF8'")

    def copy_csv(self, most_rows: int, *, is_guarded: bool) -> bytes:
        """Return the COPY statement that sends rows as CSV with a heading.

        Args:
            most_rows: largest number of rows to send.
            is_guarded: whether an apostrophe is put before each text that a spreadsheet program
                could read as a formula. A text that begins with an apostrophe gets one, too. So
                the original value is always the text without its first apostrophe.
        """
        columns = [_guarded(column) for column in self.columns] if is_guarded else self._names()
        return self._copy(columns, most_rows, "FORMAT csv, HEADER, ENCODING 'UTF8'")

    def _names(self) -> list[Composable]:
        return [Identifier(column.column.name) for column in self.columns]

    def _copy(self, columns: list[Composable], most_rows: int, options: str) -> bytes:
        # The line feed ends a comment at the end of the query.
        statement = SQL("COPY (SELECT {} FROM ({}\n) AS extract LIMIT {}) TO STDOUT ({})").format(
            SQL(", ").join(columns), SQL(self.text), Literal(most_rows), SQL(options)
        )
        return statement.as_bytes(self.connection)


def print_settings(connection: psycopg.Connection[Any], zone: str) -> datetime:
    """Set how the server prints values, until the end of the transaction or savepoint.

    Args:
        connection: connection with an open transaction.
        zone: IANA name of the timezone of all times.

    Returns:
        The start of the transaction.

    Raises:
        ValueError: the client encoding of the connection is not UTF-8.
    """
    if connection.info.encoding != "utf-8":
        raise ValueError(f"an extract needs a connection in UTF-8, not {connection.info.encoding}")
    settings = {**PRINTING, "TimeZone": zone}
    del settings["row_security"]  # the caller decides which rows the role may read
    connection.execute(_SET, [list(settings), list(settings.values())])
    row = connection.execute("SELECT transaction_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def prepare(connection: psycopg.Connection[Any], source: ExtractSource) -> PreparedQuery:
    """Let the server check the query of an extract, without reading rows.

    Raises:
        ValueError: the columns of the query differ from those of the source.
        psycopg.Error: the server refuses the query.
    """
    query = SQL("{}").format(source.query)
    text = psycopg.ClientCursor(connection).mogrify(query, dict(source.values))
    check = SQL("SELECT * FROM ({}\n) AS extract LIMIT 0").format(SQL(text))
    described = connection.execute(check.as_bytes(connection)).description or []
    names = [column.name for column in source.columns]
    if [column.name for column in described] != names or len(set(names)) < len(names):
        raise ValueError(
            f"the query returns the columns {', '.join(column.name for column in described)}, "
            f"but the extract has {', '.join(names)}"
        )
    columns = zip(source.columns, described, strict=True)
    return PreparedQuery(
        connection,
        text,
        tuple(QueryColumn(column, output.type_code, output.scale) for column, output in columns),
    )


def _guarded(column: QueryColumn) -> Composable:
    """Return the SQL expression of a column whose texts cannot become formulas."""
    name = Identifier(column.column.name)
    if column.oid in _HARMLESS:
        return name
    text: Composable = name
    if_null: Composable = SQL("")
    if column.oid not in _TEXTS:
        # concat() returns the text that COPY would send. A cast removes blanks of the type char.
        text = SQL("pg_catalog.concat({})").format(name)
        if_null = SQL(" WHEN {} IS NULL THEN NULL").format(name)
    # The collation of the column could ignore differences between characters.
    return SQL(
        'CASE{if_null} WHEN pg_catalog."left"({text}, 1) COLLATE "C" IN ({first})'
        " THEN pg_catalog.concat({mark}, {name}) ELSE {text} END AS {name}"
    ).format(if_null=if_null, name=name, text=text, first=_FIRST, mark=Literal(MARK))
