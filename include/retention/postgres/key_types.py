"""Find records by the keys in legal holds and erasure requests, for any type of key column.

A person enters the key of a record, as text, in a legal hold or an erasure request. PostgreSQL
prints the key of the record in the format of its data type: a UUID in lower case, a numeric with
its scale, a timestamp in one timezone. This module converts both texts to one canonical format
before it compares them. A data type without such a format is refused, because the entered text
would match no record.

Both a missed match and a wrong match do harm. An erasure request that matches too many records
deletes records of another person. A request that misses a record class is closed although records
remain. A legal hold that keeps too many records does less harm, because it can be released. This
leads to the following rules:

- In each record class, the entered key is compared in the canonical format of the key column's
  type.
- A text column may contain a copy of a UUID, MAC address or bytea value. So if the database has a
  key column of one of these types, the entered key is also converted to the format in which
  PostgreSQL prints this type. Key columns of all types are compared with the converted key, too.
- A text column is not compared with the canonical format of a number: in this column, ``0012`` and
  ``12`` may be keys of two people.
- In an erasure request, a number such as ``0012`` or ``1e3`` matches no numeric column, because
  PostgreSQL would never print it in this way. The person may mean a text key. In a legal hold,
  ``0012`` matches the number 12.
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
    """The canonical format in which keys of a PostgreSQL type are compared."""

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
    """Raised if a key in retention.yaml has a type that no hold or erasure request can match."""


@dataclass(frozen=True)
class KeyType:
    """The PostgreSQL type of the values of a key expression.

    Attributes:
        title: name of the type in SQL.
        name: name of the type in ``pg_type``; ``enum`` for every enum type, None for a type that
            cannot be the type of a key.
        labels: labels of an enum type; empty for other types.
    """

    title: str
    name: str | None = "text"
    labels: frozenset[str] = frozenset()

    @property
    def form(self) -> Form | None:
        """The canonical format of keys of this type.

        It is None if the type cannot be the type of a key.
        """
        return _FORMS.get(self.name or "")

    def matches(self, expression: str, values: Collection[str]) -> Composable:
        """Return the SQL condition that the key of a record equals one of the values.

        Args:
            expression: key expression of the policy pack, over the record ``t``.
            values: keys in legal holds or erasure requests, as people typed them.
        """
        spellings = self._array(sorted(self.forms(values)))
        return SQL("(({} = ANY ({})) IS TRUE)").format(self._key(expression), spellings)

    def positions(self, expression: str, forms: Sequence[str]) -> Composable:
        """Return an SQL array of the positions at which a record's key occurs in a list of values.

        The first item of the list has the position 1. The array has several positions if the key
        occurs several times.

        Args:
            expression: key expression of the policy pack, over the record ``t``.
            forms: the list of values, in the canonical format that the method `forms` returns.
        """
        return SQL("array_positions({}, {})").format(self._array(forms), self._key(expression))

    def forms(self, values: Collection[str]) -> set[str]:
        """Return each value as people typed it, and also in the canonical format of this type.

        A value that no key of this type can have is returned only as it was typed.

        Args:
            values: the values as people typed them.
        """
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
        """Return a value in the canonical format of this type.

        Return None if no key of this type can have the value.

        Args:
            value: the value as a person typed it.
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
                return _print_number(Decimal(value)) if _DECIMAL.fullmatch(value) else None
            case Form.DATE:
                return date.fromisoformat(value).isoformat() if _DAY.fullmatch(value) else None
            case Form.TIMESTAMP:
                moment = datetime.fromisoformat(value)
                return _print_moment(moment) if moment.tzinfo is None else None
            case Form.MOMENT:
                moment = datetime.fromisoformat(value)
                return _print_moment(moment.astimezone(UTC)) if moment.tzinfo else None
            case Form.BYTES:
                return value.lower() if _BYTES.fullmatch(value) else None
            case Form.ADDRESS:
                return ipaddress.ip_interface(value).with_prefixlen  # like PostgreSQL's text cast
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


def _print_number(number: Decimal) -> str | None:
    if number.adjusted() not in _MAGNITUDES:  # its text could have 10**9 digits
        return None
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if not number else text


def _print_moment(moment: datetime) -> str:
    text = moment.replace(tzinfo=None).isoformat(" ")
    return text.rstrip("0") if "." in text else text


def expressions_by_kind(keys: Keys) -> dict[HoldKind, tuple[str, ...]]:
    """Return the key expressions of a record class, by the type of object that the keys identify.

    The types of object are data subject, waybill and case.
    """
    return {
        HoldKind.SUBJECT: keys.subject,
        HoldKind.WAYBILL: keys.waybill,
        HoldKind.CASE: keys.case,
    }


def list_expressions(keys: Keys) -> Iterator[tuple[HoldKind, int, str]]:
    """Yield all key expressions of a record class.

    Args:
        keys: the keys of the record class in retention.yaml.

    Yields:
        Type of object that the key identifies (data subject, waybill, case); index of the
        expression in the list of this type in retention.yaml; the expression.
    """
    for kind, texts in expressions_by_kind(keys).items():
        for index, text in enumerate(texts):
            yield kind, index, text


