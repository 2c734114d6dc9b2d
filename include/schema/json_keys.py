"""Find keys inside JSON columns that the data map does not declare.

PIPL (2021-11-01) article 6 limits collection to the minimum that the purpose needs. If a data map
declares the keys of a JSON column, any other key is a finding, like a column that the data map
lacks. If the data map declares no keys for a JSON column, the keys of this column are not examined.

PostgreSQL counts the keys, and no value leaves the database. A key may itself be personal data,
such as a phone number. Therefore a finding names a key only if the key looks like an identifier in
a program and many records have it. Other keys are only counted.
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
from include.messages import Message, _, listed
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.schema.live import LiveSchema

CLAUSE = "4.1"
_UNCHECKED = "schema.json_unchecked"
_UNDECLARED = "schema.drift.undeclared_key"
CODES = frozenset({_UNCHECKED, _UNDECLARED})
"""Codes of the findings about keys of JSON columns."""
MOST_NAMED = 20  # keys that a finding names
LEAST_RECORDS = 10  # number of records that must have a key for it to be named
LEAST_SHARE = 0.01  # share of the column's objects that must have a key for it to be named
# Short, ASCII, snake or camel case, without a run of digits that could be a person's number
IDENTIFIER = r"^(?!.*[0-9]{4})[A-Za-z_][A-Za-z0-9_]{0,39}$"
_JSON = {"json", "jsonb"}

# True for a value without undeclared keys or without an object at the path, so for most records.
# This query runs first because PostgreSQL can use parallel workers for it.
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
# In lax mode, a step of an SQL/JSON path into an array visits each element. A record counts once
# per key, even if it has the key several times.
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
class MappedObject:
    """An object inside a JSON column for which the data map declares keys.

    Attributes:
        collection: collection of the data map.
        column: JSON column of the collection's table.
        path: keys that lead from the column to the object; empty if the object is the column's
            value.
        declared: keys that the data map declares for the object.
        binary: whether the column has the type ``jsonb``.
    """

    collection: MappedCollection
    column: str
    path: tuple[str, ...]
    declared: tuple[str, ...]
    binary: bool

    @property
    def field(self) -> str:
        """Return the column and the path of the object, separated by dots."""
        return ".".join((self.column, *self.path))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the declared keys and of the SQL that finds undeclared keys.

        The digest changes if the check for undeclared keys changes.
        """
        return sha256(
            json.dumps([sorted(self.declared), self.may_have_undeclared_keys("v")]).encode()
        ).hexdigest()

    def may_have_undeclared_keys(self, value: str) -> str:
        """Return an SQL condition that is true if this object has undeclared keys in a record.

        The condition is also true for some records without undeclared keys: those that have a value
        of another type, such as an array, in place of the object.

        Args:
            value: SQL expression of the column's value, of the type ``jsonb``.
        """
        return (
            f"({value} IS NOT NULL AND NOT {self.has_no_undeclared_keys(SQL(value)).as_string()})"
        )

    def has_no_undeclared_keys(self, value: Composable) -> Composed:
        """Return an SQL condition that is true only if this object has no undeclared keys.

        The condition is false for some records without undeclared keys: those that have a value of
        another type, such as an array, in place of the object.

        Args:
            value: SQL expression of the column's value, of the type ``jsonb``.
        """
        return SQL(_PLAIN_BELOW if self.path else _PLAIN).format(
            value=value, place=Literal(list(self.path)), declared=Literal(list(self.declared))
        )


@dataclass(frozen=True)
class UndeclaredKeys:
    """The undeclared keys of one object inside a JSON column.

    Attributes:
        table: database, schema and table, separated by dots.
        field: column and path of the object, separated by dots.
        records: number of records with an undeclared key.
        names: undeclared keys that a finding may name, most frequent first.
        unnamed: number of undeclared keys that a finding may not name, because they could be
            personal data.
        sqlstate: SQLSTATE if the column could not be examined; otherwise empty.
    """

    table: str
    field: str
    records: int = 0
    names: tuple[str, ...] = ()
    unnamed: int = 0
    sqlstate: str = ""

    @property
    def keys(self) -> int:
        """Return the number of all undeclared keys."""
        return len(self.names) + self.unnamed


def mapped_objects(live: LiveSchema, database: MappedDatabase) -> list[MappedObject]:
    """Return the JSON columns and nested objects for which the data map declares keys.

    They are in the order of the data map. Columns that `live` does not have, or that have another
    type there, are left out.
    """
    objects = []
    for collection in database.collections.values():
        table = live.tables.get((collection.schema_name, collection.table))
        for field in collection.fields.values() if table else ():
            column = table.columns.get(field.name) if table else None
            if field.fields and column and column.base in _JSON and not column.is_array:
                objects += [
                    MappedObject(collection, field.name, path, declared, column.base == "jsonb")
                    for path, declared in _declared_objects(field.fields, ())
                ]
    return objects


