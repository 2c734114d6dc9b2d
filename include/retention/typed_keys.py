"""How values of holds and requests are compared with the keys of one database.

A hold that keeps too much can be released; a request that reaches too far deletes records of
another person, and one that misses a class is closed although records are left. So each value is
compared in each class by the type of its key, and as a UUID of another class is printed: a text may
be a copy of that key. Numbers are different: of texts, ``0012`` and ``12`` may name two people. A
request that writes a number as no server prints it (``0012``, ``1e3``) names nobody by a number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from psycopg.sql import Composable

from include.holds.registry import HoldKind
from include.policy.retention import Keys
from include.retention.key_types import Form, KeyType, each_expression

_NUMBERS = (Form.INTEGER, Form.NUMERIC)
_IDENTIFIERS = (Form.UUID, Form.MAC, Form.BYTES)  # two values of one form name one thing anywhere
_PRINTED_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True)
class TypedKeys:
    """The types of the keys of one database.

    Attributes:
        types: of the keys of all its record classes, by kind of hold.
    """

    types: Mapping[HoldKind, Collection[KeyType]] = field(default_factory=dict)

    @staticmethod
    def of(keys: Iterable[Keys], types: Iterable[Mapping[str, KeyType]]) -> TypedKeys:
        """Return the types of a database's keys.

        Args:
            keys: of its record classes.
            types: of each of these, by expression.
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
            kind: of the key.
            key_type: of the key.
            text: SQL of the key over the record ``t``.
            values: of holds of this kind, as people typed them.
        """
        return key_type.matches(text, self._spellings(kind, values))

    def name_subjects(self, key_type: KeyType, text: str, subjects: Collection[str]) -> Composable:
        """Return the condition that a key names one of some data subjects who asked.

        Args:
            key_type: of the key.
            text: SQL of the key over the record ``t``.
            subjects: as their requests are written.
        """
        return key_type.matches(text, self.forms_of_subjects(key_type, subjects))

    def forms_of_subjects(self, key_type: KeyType, subjects: Collection[str]) -> set[str]:
        """Return the forms in which keys of a type name data subjects who asked."""
        spellings = self._spellings(HoldKind.SUBJECT, subjects)
        return key_type.forms({value for value in spellings if may_name(key_type, value)})

    def subjects_on_hold(
        self, subjects: Collection[str], values: Collection[str]
    ) -> frozenset[str]:
        """Return which data subjects of requests are under a legal hold.

        Args:
            subjects: as their requests are written.
            values: of holds on data subjects.
        """
        held = set(subjects).intersection(values)
        for key_type in self.types.get(HoldKind.SUBJECT, ()):
            forms = {_folded(key_type, value) for value in values} - {None}
            held |= {subject for subject in subjects if _folded(key_type, subject) in forms}
        return frozenset(held)

    def _spellings(self, kind: HoldKind, values: Collection[str]) -> set[str]:
        """Return values as typed, and as PostgreSQL prints those that are identifiers."""
        types = [it for it in self.types.get(kind, ()) if it.form in _IDENTIFIERS]
        return set(values).union(*(key_type.forms(values) for key_type in types))


def may_name(key_type: KeyType, subject: str) -> bool:
    """Return whether a key of a type may be equal to the key of a request.

    Args:
        key_type: of the key.
        subject: as the request is written.
    """
    if key_type.form in _NUMBERS and not _PRINTED_NUMBER.fullmatch(subject):
        return False
    return key_type.canonical(subject) is not None


def _folded(key_type: KeyType, value: str) -> str | None:
    form = key_type.canonical(value)
    return form.lower() if form is not None and key_type.form is Form.CASELESS else form