def read_key_types(
    connection: psycopg.Connection[Any], keys: Keys, relation: Relation
) -> dict[str, KeyType]:
    """Return the types of the key expressions of a record class.

    Args:
        connection: connection to the mapped database. No record is read.
        keys: key expressions of the record class.
        relation: table of the record class.

    Returns:
        Key expression -> type.

    Raises:
        psycopg.Error: the database cannot evaluate a key expression.
    """
    oids = {
        text: _oid(connection, text, relation) for _kind, _place, text in list_expressions(keys)
    }
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


def explain_unusable(kind: HoldKind, key_type: KeyType) -> tuple[str, str] | None:
    """Return why no legal hold can match keys of a data type.

    Return None if a legal hold can match them.

    Args:
        kind: type of object that the key identifies, such as a waybill.
        key_type: data type of the key.

    Returns:
        The reason, and the action that corrects it.
    """
    if key_type.form is not None:
        return None
    return (
        f"a key of {kind} has the type {key_type.title}: no value that a person types can equal "
        "it, so a hold would keep nothing",
        f"Write an expression of one of these types in `keys` of retention.yaml: {KEY_TYPES}. For "
        "JSON, select a member (t.data ->> 'id'); for an array, select its items (t.ids[1]).",
    )


_NUMBERS = (Form.INTEGER, Form.NUMERIC)
_IDENTIFIERS = (Form.UUID, Form.MAC, Form.BYTES)  # equal values have equal text in each class
_PRINTED_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True)
class TypedKeys:
    """The data types of all keys of one database.

    Attributes:
        types: type of object (data subject, waybill, case) -> data types of the keys that identify
            such objects, in all record classes.
    """

    types: Mapping[HoldKind, Collection[KeyType]] = field(default_factory=dict)

    @staticmethod
    def of(keys: Iterable[Keys], types: Iterable[Mapping[str, KeyType]]) -> TypedKeys:
        """Collect the types of all keys of one database.

        Args:
            keys: key expressions of each record class.
            types: for each record class in the same order: key expression -> type.
        """
        by_kind: dict[HoldKind, set[KeyType]] = defaultdict(set)
        for own, by_text in zip(keys, types, strict=True):
            for kind, _place, text in list_expressions(own):
                by_kind[kind].add(by_text[text])
        return TypedKeys(dict(by_kind))

    def are_on_hold(
        self, kind: HoldKind, key_type: KeyType, text: str, values: Collection[str]
    ) -> Composable:
        """Return the SQL condition that the key of a record equals a value of a legal hold.

        Args:
            kind: type of object that the key identifies, such as a waybill.
            key_type: data type of the key.
            text: SQL expression of the key. It refers to the record by the alias ``t``.
            values: values of legal holds on this type of object, as people typed them.
        """
        return key_type.matches(text, self._spellings(kind, values))

    def name_subjects(self, key_type: KeyType, text: str, subjects: Collection[str]) -> Composable:
        """Return the SQL condition that the key of a record identifies one of the data subjects.

        Args:
            key_type: data type of the key.
            text: key expression over the record ``t``.
            subjects: keys of the data subjects, as written in their erasure requests.
        """
        return key_type.matches(text, self.forms_of_subjects(key_type, subjects))

    def forms_of_subjects(self, key_type: KeyType, subjects: Collection[str]) -> set[str]:
        """Return all texts that equal a record's key if the record belongs to one of the data
        subjects.

        The result contains the keys in `subjects` as they were entered, and in canonical format. A
        key is left out if no value of the data type `key_type` can equal it; see `can_name`.

        Args:
            key_type: data type of the record's key.
            subjects: keys of the data subjects, as written in their erasure requests.
        """
        spellings = self._spellings(HoldKind.SUBJECT, subjects)
        return key_type.forms({value for value in spellings if can_name(key_type, value)})

    def subjects_on_hold(
        self, subjects: Collection[str], values: Collection[str]
    ) -> frozenset[str]:
        """Return those of the keys in `subjects` to which a legal hold applies.

        Args:
            subjects: keys of data subjects, as written in their erasure requests.
            values: keys of data subjects that legal holds name, as people typed them.
        """
        held = set(subjects).intersection(values)
        for key_type in self.types.get(HoldKind.SUBJECT, ()):
            forms = {_folded(key_type, value) for value in values} - {None}
            held |= {subject for subject in subjects if _folded(key_type, subject) in forms}
        return frozenset(held)

    def _spellings(self, kind: HoldKind, values: Collection[str]) -> set[str]:
        """Return values as people typed them, and in the formats in which PostgreSQL prints them.

        A format is added only for a UUID, MAC address or bytea value, and only if the database has
        a key of this type that identifies the type of object. A text column may contain a copy of
        such a key.

        Args:
            kind: type of object that the values identify, such as a waybill.
            values: the values as people typed them.
        """
        types = [key_type for key_type in self.types.get(kind, ()) if key_type.form in _IDENTIFIERS]
        return set(values).union(*(key_type.forms(values) for key_type in types))


def can_name(key_type: KeyType, subject: str) -> bool:
    """Return whether a key of a certain data type can equal the key in an erasure request.

    Args:
        key_type: data type of the key.
        subject: key of the data subject, as written in the erasure request.
    """
    if key_type.form in _NUMBERS and not _PRINTED_NUMBER.fullmatch(subject):
        return False
    return key_type.canonical(subject) is not None


def _folded(key_type: KeyType, value: str) -> str | None:
    form = key_type.canonical(value)
    return form.lower() if form is not None and key_type.form is Form.CASELESS else form
