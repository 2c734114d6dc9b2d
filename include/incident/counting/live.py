"""Tables, columns and foreign keys in a database that incident.yaml names, as they are now.

A row has a value of a data category if a column of that category holds more than NULL or an empty
text. In a JSON column each mapped key is examined; a category of the JSON column itself counts if
the column is not NULL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from include.incident.counting.reading import CannotCount, as_text, column, table
from include.incident.rules import Records, ScopeRule
from include.messages import _
from include.policy.datamap import MappedDatabase, MappedField
from include.policy.fragments import any_of, literal, pack_sql

_TEXTS = {25, 1042, 1043}  # type oids of PostgreSQL: text, character, character varying
_JSON = {114, 3802}
ALWAYS = SQL("true")


def by_category(
    row: str,
    fields: Mapping[str, MappedField],
    types: Mapping[str, int],
    never_null: Collection[str] = (),
) -> dict[str, Composable]:
    """The conditions, by category of personal data, sorted by its name.

    Args:
        row: alias of the row.
        fields: of the collection.
        types: oid of each field's type.
        never_null: columns that the database keeps from being NULL.
    """
    found: dict[str, list[Composable]] = {}
    for name, one in fields.items():
        certain = name in never_null
        for category, condition in _of_field(column(row, name), types[name], one, certain=certain):
            found.setdefault(category, []).append(condition)
    return {
        name: ALWAYS if ALWAYS in found[name] else any_of(found[name]) for name in sorted(found)
    }


def is_below(category: str, above: Iterable[str]) -> bool:
    """Return whether a category is one of some, or below one of them."""
    return any(category == one or category.startswith(f"{one}.") for one in above)


def _of_field(
    value: Composable, kind: int, field: MappedField, *, certain: bool
) -> Iterator[tuple[str, Composable]]:
    here: Composable = SQL("{} <> ''" if kind in _TEXTS else "{} IS NOT NULL").format(value)
    if certain and kind not in _TEXTS:
        here = ALWAYS
    for category in _personal(field):
        yield category, here
    for path, inner in _inside(field, ()):
        condition = here
        if kind in _JSON:
            condition = SQL("{} #>> {} <> ''").format(value, literal(list(path)))
        for category in _personal(inner):
            if category not in field.categories:  # else the column says it already
                yield category, condition


def _inside(
    field: MappedField, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], MappedField]]:
    for name, inner in field.fields.items():
        yield (*path, name), inner
        yield from _inside(inner, (*path, name))


def _personal(field: MappedField) -> Iterator[str]:
    return (one for one in field.categories if one == "user" or one.startswith("user."))


INTEGERS = {21: 2**15, 23: 2**31, 20: 2**63}  # type oids of PostgreSQL, and what they stay below
_PLAIN = re.compile(r'\s*(?P<row>[a-z])\.(?:"(?P<quoted>[^"]+)"|(?P<plain>[A-Za-z_]\w*))\s*')

# A foreign key that was never validated promises nothing (nor does one that is not enforced, which
# cannot be validated).
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

# Nobody counts twice who stands there once; where no index says so, it is looked at.
_PEOPLE = """
SELECT format_type(%(type)s, NULL), greatest(c.reltuples, 0)::bigint, EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = %(key)s AND a.attnotnull
)
FROM pg_class c WHERE c.oid = %(people)s::regclass
"""


@dataclass(frozen=True)
class Value:
    """An SQL expression, and the oid of its type."""

    sql: Composable
    type: int


@dataclass(frozen=True)
class Collected:
    """A collection of records.

    Attributes:
        rule: of incident.yaml.
        table: qualified; rows are ``r`` in what follows.
        keys: of those whom a row is about, of a type that compares with that of the people's key.
        at: when it was made.
        named: what people call it.
        identity: columns that tell rows apart.
        values: by data category, whether a row has a value of it.
        linked: whether everybody whom a row names stands in the collection of people, for sure.
        own: whether it is the collection of people, a row each.
    """

    rule: Records
    table: Composable
    keys: Sequence[Composable]
    at: Value | None
    named: Sequence[Value]
    identity: Sequence[Composable]
    values: Mapping[str, Composable]
    linked: bool
    own: bool

    @property
    def name(self) -> str:
        """The collection's."""
        return self.rule.collection


@dataclass(frozen=True)
class Live:
    """A database as it is.

    Attributes:
        connection: in a transaction that sees one moment.
        database: of the data map.
        rule: of incident.yaml.
        people: the table of people, whose rows are ``s``.
        rows: about how many there are.
        key: type of their key.
        key_name: its name in SQL.
        collections: all of the rule, by name.
    """

    connection: psycopg.Connection[Any]
    database: MappedDatabase
    rule: ScopeRule
    people: Composable
    rows: int
    key: int
    key_name: Composable
    collections: Mapping[str, Collected]

    @property
    def person(self) -> Composable:
        """The key of a person ``s``."""
        return column("s", self.rule.subject.key)

    def as_key(self, expression: Composable) -> Composable:
        """An expression in the type of the people's key."""
        return SQL("({})::{}").format(expression, self.key_name)