def undeclared_keys(
    connection: psycopg.Connection[Any], database: str, objects: Iterable[MappedObject]
) -> list[UndeclaredKeys]:
    """Find keys of JSON objects that the data map does not declare.

    Args:
        connection: connection on which a transaction is open. If a query fails, only the query is
            rolled back, to a savepoint.
        database: name of the database in the data map.
        objects: objects to examine.

    Returns:
        A result for each object that has undeclared keys or could not be examined.

    Raises:
        psycopg.Error: the connection is lost.
    """
    results = []
    faulty = set()
    for mapped in objects:
        column = (mapped.collection.name, mapped.column)
        if column in faulty:
            continue  # one finding per column
        result = _examine(connection, database, mapped)
        if result.keys or result.sqlstate:
            results.append(result)
        if result.sqlstate:
            faulty.add(column)
    return results


def findings(results: Iterable[UndeclaredKeys], database: MappedDatabase) -> list[Finding]:
    """Return a finding for each JSON object that has undeclared keys or could not be examined.

    Keys that could be personal data are counted and not named.

    Args:
        results: results of `undeclared_keys`.
        database: the data map.
    """
    titles = database.table_titles
    return [
        _finding(undeclared, titles.get(undeclared.table, database.title)) for undeclared in results
    ]


def _declared_objects(
    fields: Mapping[str, MappedField], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield the path and the declared keys of a JSON object, and of each object nested inside it.

    Args:
        fields: the declared keys of the object, as fields of the data map. In the first call, the
            columns of a collection.
        above: path of the object; empty in the first call.
    """
    yield above, tuple(fields)
    for name, field in fields.items():
        if field.fields:
            yield from _declared_objects(field.fields, (*above, name))


def _examine(
    connection: psycopg.Connection[Any], database: str, mapped: MappedObject
) -> UndeclaredKeys:
    table = (mapped.collection.schema_name, mapped.collection.table)
    where = ".".join((database, *table))
    identifiers: dict[str, Composable] = {
        "plain": mapped.has_no_undeclared_keys(SQL("v")),
        "column": Identifier(mapped.column),
        "table": Identifier(*table),
    }
    path = "".join(["lax $", *(f".{json.dumps(key)}" for key in mapped.path), "[*]"])
    literals: dict[str, Composable] = {
        "path": Literal(path),
        "declared": Literal(list(mapped.declared)),
        "identifier": Literal(IDENTIFIER),
        "least": Literal(LEAST_RECORDS),
        "share": Literal(LEAST_SHARE),
    }
    try:
        with connection.transaction():
            others = connection.execute(SQL(_OTHERS).format(**identifiers)).fetchone()
            assert others is not None
            if not others[0]:
                return UndeclaredKeys(where, mapped.field)
            row = connection.execute(SQL(_QUERY).format(**identifiers, **literals)).fetchone()
    except psycopg.Error as error:  # its message quotes values
        if connection.closed or connection.broken:
            raise
        return UndeclaredKeys(where, mapped.field, sqlstate=error.sqlstate or "")
    assert row is not None
    return UndeclaredKeys(where, mapped.field, row[0], tuple(row[2]), row[1])


def _finding(undeclared: UndeclaredKeys, title: Message) -> Finding:
    column = _("Column `{column}`", column=f"{undeclared.table}.{undeclared.field}")
    if undeclared.sqlstate:
        return attention_finding(
            code=_UNCHECKED,
            subject=f"{undeclared.table}.{undeclared.field}",
            message=_("The JSON keys inside a column could not be examined."),
            action=_(
                "Grant the login the right to read the column, or correct values of the column "
                "that are not valid JSON."
            ),
            clause=CLAUSE,
            for_engineers=_("{column}; SQLSTATE {code}", column=column, code=undeclared.sqlstate),
            subject_title=title,
        )
    for_engineers = (
        _(
            "{column}; JSON keys: {names}",
            column=column,
            names=listed((f"`{name}`" for name in undeclared.names), MOST_NAMED),
        )
        if undeclared.names
        else _(
            "{column}. The JSON keys are rare or look like data values, so they are not listed.",
            column=column,
        )
    )
    return failure_finding(
        code=_UNDECLARED,
        subject=f"{undeclared.table}.{undeclared.field}",
        message=_(
            "In a JSON column, {records} records have {count} keys that are not in the data map.",
            records=undeclared.records,
            count=undeclared.keys,
        ),
        action=_(
            "Find out who collects this data and for which purpose. Then add each key to the "
            "data map and to a purpose, or have the data under these keys deleted from the "
            "database. If the keys are data values, such as waybill numbers, list the JSON "
            "object in the data map without its keys."
        ),
        clause=CLAUSE,
        for_engineers=for_engineers,
        subject_title=title,
    )
