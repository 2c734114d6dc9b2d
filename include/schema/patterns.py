"""Count, inside PostgreSQL, the values of each column that look like personal data.

Only counts leave the database. A statement reads a sample of the rows, turns up to `GROUP` of the
columns into rows of (column, value), and applies each pattern once to these rows. Thus the memory
of a statement does not grow with the number of columns. At most `LONGEST` characters of a value are
read, so that PostgreSQL fetches only the beginning of a long text.

For JSON columns, the keys of the first level are counted as well. A key may itself be personal
data, such as a phone number. Therefore a key is named only if many rows have it and it looks like
an identifier in a program.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from include.schema.live import LiveColumn, LiveTable
from include.schema.pattern_sql import PLAIN, tests

SAMPLE = 5_000  # maximum number of rows to read of a table
MOST_VALUES = 400_000  # maximum number of values to read of a table; limits the rows of wide tables
JSON_SAMPLE = 1_000  # maximum number of rows whose JSON is read
LONGEST = 200  # characters of a value
LONGEST_JSON = 32_768  # bytes of a stored, possibly compressed JSON value
GROUP = 16  # columns in one statement
TIMEOUT = 60.0  # seconds for all statements about a table
LOCK_TIMEOUT = "5s"
WORK_MEM = "4MB"
MOST_KEYS = 60
JSON = {"json", "jsonb"}
_TEXT = {"text", "varchar", "bpchar", "citext", "name"}
_NUMBERS = {"int8", "numeric", "int4"}
_DATES = {"date", "timestamp", "timestamptz"}
_NETWORKS = {"inet", "cidr"}
_SETTINGS = """
SELECT set_config('statement_timeout', {timeout}, true),
       set_config('lock_timeout', {lock}, true),
       set_config('work_mem', {memory}, true),
       set_config('max_parallel_workers_per_gather', '0', true),
       set_config('standard_conforming_strings', 'on', true),
       set_config('jit', 'off', true)
"""
# A column is a row of the lateral VALUES. OFFSET 0 separates the steps: each value is cut once, and
# the sort for the distinct count contains only hashes and pattern results.
_COUNT = """
SELECT n, count(*), count(h), count(DISTINCT h), {totals}
FROM (SELECT n, {hash} AS h, {answers}
      FROM (SELECT x.n, x.v, {plain} AS plain
            FROM {sample} s CROSS JOIN LATERAL (VALUES {values}) AS x(n, v) OFFSET 0) prepared
      OFFSET 0) tested
GROUP BY n
"""
_KEYS = """
WITH s AS MATERIALIZED (
    SELECT CASE WHEN jsonb_typeof(v) = 'object' THEN v ELSE '{{}}' END AS v
    FROM (SELECT CASE WHEN pg_column_size({column}) <= {longest} THEN {column}::jsonb END AS v
          FROM {sample} s WHERE {column} IS NOT NULL OFFSET 0) read
)
SELECT key FROM s, LATERAL jsonb_object_keys(v) AS names(key)
GROUP BY key
HAVING count(*) >= 2 AND count(*) * 20 >= (SELECT count(*) FROM s)
   AND key ~ '^[[:alpha:]_][[:alnum:]_ .-]{{0,39}}$' AND key !~ '[0-9]{{4}}'
