"""Keys inside JSON columns that nobody declared: what is collected outside every purpose.

PIPL (2021-11-01) article 6: collection is limited to the least that the purpose needs. A data map
that names the keys of a JSON column says what is collected there, so that any other key is as much
a finding as a column that the map lacks. A column that is mapped without keys is declared as a
whole, and nothing is said of what is in it.

Keys are counted inside PostgreSQL and no value is asked for. A key may itself be a value, though
(an object by phone number): one is named only when it looks like a programmer's identifier and
many records have it; of the others only the count leaves the database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.evidence.model import Finding, attention_finding, failure_finding
from include.messages import _
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.schema.live import LiveSchema

CLAUSE = "4.1"
MOST_NAMED = 20  # keys that one sentence names
LEAST_RECORDS = 10  # that have a key before it is named
LEAST_SHARE = 0.01  # of the column's objects, likewise
# Short, ASCII, snake or camel case, and no run of digits that could be somebody's number
IDENTIFIER = r"^(?!.*[0-9]{4})[A-Za-z_][A-Za-z0-9_]{0,39}$"
_JSON = {"json", "jsonb"}

# An object that has no other keys at the place, or not the place: nearly all are. Asked first and
# for all of them, since PostgreSQL's parallel workers can do that.
_PLAIN = """CASE WHEN jsonb_typeof({value}) = 'object'
    THEN {value} - {declared}::text[] = '{{}}' ELSE false END"""
_PLAIN_BELOW = """CASE
    WHEN jsonb_typeof({value}) = 'object' AND NOT {value} ? ({place}::text[])[1] THEN true
    WHEN jsonb_typeof({value} #> {place}::text[]) = 'object'
    THEN ({value} #> {place}::text[]) - {declared}::text[] = '{{}}' ELSE false END"""
_OTHERS = """
SELECT count(*) FILTER (WHERE NOT {plain})
FROM (SELECT t.{column}::jsonb AS v FROM {table} AS t WHERE t.{column} IS NOT NULL) AS t
"""
# Arrays are looked through: in the lax mode of SQL/JSON paths a step into one is a step into each
# of its elements. A record counts once for a key, however often it has it.
_QUERY = """
WITH objects AS (
    SELECT CASE WHEN {plain} THEN NULL ELSE (
            SELECT array_agg(DISTINCT k.key)
            FROM jsonb_path_query(v, {path}::jsonpath) AS node,
                 LATERAL jsonb_object_keys(
                     CASE WHEN jsonb_typeof(node) = 'object' THEN node ELSE '{{}}' END) AS k(key)
            WHERE k.key <> ALL ({declared}::text[])
        ) END AS keys
    FROM (SELECT t.{column}::jsonb AS v FROM {table} AS t WHERE t.{column} IS NOT NULL) AS t
), of_all AS (SELECT count(*) AS n, count(keys) AS broken FROM objects),
counted AS (
    SELECT key, count(*) AS records FROM objects, LATERAL unnest(keys) AS key GROUP BY key
), judged AS (
    SELECT key, records,
           key ~ {identifier} AND records >= greatest({least}, n * {share}) AS plain
    FROM counted, of_all
)
SELECT (SELECT broken FROM of_all), count(*) FILTER (WHERE NOT plain),
       coalesce(array_agg(key ORDER BY records DESC, key) FILTER (WHERE plain), '{{}}')
FROM judged
"""


@dataclass(frozen=True)
class JsonPlace:
    """A place in a JSON column of which the data map names the keys.

    Attributes:
        collection: of the data map.
        column: of its table.
        path: keys that lead there.
        declared: keys that the data map names there.
        binary: whether the column is of the type ``jsonb``.
    """

    collection: MappedCollection
    column: str
    path: tuple[str, ...]
    declared: tuple[str, ...]
    binary: bool

    @property
    def field(self) -> str:
        """Column and path, with dots."""
        return ".".join((self.column, *self.path))

    @property
    def digest(self) -> str:
        """SHA-256 of what is declared there, and of the SQL that looks for other keys."""
        return sha256(json.dumps([sorted(self.declared), self.others("v")]).encode()).hexdigest()

    def others(self, value: str) -> str:
        """SQL that is true where a value may have other keys at the place.

        Args:
            value: SQL expression of the column, a ``jsonb``.
        """
        return f"({value} IS NOT NULL AND NOT {self.plain(SQL(value)).as_string()})"

    def plain(self, value: Composable) -> Composed:
        """SQL that is true where a value has no other keys at the place."""
        return SQL(_PLAIN_BELOW if self.path else _PLAIN).format(
            value=value, place=Literal(list(self.path)), declared=Literal(list(self.declared))
        )


@dataclass(frozen=True)
class UndeclaredKeys:
    """What one place inside a JSON column holds beside the keys that the data map declares.

    Attributes:
        place: database, schema and table.
        field: column, and below it the keys that lead there, with dots.
        records: that have such a key.
        names: of the keys that may be named, the most frequent first.
        unnamed: how many others there are; they could be values.
        fault: SQLSTATE where the column could not be looked at; empty when it was.
    """

    place: str
    field: str
    records: int = 0
    names: tuple[str, ...] = ()
    unnamed: int = 0
    fault: str = ""

    @property
    def keys(self) -> int:
        """All keys that nobody declared."""
        return len(self.names) + self.unnamed


def places(live: LiveSchema, database: MappedDatabase) -> list[JsonPlace]:
    """The places in JSON columns of which the data map names the keys, in its order."""
    found = []
    for collection in database.collections.values():
        table = live.tables.get((collection.schema_name, collection.table))
        for field in collection.fields.values() if table else ():
            column = table.columns.get(field.name) if table else None
            if field.fields and column and column.base in _JSON and not column.is_array:
                found += [
                    JsonPlace(collection, field.name, path, declared, column.base == "jsonb")
                    for path, declared in _levels(field.fields, ())
                ]
    return found


def undeclared_keys(
    connection: psycopg.Connection[Any], database: str, wanted: Iterable[JsonPlace]
) -> list[UndeclaredKeys]:
    """Look for keys that the data map lacks.

    Args:
        connection: in an open transaction; what fails is undone to a savepoint.
        database: its name.
        wanted: places to look at.

    Returns:
        Places with undeclared keys, and those that could not be looked at.

    Raises:
        psycopg.Error: the connection is gone.
    """
    found = []
    faulty = set()
    for place in wanted:
        column = (place.collection.name, place.column)
        if column in faulty:
            continue  # said once for a column
        one = _look(connection, database, place)
        if one.keys or one.fault:
            found.append(one)
        if one.fault:
            faulty.add(column)
    return found


def findings(found: Iterable[UndeclaredKeys]) -> list[Finding]:
    """Say what was found, one finding for each place; keys that could be values are counted."""
    return [_finding(one) for one in found]


def _levels(
    fields: Mapping[str, MappedField], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The places whose keys the map names, each with these keys."""
    yield above, tuple(fields)
    for name, field in fields.items():
        if field.fields:
            yield from _levels(field.fields, (*above, name))


def _look(connection: psycopg.Connection[Any], database: str, place: JsonPlace) -> UndeclaredKeys:
    table = (place.collection.schema_name, place.collection.table)
    where = ".".join((database, *table))
    named: dict[str, Composable] = {
        "plain": place.plain(SQL("v")),
        "column": Identifier(place.column),
        "table": Identifier(*table),
    }
    path = "".join(["lax $", *(f".{json.dumps(one)}" for one in place.path), "[*]"])
    given: dict[str, Composable] = {
        "path": Literal(path),
        "declared": Literal(list(place.declared)),
        "identifier": Literal(IDENTIFIER),
        "least": Literal(LEAST_RECORDS),
        "share": Literal(LEAST_SHARE),
    }
    try:
        with connection.transaction():
            others = connection.execute(SQL(_OTHERS).format(**named)).fetchone()
            assert others is not None
            if not others[0]:
                return UndeclaredKeys(where, place.field)
            row = connection.execute(SQL(_QUERY).format(**named, **given)).fetchone()
    except psycopg.Error as error:  # its words quote values
        if connection.closed or connection.broken:
            raise
        return UndeclaredKeys(where, place.field, fault=error.sqlstate or "")
    assert row is not None
    return UndeclaredKeys(where, place.field, row[0], tuple(row[2]), row[1])


def _finding(one: UndeclaredKeys) -> Finding:
    if one.fault:
        return attention_finding(
            code="schema.json_unchecked",
            subject=f"{one.place}.{one.field}",
            message=_(
                "The keys inside the column could not be looked at (SQLSTATE {code}).",
                code=one.fault,
            ),
            action=_("See that the reader may select it and that all of it is JSON."),
            clause=CLAUSE,
        )
    names = ", ".join(one.names[:MOST_NAMED])
    more = len(one.names) - MOST_NAMED
    if more > 0:
        names += f" (+{more})"
    message = (
        _(
            "{records} records have {count} keys that the data map lacks, among them {names}.",
            records=one.records,
            count=one.keys,
            names=names,
        )
        if names
        else _(
            "{records} records have {count} keys that the data map lacks. They are rare or look "
            "like values, so they are not named.",
            records=one.records,
            count=one.keys,
        )
    )
    return failure_finding(
        code="schema.drift.undeclared_key",
        subject=f"{one.place}.{one.field}",
        message=message,
        action=_(
            "Look at the column in the database and find out who collects this and for which "
            "purpose; then name the key in the data map and in a purpose, or delete it. Map an "
            "object whose keys are values without keys."
        ),
        clause=CLAUSE,
    )
