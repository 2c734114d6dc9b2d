"""The members of a group that the pack names, and whether two entries name the same person.

Every comparison of people uses this module, as separation of duties requires: requester and
approver, enterer and reviewer, owner and tester. Databases compare spellings by collations of their
own, so queries return every spelling and the comparison is made here.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL

from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql, quoted
from include.policy.mapping import Group, Staff

# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): first and last.
_IGNORABLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_FIRST = [first for first, _last in _IGNORABLE]
# Drawn as nothing, although Unicode does not call them ignorable: the braille pattern without
# dots, Egyptian blanks, the filler of Khitan, the null notehead, the object replacement.
_BLANK = frozenset("\u2800\ufffc\U00013441\U00013442\U00016fe4\U0001d159")
_CATEGORIES = ("Cf", "Cc")


def is_invisible(character: str) -> bool:
    """Return whether a character other than white space leaves no visible sign.

    Marks that combine with a letter, as scripts and accents need them, are visible.
    """
    number = ord(character)
    at = bisect_right(_FIRST, number) - 1
    return (
        (at >= 0 and number <= _IGNORABLE[at][1])
        or character in _BLANK
        or unicodedata.category(character) in _CATEGORIES
    )


def as_compared(name: str) -> str:
    """Return a person's name, number or account as it is compared, however it was typed.

    Compatibility forms, case, blanks and invisible characters make no difference: the caseless
    match of Unicode (3.13, D146) without white space. Accents and other combining marks do.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = (sign for sign in folded if not sign.isspace() and not is_invisible(sign))
    return unicodedata.normalize("NFKC", "".join(visible))


def same_person(name: str, other: str) -> bool:
    """Return whether two entries name the same person; an empty entry names nobody."""
    return as_compared(name) == as_compared(other) != ""


def is_among(name: str, people: Iterable[str]) -> bool:
    """Return whether people include a person; an empty entry is never included."""
    return any(same_person(name, person) for person in people)


def without(people: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the people without the others, in their order and spelling."""
    left_out = {as_compared(other) for other in others}
    return [person for person in people if as_compared(person) not in left_out]


MOST = 1000  # names on one question


class _Entry(NamedTuple):
    """The rows of the staff table that spell an account in one way."""

    account: str
    rows: int
    one_fits: bool
    all_fit: bool


def members(
    connection: psycopg.Connection[Any] | None,
    database: MappedDatabase | None,
    staff: Staff | None,
    group: Group,
    *,
    in_doubt: bool = False,
) -> Sequence[str]:
    """Return the accounts of a group.

    Nobody who stands in the staff table more than once, in whatever spelling, is a member;
    ``in_doubt`` whoever is by any row, since an owner who is overlooked could approve alone.

    Args:
        connection: to the database of the staff table; None where the pack names none.
        database: that database.
        staff: the staff table.
        group: of the pack.
        in_doubt: whether one row that fits is enough.
    """
    found = list(group.accounts)
    if group.where and connection is not None and database is not None and staff is not None:
        collection = database.collections[staff.collection]
        query = SQL(
            "SELECT p.{account}::text, count(*), bool_or(({condition}) IS TRUE), "
            "bool_and(({condition}) IS TRUE) "
            "FROM {staff} AS p WHERE p.{account} IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).format(
            condition=pack_sql(group.where),
            account=quoted(staff.account),
            staff=quoted(collection.schema_name, collection.table),
        )
        found += _members(map(_Entry._make, connection.execute(query, {})), in_doubt=in_doubt)
    return list(dict.fromkeys(found))


def _members(entries: Iterable[_Entry], *, in_doubt: bool) -> list[str]:
    people: dict[str, list[_Entry]] = {}
    for entry in entries:
        people.setdefault(as_compared(entry.account), []).append(entry)
    if in_doubt:
        return [
            entry.account
            for own in people.values()
            if any(entry.one_fits for entry in own)
            for entry in own
        ]
    unique = [own[0] for own in people.values() if sum(entry.rows for entry in own) == 1]
    return [entry.account for entry in unique if entry.all_fit][:MOST]