ORDER BY count(*) DESC, key LIMIT {most}
"""
# These errors concern the whole table, so other columns would fail too: connections (08), resources
# (53), object state and locks (55), cancelled statements (57), foreign data wrappers (HV).
_OF_THE_TABLE = ("08", "53", "55", "57", "HV")
NO_RIGHT = "42501"
_TOO_LONG = "57014"


@dataclass(frozen=True)
class Counts:
    """The number of values of one column, in total and for each pattern of personal data.

    Attributes:
        filled: number of values that are neither null nor blank.
        rows: number of rows that were read.
        distinct: number of different values.
        like: name of a pattern -> number of values that match the pattern.
    """

    filled: int = 0
    rows: int = 0
    distinct: int = 0
    like: Mapping[str, int] = field(default_factory=dict)

    def share(self, *patterns: str) -> float:
        """Return the proportion of filled values that match a pattern, from 0 to 1.

        If several patterns are given, return the highest proportion.
        """
        if not self.filled:
            return 0.0
        return max(self.like.get(pattern, 0) for pattern in patterns) / self.filled


@dataclass(frozen=True)
class TableCounts:
    """The counts of a table's columns, and of the keys inside its JSON columns.

    Attributes:
        columns: column -> counts; a column that was not read is missing.
        keys: JSON column -> key -> counts of the key's values.
        refused: SQLSTATE of the error after which no further columns of the table were read; empty
            if there was no such error.
        unread: column that could not be read -> SQLSTATE of the error.
        is_sampled: whether the rows that were read are a sample from the whole table. Otherwise
            they are the first rows of the table.
        most: maximum number of rows to read, which depends on the number of columns; 0 if no row is
            read.
    """

    columns: Mapping[str, Counts] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, Counts]] = field(default_factory=dict)
    refused: str = ""
    unread: Mapping[str, str] = field(default_factory=dict)
    is_sampled: bool = False
    most: int = 0

    @property
    def rows(self) -> int:
        """Return the number of rows of the table that were read."""
        return max((counts.rows for counts in self.columns.values()), default=0)


def count_patterns(connection: psycopg.Connection[Any], table: LiveTable) -> TableCounts:
    """Count how many values of each column of a table match each pattern of personal data.

    Each statement has its own transaction (or savepoint), with limits of time and memory. If a
    single column cannot be read, its SQLSTATE is stored in ``unread``. If the table cannot be read,
    the SQLSTATE is stored in ``refused``. The text of PostgreSQL's errors is not used, because it
    quotes values.

    Args:
        connection: read-only connection to the database.
        table: the table to read.

    Raises:
        psycopg.Error: the connection is lost.
    """
    reader = _Reader(connection, table)
    try:
        reader.read()
    except _GiveUp as error:
        reader.refused = error.code
    if not reader.columns and not reader.refused and reader.unread:
        reader.refused = next(iter(reader.unread.values()))
    return TableCounts(
        columns=reader.columns,
        keys=reader.keys,
        refused=reader.refused,
        unread=reader.unread,
        is_sampled=bool(reader.sampled),
        most=reader.most,
    )


class _GiveUp(Exception):
    """Raised if the remaining columns of a table cannot be read, for example for lack of time."""

    def __init__(self, code: str) -> None:
        self.code = code


class _Value(NamedTuple):
    """A column, or a key of a JSON column, whose values are counted by pattern.

    Attributes:
        name: name of the column or of the key.
        column: name of the column; for a key, the JSON column that contains it.
        expression: SQL expression of the value. The table has the alias ``s``.
    """

    name: str
    column: str
    expression: sql.Composable


class _Reader:
    """Counts the values of one table by pattern, within a time limit."""

    def __init__(self, connection: psycopg.Connection[Any], table: LiveTable) -> None:
        self.connection, self.table = connection, table
        self.has_unicode = connection.info.parameter_status("server_encoding") == "UTF8"
        self.deadline = time.monotonic() + TIMEOUT
        self.most = max(1, min(SAMPLE, MOST_VALUES // max(1, len(table.columns))))
        self.sampled = _sample_clause(table, self.most)
        self.columns: dict[str, Counts] = {}
        self.keys: dict[str, dict[str, Counts]] = {}
        self.unread: dict[str, str] = {}
        self.refused = ""

    def read(self) -> None:
        """Count the values of all columns, a limited number of columns at a time.

        Raises:
            _GiveUp: an error concerns the whole table, or the time limit is reached.
        """
        by_form: dict[str, list[_Value]] = {"text": [], "date": [], "json": []}
        for column in self.table.columns.values():
            if (form := _form(column)) is not None:
                by_form[form].append(_Value(column.name, column.name, _expression(column)))
        for form in ("text", "date", "json"):
            for group in _groups(by_form[form]):
                self._group(form, group)
        documents = [value for value in by_form["json"] if value.column not in self.unread]
        for value in documents:
            # Each of the columns may have `MOST_KEYS` keys, and each key is a value to read.
            most = max(1, min(self.most, JSON_SAMPLE, MOST_VALUES // (len(documents) * MOST_KEYS)))
            self._json(value, most)

    def _group(self, form: str, group: Sequence[_Value]) -> None:
        try:
            counts = self._count(form, group)
            if self.table.rows and self.sampled and not any(read.rows for read in counts.values()):
                self.sampled = ""  # the row estimate was outdated
                counts = self._count(form, group)
        except psycopg.Error as error:
            code = self._code(error)
        else:
            self.columns |= counts
            return
        if len(group) == 1:
            self.unread[group[0].column] = code
            return
        for value in group:  # read each column alone to find those that cannot be read
            self._group(form, [value])
        codes = {self.unread.get(value.column) for value in group}
        if codes == {NO_RIGHT} and not self.columns:
            raise _GiveUp(NO_RIGHT)

    def _json(self, value: _Value, most: int) -> None:
        """Count the first-level keys of a JSON column, and the values of these keys by pattern.

        Args:
            value: the JSON column.
            most: largest number of rows to read.
        """
        source = self._sample([value.column], most)
        query = sql.SQL(_KEYS).format(
            sample=source,
            column=sql.Identifier("s", value.column),
            longest=sql.Literal(LONGEST_JSON),
            most=sql.Literal(MOST_KEYS),
        )
        try:
            names = [row[0] for row in self._rows(query)]
            document = sql.SQL("(CASE WHEN pg_column_size({0}) <= {1} THEN {0}::jsonb END)").format(
                sql.Identifier("s", value.column), sql.Literal(LONGEST_JSON)
            )
            counts: dict[str, Counts] = {}
            keys = [
                _Value(name, value.column, _cut(sql.SQL("{} ->> {}").format(document, name)))
                for name in names
            ]
            for group in _groups(keys):
                counts |= self._count("text", group, most)
            if counts:
                self.keys[value.column] = counts
        except psycopg.Error as error:
            self.unread[value.column] = self._code(error)

    def _count(self, form: str, group: Sequence[_Value], most: int = 0) -> dict[str, Counts]:
        patterns = {} if form == "json" else tests(form, has_unicode=self.has_unicode)
        # Patterns are not applied to whole JSON values.
        answers: list[sql.Composable] = [sql.SQL("NULL")]
        totals: list[sql.Composable] = [sql.SQL("NULL")]
        for name, test in patterns.items():
            answer = sql.Identifier(f"is_{name}")
            answers.append(sql.SQL("({}) AS {}").format(sql.SQL(test), answer))
            totals.append(sql.SQL("count(*) FILTER (WHERE {})").format(answer))
        values = [
            sql.SQL("({}, {})").format(sql.Literal(number), value.expression)
            for number, value in enumerate(group)
        ]
        query = sql.SQL(_COUNT).format(
            hash=sql.SQL("hashtext(v)" if form == "text" else "v"),
            plain=sql.SQL(PLAIN if form == "text" else "NULL"),
            answers=sql.SQL(", ").join(answers),
            totals=sql.SQL(", ").join(totals),
            values=sql.SQL(", ").join(values),
            sample=self._sample([value.column for value in group], most or self.most),
        )
        counts = {value.name: Counts() for value in group}
        for number, read, filled, distinct, _no_pattern, *like in self._rows(query):
            counts[group[number].name] = Counts(
                filled, read, distinct, dict(zip(patterns, like, strict=True))
            )
        return counts

    def _sample(self, columns: Sequence[str], rows: int) -> sql.Composed:
        return sql.SQL("(SELECT {} FROM {} {} LIMIT {})").format(
            sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys(columns))),
            sql.Identifier(self.table.schema, self.table.name),
            sql.SQL(self.sampled),
            sql.Literal(rows),
        )

    def _rows(self, query: sql.Composed) -> list[tuple[Any, ...]]:
        """Execute a statement within the time limit, and return the rows of its result.

        psycopg would treat ``%`` in the name of a column as a placeholder. Therefore the statement
        is executed without parameters.
        """
        left = int((self.deadline - time.monotonic()) * 1000)
        if left <= 0:
            raise _GiveUp(_TOO_LONG)
        with self.connection.transaction():
            limits = sql.SQL(_SETTINGS).format(
                timeout=f"{left}ms", lock=LOCK_TIMEOUT, memory=WORK_MEM
            )
            self.connection.execute(limits)
            return self.connection.execute(query).fetchall()

    def _code(self, error: psycopg.Error) -> str:
        """Return the SQLSTATE of an error that concerns only the columns that the statement reads.

        Raises:
            psycopg.Error: the connection is lost.
            _GiveUp: the error concerns the whole table.
        """
        if self.connection.closed or self.connection.broken or error.sqlstate is None:
            raise error
        if error.sqlstate.startswith(_OF_THE_TABLE):
            raise _GiveUp(error.sqlstate) from None
        return error.sqlstate


def _groups(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    return (values[at : at + GROUP] for at in range(0, len(values), GROUP))


def _sample_clause(table: LiveTable, rows: int) -> str:
    """Return a TABLESAMPLE clause; an empty text if the rows can be read without a sample.

    Args:
        table: the table.
        rows: number of rows to read. A sample is used if the table has more than four times this
            number of rows.
    """
    if table.kind not in ("table", "partitioned", "materialized_view") or not table.rows:
        return ""
    if table.rows <= 4 * rows:
        return ""
    # REPEATABLE selects the same pages for each group. 20% more, as pages are not equally full.
    return f"TABLESAMPLE SYSTEM ({120.0 * rows / table.rows:.6f}) REPEATABLE (1)"


def _form(column: LiveColumn) -> str | None:
    if column.is_array:
        return "text" if column.base in _TEXT else None
    if column.base in _TEXT | _NUMBERS | _NETWORKS or column.form == "e":
        return "text"
    if column.base in _DATES:
        return "date"
    return "json" if column.base in JSON else None


def _expression(column: LiveColumn) -> sql.Composable:
    """Return the SQL expression that reads the values of a column for the pattern counts.

    The expression returns text or a date. For an array, it returns the first item. For JSON, it
    returns 1, because only the number of values is counted.
    """
    name: sql.Composable = sql.Identifier("s", column.name)
    if column.is_array:
        name = sql.SQL("({0})[array_lower({0}, 1)]").format(name)
    if column.base in JSON:
        return sql.SQL("CASE WHEN {} IS NOT NULL THEN 1 END").format(name)
    if column.base in _DATES:
        return sql.SQL("{}::date").format(name)
    return _cut(sql.SQL("host({})" if column.base in _NETWORKS else "{}::text").format(name))


def _cut(text: sql.Composable) -> sql.Composable:
    """Return SQL that trims a text and keeps its first `LONGEST` characters.

    The value of a blank text is null.
    """
    return sql.SQL("nullif(btrim(left({}, {})) COLLATE \"C\", '')").format(
        text, sql.Literal(LONGEST)
    )


TEXT = {"text", "varchar", "bpchar", "citext", "name", "hstore", "xml", *JSON}
NUMBERS = {"int2", "int4", "int8", "numeric", "float4", "float8", "money"}
DATES = {"date", "timestamp", "timestamptz"}
PERIODS = {f"{kind}{form}" for kind in ("ts", "tstz", "date") for form in ("range", "multirange")}
NETWORKS = {"inet", "cidr"}
DEVICES = {"macaddr", "macaddr8"}
PLACES = {"point", "path", "geometry", "geography"}
BYTES = {"bytea", "oid"}
BOOLS = {"bool"}
# Column types that can hold a category, for categories that are not only text.
HOLDERS: dict[str, set[str]] = {
    "user.demographic.date_of_birth": TEXT | DATES | {"int2", "int4"},
    "user.demographic.age_range": TEXT | NUMBERS,
    "user.demographic.marital_status": TEXT | BOOLS | {"int2", "int4"},
    "user.demographic.gender": TEXT | BOOLS | {"int2", "int4", "char"},
    "user.financial": TEXT | NUMBERS,
    "user.financial.bank_account": TEXT | NUMBERS,
    "user.financial.credit_card": TEXT | NUMBERS,
    "user.location.precise": TEXT | NUMBERS | PLACES,
    "user.content.self_image": TEXT | BYTES,
    "user.biometric": TEXT | BYTES,
    "user.authorization.password": TEXT | BYTES,
    "user.device.ip_address": TEXT | NETWORKS,
    "user.device.device_id": TEXT | DEVICES | {"uuid", "int8"},
    "user.device.cookie_id": TEXT | {"uuid"},
    "user.health_and_medical": TEXT | NUMBERS | BOOLS,
    "user.privacy_preferences": TEXT | DATES | BOOLS,
    "user.account.settings": TEXT | BOOLS,
    "user.demographic": TEXT | {"int2", "int4"},
    "user.demographic.race_ethnicity": TEXT | {"int2", "int4"},
    "user.demographic.religious_belief": TEXT | BOOLS | {"int2", "int4"},
    "user.demographic.political_opinion": TEXT | BOOLS | {"int2", "int4"},
    "user.content.private": TEXT | BYTES,
    "user.name.first": TEXT,
    "user.name.last": TEXT,
    "user.name": TEXT,
}
TEXT_OR_NUMBER = TEXT | {"int4", "int8", "numeric"}
# Patterns that confirm a category by its values.
EXPECTED: dict[str, tuple[str, ...]] = {
    "user.contact.phone_number": ("mobile", "phone", "digits"),
    "user.contact.fax_number": ("phone", "digits"),
    "user.contact.email": ("email",),
    "user.demographic.date_of_birth": ("birth_date",),
    "user.financial.credit_card": ("card",),
    "user.device.ip_address": ("ip",),
}
# Categories that identify a person in any table except tables of things and companies.
REACHES = {
    "user.contact.email", "user.contact.phone_number", "user.device.ip_address",
    "user.financial.bank_account",
}  # fmt: skip
