"""Compare values of holds and requests with the keys of one database.

A hold that keeps too much can be released. A request that matches too much deletes records of
another person, and a request that misses a class is closed although records are left. So each value
is compared in each class by the type of the key. A UUID, MAC address or bytea value is also
compared as text in the form in which PostgreSQL prints it, since a text may be a copy of such a
key. Numbers are not: the texts ``0012`` and ``12`` may name two people. A number in a request that
is not written as a server prints it (``0012``, ``1e3``) matches no numeric key.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from psycopg.sql import Composable

from include.holds.registry import HoldKind
from include.policy.retention import Keys
from include.retention.postgres.key_types import Form, KeyType, each_expression

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
