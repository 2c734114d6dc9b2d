"""Find records by the keys of legal holds and erasure requests, whatever the type of their column.

A person types the key of a record in a hold or request. PostgreSQL prints a key in the form of its
type: a UUID in lower case, a numeric with its scale, a timestamp in one timezone. This module
converts both to one form. A type without such a form is refused: a hold on its text would keep
nothing.

A hold that keeps too much can be released. A request that matches too much deletes records of
another person, and a request that misses a class is closed although records are left. So each value
is compared in each class by the type of the key. A UUID, MAC address or bytea value is also
compared as text in the form in which PostgreSQL prints it, since a text may be a copy of such a
key. Numbers are not: the texts ``0012`` and ``12`` may name two people. A number in a request that
is not written as a server prints it (``0012``, ``1e3``) matches no numeric key.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Composable

from include.holds.registry import HoldKind
from include.policy.fragments import literal, pack_sql
from include.policy.retention import Keys
from include.retention.postgres.relations import Relation
from include.services.errors import UsageError

KEY_TYPES = (
    "text, varchar, char(n), citext, an enum, uuid, smallint, integer, bigint, numeric, date, "
    "timestamp, timestamptz, bytea, inet, cidr or macaddr"
)
# The server resolves domains: the result of a query has the base type.
_DESCRIBED = """
SELECT t.oid, format_type(t.oid, NULL),
       CASE WHEN t.typtype = 'e' THEN 'enum'
            WHEN t.typtype = 'b' AND (n.nspname = 'pg_catalog' OR t.typname = 'citext')
            THEN t.typname END,
       array(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY (%s::oid[])
"""
_INTEGERS = {
    "int2": (-(2**15), 2**15 - 1),
    "int4": (-(2**31), 2**31 - 1),
    "int8": (-(2**63), 2**63 - 1),
    "oid": (0, 2**32 - 1),
}
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_MAGNITUDES = range(-16_384, 131_072)  # powers of ten of a numeric's first digit
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_BYTES = re.compile(r"\\x(?:[0-9a-f]{2})*", re.ASCII | re.IGNORECASE)
_SEPARATORS = re.compile(r"[:.-]")
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


class Form(StrEnum):
    """The form in which keys of a type are compared."""

    TEXT = "text"
    PADDED = "padded"
    CASELESS = "caseless"
    ENUM = "enum"
    UUID = "uuid"
    INTEGER = "integer"
    NUMERIC = "numeric"
    DATE = "date"
    TIMESTAMP = "timestamp"
    MOMENT = "moment"
    BYTES = "bytes"
    ADDRESS = "address"
    NETWORK = "network"
    MAC = "mac"


_FORMS: Mapping[str, Form] = {
    **dict.fromkeys(("text", "varchar", "name"), Form.TEXT),
    **dict.fromkeys(_INTEGERS, Form.INTEGER),
    **dict.fromkeys(("macaddr", "macaddr8"), Form.MAC),
    "bpchar": Form.PADDED,
    "citext": Form.CASELESS,
    "enum": Form.ENUM,
    "uuid": Form.UUID,
    "numeric": Form.NUMERIC,
    "date": Form.DATE,
    "timestamp": Form.TIMESTAMP,
    "timestamptz": Form.MOMENT,
    "bytea": Form.BYTES,
    "inet": Form.ADDRESS,
    "cidr": Form.NETWORK,
}


class UnusableKey(UsageError):
    """A key of retention.yaml has a type that no hold or request can match."""


@dataclass(frozen=True)
class KeyType:
    """The type of a key expression.

    Attributes:
        title: name of the type in SQL.
        name: name in ``pg_type``; ``enum`` for each enum, None for a type that cannot be a key.
        labels: labels of an enum.
    """

    title: str
    name: str | None = "text"
    labels: frozenset[str] = frozenset()

    @property
    def form(self) -> Form | None:
        """The form in which its keys are compared; None for a type that cannot be a key."""
        return _FORMS.get(self.name or "")

    def matches(self, expression: str, values: Collection[str]) -> Composable:
        """Return the condition that a key is one of some values.

        Args:
            expression: SQL of the pack over the record ``t``.
            values: of holds or requests, as people typed them.
        """
        spellings = self._array(sorted(self.forms(values)))
        return SQL("(({} = ANY ({})) IS TRUE)").format(self._key(expression), spellings)

    def positions(self, expression: str, forms: Sequence[str]) -> Composable:
        """Return SQL for the positions of a key in an array of forms, from 1.

        Args:
            expression: SQL of the pack over the record ``t``.
            forms: results of `forms`; a form may occur several times.
        """
        return SQL("array_positions({}, {})").format(self._array(forms), self._key(expression))

    def forms(self, values: Collection[str]) -> set[str]:
        """Return values as people typed them, and in the form of this type."""
        typed = {form for value in values if (form := self.canonical(value)) is not None}
        return {*values, *typed}

    def _key(self, expression: str) -> Composable:
        key: Composable = SQL("({})").format(pack_sql(expression))
        if self.form is Form.NUMERIC:
            key = SQL("trim_scale({})").format(key)
        elif self.form is Form.MOMENT:
            key = SQL("({} AT TIME ZONE 'UTC')").format(key)
        key = SQL("{}::text").format(key)
        return SQL("lower({})").format(key) if self.form is Form.CASELESS else key

    def _array(self, forms: Sequence[str]) -> Composable:
        array: Composable = SQL("{}::text[]").format(literal(list(forms)))
        if self.form is Form.CASELESS:
            array = SQL("ARRAY(SELECT lower(v) FROM unnest({}) AS v)").format(array)
        return array

    def canonical(self, value: str) -> str | None:
        """Return a value in the form of this type; None if no key can equal it.

        Args:
            value: as a person typed it.
        """
        with suppress(ValueError, InvalidOperation, OverflowError):
            return self._canonical(value)
        return None

    def _canonical(self, value: str) -> str | None:
        match self.form:
            case Form.TEXT | Form.CASELESS:
                return value
            case Form.PADDED:
                return value.rstrip(" ")
            case Form.ENUM:
                return value if value in self.labels else None
            case Form.UUID:
                return str(UUID(value))
            case Form.INTEGER:
                least, most = _INTEGERS[self.name or ""]
                whole = int(value) if _WHOLE.fullmatch(value) else None
                return str(whole) if whole is not None and least <= whole <= most else None
            case Form.NUMERIC:
                return _plain(Decimal(value)) if _DECIMAL.fullmatch(value) else None
            case Form.DATE:
                return date.fromisoformat(value).isoformat() if _DAY.fullmatch(value) else None
            case Form.TIMESTAMP:
                moment = datetime.fromisoformat(value)
                return _printed(moment) if moment.tzinfo is None else None
            case Form.MOMENT:
                moment = datetime.fromisoformat(value)
                return _printed(moment.astimezone(UTC)) if moment.tzinfo else None
            case Form.BYTES:
                return value.lower() if _BYTES.fullmatch(value) else None
            case Form.ADDRESS:
                return ipaddress.ip_interface(value).with_prefixlen  # as its cast to text
            case Form.NETWORK:
                return str(ipaddress.ip_network(value))
            case Form.MAC:
                return self._mac(value)
            case None:
                return None

    def _mac(self, value: str) -> str | None:
        digits = _SEPARATORS.sub("", value.lower())
        if self.name == "macaddr8" and len(digits) == 12:
            digits = f"{digits[:6]}fffe{digits[6:]}"
        length = 16 if self.name == "macaddr8" else 12
        if len(digits) != length or not _HEX.fullmatch(digits):
            return None
        return ":".join(digits[at : at + 2] for at in range(0, length, 2))


def _plain(number: Decimal) -> str | None:
    if number.adjusted() not in _MAGNITUDES:  # its text could have 10**9 digits
        return None
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if not number else text


def _printed(moment: datetime) -> str:
    text = moment.replace(tzinfo=None).isoformat(" ")
    return text.rstrip("0") if "." in text else text


def expressions(keys: Keys) -> dict[HoldKind, tuple[str, ...]]:
    """Return the key expressions of a class by kind of hold."""
    return {
        HoldKind.SUBJECT: keys.subject,
        HoldKind.WAYBILL: keys.waybill,
        HoldKind.CASE: keys.case,
    }


def each_expression(keys: Keys) -> Iterator[tuple[HoldKind, int, str]]:
    """Yield each key expression of a class, with its kind and its index in the list."""
    for kind, texts in expressions(keys).items():
        for index, text in enumerate(texts):
            yield kind, index, text


def read_key_types(
    connection: psycopg.Connection[Any], keys: Keys, relation: Relation
) -> dict[str, KeyType]:
    """Return the types of the key expressions of a class, by expression.

    Args:
        connection: to the mapped database; no row is read.
        keys: key expressions of the class.
        relation: table of the class.

    Raises:
        psycopg.Error: the database does not understand an expression.
    """
    oids = {text: _oid(connection, text, relation) for _kind, _place, text in each_expression(keys)}
    if not oids:
        return {}
    rows = connection.execute(_DESCRIBED, [sorted(set(oids.values()))])
    types = {
        oid: KeyType(title, name, frozenset(labels)) for oid, title, name, labels in rows.fetchall()
    }
    return {text: types[oid] for text, oid in oids.items()}


def _oid(connection: psycopg.Connection[Any], text: str, relation: Relation) -> int:
    query = SQL("SELECT ({}) FROM {} AS t LIMIT 0").format(pack_sql(text), relation.identifier)
    cursor = connection.execute(query, {})
    assert cursor.description is not None
    return cursor.description[0].type_code


def why_unusable(kind: HoldKind, key_type: KeyType) -> tuple[str, str] | None:
    """Return why a key cannot match a hold, and what to do; None if it can."""
    if key_type.form is not None:
        return None
    return (
        f"a key of {kind} has the type {key_type.title}: no value that a person types can equal "
        "it, so a hold would keep nothing",
        f"Write an expression of one of these types in `keys` of retention.yaml: {KEY_TYPES}. For "
        "JSON, select a member (t.data ->> 'id'); for an array, select its items (t.ids[1]).",
    )


_NUMBERS = (Form.INTEGER, Form.NUMERIC)
_IDENTIFIERS = (Form.UUID, Form.MAC, Form.BYTES)  # values of one form are equal in each class
_PRINTED_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True)
class TypedKeys:
    """The types of the keys of one database.

    Attributes:
        types: types of the keys of all its record classes, by kind of hold.
    """

    types: Mapping[HoldKind, Collection[KeyType]] = field(default_factory=dict)

    @staticmethod
    def of(keys: Iterable[Keys], types: Iterable[Mapping[str, KeyType]]) -> TypedKeys:
        """Return the types of a database's keys.

        Args:
            keys: key expressions of its record classes.
            types: their types by expression, for each class in the same order.
        """
        by_kind: dict[HoldKind, set[KeyType]] = defaultdict(set)
        for own, by_text in zip(keys, types, strict=True):
            for kind, _place, text in each_expression(own):
                by_kind[kind].add(by_text[text])
        return TypedKeys(dict(by_kind))

    def are_on_hold(
        self, kind: HoldKind, key_type: KeyType, text: str, values: Collection[str]
    ) -> Composable:
        """Return the condition that a key is one of the values of holds.

        Args:
            kind: kind of the key.
            key_type: type of the key.
            text: SQL of the key over the record ``t``.
            values: values of holds of this kind, as people typed them.
        """
        return key_type.matches(text, self._spellings(kind, values))

    def name_subjects(self, key_type: KeyType, text: str, subjects: Collection[str]) -> Composable:
        """Return the condition that a key belongs to a data subject who requested erasure.

        Args:
            key_type: type of the key.
            text: SQL of the key over the record ``t``.
            subjects: keys of the data subjects, as written in their requests.
        """
        return key_type.matches(text, self.forms_of_subjects(key_type, subjects))

    def forms_of_subjects(self, key_type: KeyType, subjects: Collection[str]) -> set[str]:
        """Return the possible forms of data subjects' keys in a key of a type."""
        spellings = self._spellings(HoldKind.SUBJECT, subjects)
        return key_type.forms({value for value in spellings if may_name(key_type, value)})

    def subjects_on_hold(
        self, subjects: Collection[str], values: Collection[str]
    ) -> frozenset[str]:
        """Return the data subjects of requests who are under a legal hold.

        Args:
            subjects: keys of the data subjects, as written in their requests.
            values: values of holds on data subjects.
        """
        held = set(subjects).intersection(values)
        for key_type in self.types.get(HoldKind.SUBJECT, ()):
            forms = {_folded(key_type, value) for value in values} - {None}
            held |= {subject for subject in subjects if _folded(key_type, subject) in forms}
        return frozenset(held)

    def _spellings(self, kind: HoldKind, values: Collection[str]) -> set[str]:
        """Return values as typed, and as PostgreSQL prints them in the types of identifiers."""
        types = [it for it in self.types.get(kind, ()) if it.form in _IDENTIFIERS]
        return set(values).union(*(key_type.forms(values) for key_type in types))


def may_name(key_type: KeyType, subject: str) -> bool:
    """Return whether a key of a type may equal the key of a request.

    Args:
        key_type: type of the key.
        subject: key of the data subject, as written in the request.
    """
    if key_type.form in _NUMBERS and not _PRINTED_NUMBER.fullmatch(subject):
        return False
    return key_type.canonical(subject) is not None


def _folded(key_type: KeyType, value: str) -> str | None:
    form = key_type.canonical(value)
    return form.lower() if form is not None and key_type.form is Form.CASELESS else form
