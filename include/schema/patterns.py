"""How many values of each column look like personal data, counted inside PostgreSQL.

Only counts leave the database. Each table is asked once, on a sample where it is large; its values
are looked at up to 200 characters. Of JSON columns the keys of the first level are counted too, and
only keys that many rows have and that read like a program's: a key may be a value (a phone number).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql

from include.schema.live import LiveColumn, LiveTable
from include.schema.people_names import DOUBLE_SURNAMES, GIVEN_NAMES, SURNAMES

SAMPLE = 5_000  # rows of a table that are looked at
LONGEST = 200  # characters of a value
TIMEOUT = "60s"
MOST_KEYS = 60
_TEXT = {"text", "varchar", "bpchar", "citext", "name"}
_NUMBERS = {"int8", "numeric", "int4"}
_DATES = {"date", "timestamp", "timestamptz"}
JSON = {"json", "jsonb"}

_HAN = r"[\u4e00-\u9fff]"
_MOBILE = r"^(\+?86|0086)?1[3-9][0-9]{9}$"
_CHINESE_ADDRESS = (
    r"(省|市|区|县|镇|乡|村|街道).*(路|街|巷|道|号|栋|幢|楼|室|弄|组)|(路|街|巷|道|胡同"
    r"|弄).{0,6}[0-9]+.{0,2}号"
    r"|[0-9]+号.*(楼|单元|室|栋)"
)
_LATIN_ADDRESS = (
    r"^[0-9]+[a-z]?,? +[[:alpha:]0-9.'' -]+ (st|street|ave|avenue|rd|road|blvd|lane|ln|drive"
    r"|dr|way|"
    r"court|ct|place|pl|square|sq|terrace|pkwy|circle|hwy|nw|sw|ne|se)\M|(stra(ß|ss)e|str\."
    r"|weg|platz|"
    r"gasse|allee|plein|laan|straat|gade|vej) *[0-9]+|^(rua|av\.?|avenida|rue|via|calle|ul\.?|"
    r"[0-9]+,? rue) .*[0-9]|p\.? ?o\.? box"
)
_LATIN_NAME = (
    r"^[[:upper:]][[:alpha:]''’-]+( [[:upper:]]\.?)?( (de|da|van|von|der|del|la))*"
    r"( [[:upper:]][[:alpha:]''’.-]+){1,2}$"
)
# Weights and check characters of GB 11643-1999 (ISO 7064 MOD 11-2).
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECK = "+".join(f"substr(v,{n},1)::int*{weight}" for n, weight in enumerate(_WEIGHTS, 1))
# {plain} is the value without spaces, hyphens, dots and brackets.
_TESTS = {
    "mobile": f"plain ~ '{_MOBILE}'",
    "phone": r"plain ~ '^\+?[0-9]{7,15}$' AND v ~ '^\+|[0-9)][ .-]+[0-9]'"
    r" AND v !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}' AND v !~ '^[0-9]+\.[0-9]+$'"
    r" AND v !~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$' AND v !~ '^([0-9]{4}[ -]){3}'",
    "digits": r"plain ~ '^\+?[0-9]{7,15}$'",
    "resident_id": "CASE WHEN v ~ '^[1-9][0-9]{5}(18|19|20)[0-9]{9}[0-9Xx]$' THEN "
    f"substr('10X98765432', ({_ID_CHECK}) %% 11 + 1, 1) = upper(substr(v, 18, 1)) ELSE false END",
    "email": r"v ~ '^[^@[:space:]]+@[^@[:space:]]+\.[[:alpha:]]{2,}$'",
    "ssn": "v ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'",
    "card": "CASE WHEN plain ~ '^[2-6][0-9]{12,18}$' THEN (SELECT sum(CASE WHEN (length(plain) - n)"
    " %% 2 = 1 THEN d * 2 - CASE WHEN d > 4 THEN 9 ELSE 0 END ELSE d END) %% 10 = 0 FROM (SELECT n,"
    " substr(plain, n, 1)::int AS d FROM generate_series(1, length(plain)) n) one) ELSE false END",
    "ip": r"v ~ '^([0-9]{1,3}\.){3}[0-9]{1,3}(/32)?$'",
    "chinese_name": f"v ~ '^([{SURNAMES}]{_HAN}{{1,2}}|({DOUBLE_SURNAMES}){_HAN}{{1,2}})$'",
    "latin_name": f"v ~ '{_LATIN_NAME}'",
    "given_name": "split_part(lower(v), ' ', 1) = ANY (%(given)s)",
    "address": f"v ~* '{_CHINESE_ADDRESS}' OR v ~* '{_LATIN_ADDRESS}'",
    "birth_date": r"v ~ '^(19|20)[0-9]{2}[-/.]?[01][0-9][-/.]?[0-3][0-9]'",
}
_DATE_TESTS = {"birth_date": "v BETWEEN '1900-01-01' AND current_date - 3650"}
_KEYS = """
SELECT key, count(*) AS rows FROM {sample} s, LATERAL jsonb_each(
    CASE WHEN jsonb_typeof({column}::jsonb) = 'object' THEN {column}::jsonb ELSE '{{}}' END) AS one
