"""Inspect in a database the tables, columns and foreign keys that incident.yaml names.

A row has a value of a data category if a column of that category is neither NULL nor an empty text.
In a JSON column each mapped key is examined. If the JSON column itself has a category, the row has
a value of that category if the column is not NULL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from include.incident.counting.snapshot import CannotCount, as_text, column, table_name
from include.incident.rules import Records, ScopeRule
from include.messages import _
from include.policy.datamap import MappedDatabase, MappedField
from include.policy.fragments import any_of, literal, pack_sql

_TEXTS = {25, 1042, 1043}  # type oids of PostgreSQL: text, character, character varying
_JSON = {114, 3802}
ALWAYS = SQL("true")


def category_conditions(
    row: str,
    fields: Mapping[str, MappedField],
    types: Mapping[str, int],
    never_null: Collection[str] = (),
) -> dict[str, Composable]:
    """Return an SQL condition for each data category of a collection.

    The condition is true if the row has a value of the category.

    Args:
        row: alias of the row.
        fields: mapped fields of the collection, by name.
        types: OID of the data type of each field, by field name.
        never_null: names of columns with a NOT NULL constraint.

    Returns:
        Data category -> condition, sorted by category.
    """
    conditions: dict[str, list[Composable]] = {}
    for name, field in fields.items():
        is_never_null = name in never_null
        for category, condition in _field_conditions(
            column(row, name), types[name], field, certain=is_never_null
        ):
            conditions.setdefault(category, []).append(condition)
    return {
        name: ALWAYS if ALWAYS in conditions[name] else any_of(conditions[name])
        for name in sorted(conditions)
    }


def is_below(category: str, above: Iterable[str]) -> bool:
    """Return whether a data category is one of given categories, or a subcategory of one of them.

    Args:
        category: data category, such as ``user.contact.email``.
        above: the given categories, such as ``user.contact``.
    """
    return any(category == ancestor or category.startswith(f"{ancestor}.") for ancestor in above)


def _field_conditions(
    value: Composable, kind: int, field: MappedField, *, certain: bool
) -> Iterator[tuple[str, Composable]]:
    has_value: Composable = SQL("{} <> ''" if kind in _TEXTS else "{} IS NOT NULL").format(value)
    if certain and kind not in _TEXTS:
        has_value = ALWAYS
    for category in _personal_categories(field):
        yield category, has_value
    for path, inner in _nested_fields(field, ()):
        condition = has_value
        if kind in _JSON:
            condition = SQL("{} #>> {} <> ''").format(value, literal(list(path)))
        for category in _personal_categories(inner):
            if category not in field.categories:  # else the condition of the column covers it
                yield category, condition


def _nested_fields(
    field: MappedField, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], MappedField]]:
    for name, inner in field.fields.items():
        yield (*path, name), inner
        yield from _nested_fields(inner, (*path, name))


def _personal_categories(field: MappedField) -> Iterator[str]:
    return (
        category
        for category in field.categories
        if category == "user" or category.startswith("user.")
    )


INTEGERS = {21: 2**15, 23: 2**31, 20: 2**63}  # type oid of PostgreSQL -> exclusive upper limit
_PLAIN = re.compile(r'\s*(?P<row>[a-z])\.(?:"(?P<quoted>[^"]+)"|(?P<plain>[A-Za-z_]\w*))\s*')

# A foreign key that was never validated, or is not enforced, guarantees nothing.
_LINKS = """
SELECT c.conrelid::regclass = %(table)s::regclass AS here, a.attname::text
FROM pg_constraint c
JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = c.confkey[1]
WHERE c.contype = 'f' AND c.convalidated AND cardinality(c.conkey) = 1
    AND c.conrelid = %(table)s::regclass AND c.confrelid = %(people)s::regclass
    AND f.attname = %(key)s