def look(connection: psycopg.Connection[Any], database: MappedDatabase, rule: ScopeRule) -> Live:
    """Look at what incident.yaml names.

    Raises:
        CannotCount: the key of people does not tell them apart.
        psycopg.Error: something of it is not there, or may not be read.
    """
    found, unique = _people(connection, database, rule)
    if not unique and _repeats(connection, found.people, found.person):
        raise CannotCount(
            _("incident.yaml names a key of people there that several of them have, or none.")
        )
    collections = {record.collection: _collected(found, record) for record in rule.records}
    return replace(found, collections=collections)


def people_of(
    connection: psycopg.Connection[Any], database: MappedDatabase, rule: ScopeRule
) -> Live:
    """Look at nothing but the collection of people.

    Raises:
        psycopg.Error: it is not there, or may not be read.
    """
    return _people(connection, database, rule)[0]


def plain_column(expression: str, row: str = "r") -> str | None:
    """The column of a row that an expression is; None where it is more than one."""
    found = _PLAIN.fullmatch(expression)
    if found is None or found["row"] != row:
        return None
    return found["quoted"] or found["plain"].lower()


def linked(found: Live, collection: str, columns: Sequence[str | None]) -> bool:
    """Return whether foreign keys say that whoever is in these columns stands among the people.

    Args:
        found: the database.
        collection: with the columns.
        columns: None for an expression, of which no foreign key says anything.
    """
    if None in columns:
        return False
    values = {
        "table": as_text(table(found.database, collection)),
        "people": as_text(found.people),
        "key": found.rule.subject.key,
    }
    there = {name for here, name in found.connection.execute(_LINKS, values) if here}
    return set(columns) <= there


def _people(
    connection: psycopg.Connection[Any], database: MappedDatabase, rule: ScopeRule
) -> tuple[Live, bool]:
    """The collection of people, and whether an index says that each stands there once."""
    people = table(database, rule.subject.collection)
    (kind,) = _types(connection, people, "s", [column("s", rule.subject.key)])
    values = {"people": as_text(people), "key": rule.subject.key, "type": kind}
    about = connection.execute(_PEOPLE, values).fetchone()
    assert about is not None
    type_name, rows, unique = about
    return Live(connection, database, rule, people, rows, kind, pack_sql(type_name), {}), unique


def _repeats(connection: psycopg.Connection[Any], people: Composable, key: Composable) -> bool:
    query = SQL(
        "SELECT EXISTS (SELECT {key} FROM {people} AS s GROUP BY 1 HAVING count(*) > 1)"
        " OR EXISTS (SELECT FROM {people} AS s WHERE {key} IS NULL)"
    ).format(key=key, people=people)
    return connection.execute(query, {}).fetchone() == (True,)


def _collected(found: Live, rule: Records) -> Collected:
    mapped = found.database.collections[rule.collection]
    relation = table(found.database, rule.collection)
    wanted = [*rule.subjects, *((rule.at,) if rule.at else ()), *rule.named]
    kinds = _types(found.connection, relation, "r", [_bracketed(one) for one in wanted])
    keys = [
        _bracketed(one) if _compares(kind, found.key) else found.as_key(pack_sql(one))
        for one, kind in zip(rule.subjects, kinds, strict=False)
    ]
    rest = kinds[len(rule.subjects) :]
    at = Value(_bracketed(rule.at), rest[0]) if rule.at else None
    names = rest[1:] if rule.at else rest
    columns = [plain_column(one) for one in rule.subjects]
    subject = found.rule.subject
    own = rule.collection == subject.collection and columns == [subject.key]
    identity = [column("r", one) for one in mapped.primary_key]
    return Collected(
        rule=rule,
        table=relation,
        keys=keys,
        at=at,
        named=[Value(_bracketed(one), kind) for one, kind in zip(rule.named, names, strict=True)],
        identity=identity or [column("r", "tableoid"), column("r", "ctid")],
        values=_values(found, rule.collection),
        linked=own or linked(found, rule.collection, columns),
        own=own,
    )


def _values(found: Live, collection: str) -> dict[str, Composable]:
    relation = table(found.database, collection)
    person = found.rule.subject
    key = found.database.collections[person.collection].fields.get(person.key)
    mapped = found.database.collections[collection]
    fields = mapped.fields_about(key.subjects if key else ())
    kinds = _types(found.connection, relation, "r", [column("r", name) for name in fields])
    named = {"table": as_text(relation)}
    never_null = {name for (name,) in found.connection.execute(_NEVER_NULL, named)}
    return by_category("r", fields, dict(zip(fields, kinds, strict=True)), never_null)


def _types(
    connection: psycopg.Connection[Any], relation: Composable, row: str, parts: Sequence[Composable]
) -> list[int]:
    """Oids of the types of expressions over a table; nothing is read."""
    if not parts:
        return []
    query = SQL("SELECT {} FROM {} AS {} LIMIT 0").format(
        SQL(", ").join(parts), relation, Identifier(row)
    )
    return [one.type_code for one in connection.execute(query, {}).description or []]


def _bracketed(expression: str) -> Composable:
    return SQL("({})").format(pack_sql(expression))


def _compares(kind: int, key: int) -> bool:
    """Return whether values of the two types compare as they are, so that an index serves."""
    return kind == key or (kind in INTEGERS and key in INTEGERS)