GROUP BY key
HAVING count(*) >= 2 AND count(*) * 20 >= (
       SELECT count(*) FROM {sample} s WHERE {column} IS NOT NULL)
   AND key ~ '^[[:alpha:]_][[:alnum:]_ .-]{{0,39}}$' AND key !~ '[0-9]{{4}}'
ORDER BY count(*) DESC, key LIMIT %(most)s
"""


@dataclass(frozen=True)
class Counts:
    """What the values of one column look like; counts only.

    Attributes:
        filled: values looked at: not null, not blank.
        rows: rows looked at.
        distinct: different values among them.
        like: pattern -> values that fit it.
    """

    filled: int = 0
    rows: int = 0
    distinct: int = 0
    like: Mapping[str, int] = field(default_factory=dict)

    def share(self, *patterns: str) -> float:
        """Share of the filled values that fit a pattern: the highest of those named, 0 to 1."""
        if not self.filled:
            return 0.0
        return max(self.like.get(one, 0) for one in patterns) / self.filled


@dataclass(frozen=True)
class TableCounts:
    """Counts of a table's columns, and of the keys inside its JSON columns."""

    columns: Mapping[str, Counts] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, Counts]] = field(default_factory=dict)
    refused: str = ""


def count_patterns(connection: psycopg.Connection[Any], table: LiveTable) -> TableCounts:
    """Count in one query what a table's values look like.

    Give a read-only connection. A table that may not be read, or that takes too long, is left
    to its names; ``refused`` says why, by PostgreSQL's code (the text of its errors quotes values).

    Args:
        connection: to the database.
        table: what to look at.
    """
    if not any(_form(one) for one in table.columns.values()):
        return TableCounts()
    try:
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(TIMEOUT))
            sampled = sql.SQL(_sample_clause(table))
            counts = _columns(connection, table, sampled)
            if table.rows and sampled.as_string() and not any(c.rows for c in counts.values()):
                sampled = sql.SQL("")
                counts = _columns(connection, table, sampled)
            return TableCounts(counts, _json_keys(connection, table, sampled))
    except (errors.OperationalError, errors.ProgrammingError, errors.DataError) as error:
        if connection.closed or error.sqlstate is None:
            raise
        return TableCounts(refused=error.sqlstate or "unknown")


def _sample_clause(table: LiveTable) -> str:
    """Pages from all over a large table; views and foreign tables have none to choose from."""
    if table.kind not in ("table", "partitioned", "materialized_view") or not table.rows:
        return ""
    if table.rows <= 4 * SAMPLE:
        return ""
    return f"TABLESAMPLE SYSTEM ({min(100.0, 300.0 * SAMPLE / table.rows):.6f})"


def _form(column: LiveColumn) -> str | None:
    if column.is_array:
        return None
    if column.base in _TEXT | _NUMBERS or column.form == "e":
        return "text"
    if column.base in _DATES:
        return "date"
    return "json" if column.base in JSON else None