"""
_NEVER_NULL = """
SELECT attname::text FROM pg_attribute
WHERE attrelid = %(table)s::regclass AND attnum > 0 AND attnotnull
"""

# If the key has no unique index, a query checks that no key is repeated.
_PEOPLE = """
SELECT format_type(%(type)s, NULL), greatest(c.reltuples, 0)::bigint, EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = %(key)s AND a.attnotnull
)
FROM pg_class c WHERE c.oid = %(people)s::regclass
"""


@dataclass(frozen=True)
class TypedExpression:
    """An SQL expression with the OID of its data type."""

    sql: Composable
    type: int


@dataclass(frozen=True)
class LiveCollection:
    """A collection of records as it was found in a database.

    Attributes:
        rule: rule of the collection in incident.yaml.
        table: qualified table name. In the expressions below, its rows have the alias ``r``.
        keys: SQL expressions for the keys of a row's data subjects. PostgreSQL can compare them
            with the key column of the subject table.
        at: SQL expression for the time of a record; None if the records have no time.
        named: SQL expressions for the keys, such as waybill numbers, that a person can enter to
            list a record as affected.
        identity: columns that identify a row.
        values: data category -> SQL condition that a row has a value of the category.
        is_linked: whether foreign keys guarantee that all data subjects of the records are in the
            subject table.
        is_subject_table: whether the collection is the subject table, with one row per person.
    """

    rule: Records
    table: Composable
    keys: Sequence[Composable]
    at: TypedExpression | None
    named: Sequence[TypedExpression]
    identity: Sequence[Composable]
    values: Mapping[str, Composable]
    is_linked: bool
    is_subject_table: bool

    @property
    def name(self) -> str:
        """The name of the collection in incident.yaml and in the data map."""
        return self.rule.collection


@dataclass(frozen=True)
class LiveDatabase:
    """A mapped database with its tables and columns as they were found.

    Attributes:
        connection: connection on which a transaction with one snapshot is open.
        database: database of the data map.
        rule: rule of the database in incident.yaml.
        people: name of the subject table. Its rows have the alias ``s``.
        rows: estimated number of rows of the subject table.
        key: OID of the data type of the key column in the subject table.
        key_name: SQL name of this data type.
        collections: collections of `rule`, by name.
    """

    connection: psycopg.Connection[Any]
    database: MappedDatabase
    rule: ScopeRule
    people: Composable
    rows: int
    key: int
    key_name: Composable
    collections: Mapping[str, LiveCollection]

    @property
    def person(self) -> Composable:
        """The SQL expression for a person's key in a row ``s`` of the subject table."""
        return column("s", self.rule.subject.key)

    def as_key(self, expression: Composable) -> Composable:
        """Return SQL that casts an expression to the type of the subject table's key column."""
        return SQL("({})::{}").format(expression, self.key_name)


def inspect_database(
    connection: psycopg.Connection[Any], database: MappedDatabase, rule: ScopeRule
) -> LiveDatabase:
    """Read from a database the tables and columns that incident.yaml names.

    Args:
        connection: connection on which a transaction with one snapshot is open.
        database: database of the data map.
        rule: rule of the database in incident.yaml.

    Raises:
        CannotCount: the key column of the subject table has NULL or duplicate values.
        psycopg.Error: a table or column is missing, or may not be read.
    """
    live, is_unique = _inspect_subjects(connection, database, rule)
    if not is_unique and _has_repeated_keys(connection, live.people, live.person):
        raise CannotCount(
            _(
                "In this database, the column that identifies people according to the incident "
                "rules has duplicate or missing values."
            )
        )
    collections = {record.collection: _inspect_collection(live, record) for record in rule.records}
    return replace(live, collections=collections)


def inspect_subjects(
    connection: psycopg.Connection[Any], database: MappedDatabase, rule: ScopeRule
) -> LiveDatabase:
    """Read from a database only the columns of the subject table that incident.yaml names.

    Unlike the result of `inspect_database`, the result has no collections, and the values of the
    key column are not checked.

    Args:
        connection: connection on which a transaction with one snapshot is open.
        database: database of the data map.
        rule: rule of the database in incident.yaml.

    Raises:
        psycopg.Error: the table is missing, or may not be read.
    """
    return _inspect_subjects(connection, database, rule)[0]


def plain_column(expression: str, row: str = "r") -> str | None:
    """Return the column name if an SQL expression is only a column of a row, otherwise None.

    Args:
        expression: SQL expression of incident.yaml.
        row: alias of the row.
    """
    match = _PLAIN.fullmatch(expression)
    if match is None or match["row"] != row:
        return None
    return match["quoted"] or match["plain"].lower()


def has_foreign_keys(live: LiveDatabase, collection: str, columns: Sequence[str | None]) -> bool:
    """Return whether foreign keys guarantee that columns contain only keys of the subject table.

    Args:
        live: database with the tables and columns that `inspect_database` found.
        collection: name of the collection with the columns.
        columns: column names. None stands for an SQL expression that is not a column, so it has no
            foreign key.
    """
    if None in columns:
        return False
    values = {
        "table": as_text(table_name(live.database, collection)),
        "people": as_text(live.people),
        "key": live.rule.subject.key,
    }
    linked_columns = {
        name for is_table, name in live.connection.execute(_LINKS, values) if is_table
    }
    return set(columns) <= linked_columns


