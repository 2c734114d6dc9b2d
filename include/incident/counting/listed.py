"""Keys that were listed, as one database may have them.

A key that no column can hold, such as a word where keys are numbers, is not found; it is no error.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composable

from include.incident.counting.live import INTEGERS, Collected, Live
from include.incident.selection import Selection, located

_UUID, _TIMESTAMPTZ = 2950, 1184  # type oids of PostgreSQL
_TEXTS = {25, 1043}


@dataclass(frozen=True)
class Listed:
    """The keys that were listed for a database.

    Attributes:
        keys: as they were typed.
        places: of each in the list, from 1.
        collection: of records that the keys name; None where they are people's.
    """

    keys: Sequence[str] = ()
    places: Sequence[int] = ()
    collection: str | None = None

    def values(self, live: Live, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The parameters of `people` and `records`.

        Args:
            live: the database.
            keys: other ones than all.
        """
        given = list(dict.fromkeys(self.keys if keys is None else keys))
        return {
            "listed_people": _different(_as_key(key, live.key) for key in given),
            "listed_numbers": _different(_number(key, 2**63) for key in given),
            "listed_texts": given,
        }

    def people(self, live: Live) -> Composable:
        """A relation of the listed people's keys ``k``, each once; some may not be there."""
        if _is_typed(live.key):
            typed = "SELECT DISTINCT one::{} AS k FROM unnest(%(listed_people)s::text[]) AS one"
            return SQL(typed).format(live.key_name)
        return SQL("SELECT {} AS k FROM {} AS s WHERE {} = ANY(%(listed_people)s::text[])").format(
            live.person, live.people, printed(live, live.person)
        )

    def records(self, collected: Collected) -> list[Composable]:
        """Conditions over ``r``, of which one holds where a record was listed."""
        found: list[Composable] = []
        for one in collected.named:
            if one.type in INTEGERS:
                wanted = "{} IN (SELECT one::bigint FROM unnest(%(listed_numbers)s::text[]) AS one)"
            else:
                wanted = "({})::text IN (SELECT one FROM unnest(%(listed_texts)s::text[]) AS one)"
            found.append(SQL(wanted).format(one.sql))
        return found

    def missing(self, found: Iterable[str], kind: int | None) -> list[int]:
        """Places of keys that were not found.

        Args:
            found: keys that were, as PostgreSQL prints them.
            kind: oid of the type of the people's key; None where the keys are of records.
        """
        there = set(found)
        return [
            place
            for place, key in zip(self.places, self.keys, strict=True)
            if there.isdisjoint(_written(key, kind))
        ]


def of_database(selection: Selection, database: str) -> Listed:
    """The keys of a selection that are of a database."""
    mine = [(place, key) for place, where, key in located(selection) if where == database]
    collection = None
    if selection.keys_of is not None and mine:
        collection = selection.keys_of.removeprefix(f"{database}.")
    return Listed([key for _, key in mine], [place for place, _ in mine], collection)


def printed(live: Live, key: Composable) -> Composable:
    """The people's key as text, as sessions print it that name records: moments in UTC."""
    if live.key == _TIMESTAMPTZ:
        return SQL("(({}) AT TIME ZONE 'UTC')::text || '+00'").format(key)
    return SQL("({})::text").format(key)


def _different(keys: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(one for one in keys if one is not None))


def _is_typed(kind: int) -> bool:
    return kind in INTEGERS or kind in _TEXTS or kind == _UUID


def _as_key(key: str, kind: int) -> str | None:
    """A key as a column of that type prints it; None where it cannot hold it."""
    if kind in INTEGERS:
        return _number(key, INTEGERS[kind])
    if kind == _UUID:
        try:
            return str(uuid.UUID(key))
        except ValueError:
            return None
    return key


def _written(key: str, kind: int | None) -> set[str]:
    """How a key may be printed that was typed like this."""
    if kind is not None:
        found = _as_key(key, kind)
        return set() if found is None else {found}
    number = _number(key, 2**63)
    return {key} if number is None else {key, number}


def _number(key: str, below: int) -> str | None:
    digits = key.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 40):
        return None
    value = int(key)
    return str(value) if -below <= value < below else None