def _sample(table: LiveTable, sampled: sql.SQL) -> sql.Composed:
    return sql.SQL("(SELECT * FROM {} {} LIMIT {})").format(
        sql.Identifier(table.schema, table.name), sampled, sql.Literal(SAMPLE)
    )


def _columns(
    connection: psycopg.Connection[Any], table: LiveTable, sampled: sql.SQL
) -> dict[str, Counts]:
    asked = [one for one in table.columns.values() if _form(one)]
    sources = [
        _laterals(n, _form(one) or "", sql.Identifier("s", one.name)) for n, one in enumerate(asked)
    ]
    outputs = [_counted(n, _form(one) or "") for n, one in enumerate(asked)]
    query = sql.SQL("SELECT count(*), {} FROM {} s {}").format(
        sql.SQL(", ").join(outputs), _sample(table, sampled), sql.SQL(" ").join(sources)
    )
    row = connection.execute(query, {"given": sorted(GIVEN_NAMES)}).fetchone()
    assert row is not None
    return {one.name: _read(row[0], row[n + 1]) for n, one in enumerate(asked)}


def _laterals(number: int, form: str, value: sql.Composable) -> sql.Composed:
    """A value as ``v``, trimmed and cut, null where it is blank, and what each pattern says."""
    if form == "date":
        inner = sql.SQL("SELECT {}::date AS v").format(value)
    else:
        inner = sql.SQL(
            "SELECT v, regexp_replace(v, '[-[:space:].()]', '', 'g') AS plain FROM "
            "(SELECT nullif(btrim(left({}::text, {})), '') AS v OFFSET 0) cut OFFSET 0"
        ).format(value, sql.Literal(LONGEST))
    tests = [
        sql.SQL(", {} AS {}").format(sql.SQL(test), sql.Identifier(name))
        for name, test in _tests(form).items()
    ]
    return sql.SQL("CROSS JOIN LATERAL (SELECT v{} FROM ({}) value) {}").format(
        sql.SQL("").join(tests), inner, sql.Identifier(f"c{number}")
    )


def _counted(number: int, form: str) -> sql.Composed:
    """An array: filled, distinct, and one count for each pattern in its order."""
    name = f"c{number}"
    parts = [sql.SQL("count({0}), count(DISTINCT {0})").format(sql.Identifier(name, "v"))]
    parts += [
        sql.SQL("count(*) FILTER (WHERE {})").format(sql.Identifier(name, test))
        for test in _tests(form)
    ]
    return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(parts))


def _tests(form: str) -> dict[str, str]:
    return {"text": _TESTS, "date": _DATE_TESTS}.get(form, {})


def _read(rows: int, counted: Sequence[int]) -> Counts:
    filled, distinct, *like = counted
    names = list(_TESTS) if len(like) == len(_TESTS) else list(_DATE_TESTS)
    return Counts(filled, rows, distinct, dict(zip(names, like, strict=False)))


def _json_keys(
    connection: psycopg.Connection[Any], table: LiveTable, sampled: sql.SQL
) -> dict[str, dict[str, Counts]]:
    found: dict[str, dict[str, Counts]] = {}
    for column in table.columns.values():
        if _form(column) != "json":
            continue
        source, value = _sample(table, sampled), sql.Identifier("s", column.name)
        query = sql.SQL(_KEYS).format(sample=source, column=value)
        keys = [row[0] for row in connection.execute(query, {"most": MOST_KEYS})]
        if not keys:
            continue
        laterals = [
            _laterals(n, "text", sql.SQL("({}::jsonb ->> {})").format(value, sql.Literal(key)))
            for n, key in enumerate(keys)
        ]
        outputs = [_counted(n, "text") for n in range(len(keys))]
        query = sql.SQL("SELECT count(*), {} FROM {} s {}").format(
            sql.SQL(", ").join(outputs), source, sql.SQL(" ").join(laterals)
        )
        row = connection.execute(query, {"given": sorted(GIVEN_NAMES)}).fetchone()
        assert row is not None
        found[column.name] = {key: _read(row[0], row[n + 1]) for n, key in enumerate(keys)}
    return found