def _inspect_subjects(
    connection: psycopg.Connection[Any], database: MappedDatabase, rule: ScopeRule
) -> tuple[LiveDatabase, bool]:
    """Return a database with its subject table, and whether each key in this table is unique."""
    people = table_name(database, rule.subject.collection)
    (kind,) = _type_oids(connection, people, "s", [column("s", rule.subject.key)])
    values = {"people": as_text(people), "key": rule.subject.key, "type": kind}
    statistics = connection.execute(_PEOPLE, values).fetchone()
    assert statistics is not None
    type_name, rows, is_unique = statistics
    return LiveDatabase(
        connection, database, rule, people, rows, kind, pack_sql(type_name), {}
    ), is_unique


def _has_repeated_keys(
    connection: psycopg.Connection[Any], people: Composable, key: Composable
) -> bool:
    query = SQL(
        "SELECT EXISTS (SELECT {key} FROM {people} AS s GROUP BY 1 HAVING count(*) > 1)"
        " OR EXISTS (SELECT FROM {people} AS s WHERE {key} IS NULL)"
    ).format(key=key, people=people)
    return connection.execute(query, {}).fetchone() == (True,)


def _inspect_collection(live: LiveDatabase, rule: Records) -> LiveCollection:
    mapped = live.database.collections[rule.collection]
    relation = table_name(live.database, rule.collection)
    expressions = [*rule.subjects, *((rule.at,) if rule.at else ()), *rule.named]
    kinds = _type_oids(
        live.connection, relation, "r", [_parenthesized(expression) for expression in expressions]
    )
    keys = [
        _parenthesized(expression)
        if _are_comparable(kind, live.key)
        else live.as_key(pack_sql(expression))
        for expression, kind in zip(rule.subjects, kinds, strict=False)
    ]
    other_kinds = kinds[len(rule.subjects) :]
    at = TypedExpression(_parenthesized(rule.at), other_kinds[0]) if rule.at else None
    names = other_kinds[1:] if rule.at else other_kinds
    columns = [plain_column(subject) for subject in rule.subjects]
    subject = live.rule.subject
    is_subject_table = rule.collection == subject.collection and columns == [subject.key]
    identity = [column("r", expression) for expression in mapped.primary_key]
    return LiveCollection(
        rule=rule,
        table=relation,
        keys=keys,
        at=at,
        named=[
            TypedExpression(_parenthesized(expression), kind)
            for expression, kind in zip(rule.named, names, strict=True)
        ],
        identity=identity or [column("r", "tableoid"), column("r", "ctid")],
        values=_collection_conditions(live, rule.collection),
        is_linked=is_subject_table or has_foreign_keys(live, rule.collection, columns),
        is_subject_table=is_subject_table,
    )


def _collection_conditions(live: LiveDatabase, collection: str) -> dict[str, Composable]:
    relation = table_name(live.database, collection)
    person = live.rule.subject
    key = live.database.collections[person.collection].fields.get(person.key)
    mapped = live.database.collections[collection]
    fields = mapped.fields_about(key.subjects if key else ())
    kinds = _type_oids(live.connection, relation, "r", [column("r", name) for name in fields])
    parameters = {"table": as_text(relation)}
    never_null = {name for (name,) in live.connection.execute(_NEVER_NULL, parameters)}
    return category_conditions("r", fields, dict(zip(fields, kinds, strict=True)), never_null)


def _type_oids(
    connection: psycopg.Connection[Any], relation: Composable, row: str, parts: Sequence[Composable]
) -> list[int]:
    """Return the OIDs of the data types of SQL expressions, without reading rows of the table.

    Args:
        connection: connection to the database.
        relation: name of the table.
        row: alias of a row of the table.
        parts: SQL expressions over the row.
    """
    if not parts:
        return []
    query = SQL("SELECT {} FROM {} AS {} LIMIT 0").format(
        SQL(", ").join(parts), relation, Identifier(row)
    )
    return [
        column_info.type_code for column_info in connection.execute(query, {}).description or []
    ]


def _parenthesized(expression: str) -> Composable:
    return SQL("({})").format(pack_sql(expression))


def _are_comparable(kind: int, key: int) -> bool:
    """Return whether PostgreSQL compares values of two data types without a cast.

    Without a cast, PostgreSQL can use an index for the comparison.

    Args:
        kind: OID of the data type of an expression.
        key: OID of the data type of the key column in the subject table.
    """
    return kind == key or (kind in INTEGERS and key in INTEGERS)
