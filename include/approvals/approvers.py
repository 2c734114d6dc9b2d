"""Compare people's names and accounts, and return the members of groups, for separation of duties.

All code that has to know whether two names or accounts belong to the same person uses this module.
Examples of such pairs are the requester and the approver of a request, and the owner and the tester
of a finding. Each database compares text by its own collation. Therefore queries return the names
as they are stored, and only this module decides which names are equal.
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
from include.policy.mapping import StaffGroup, StaffTable

# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): first and last
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
_IGNORABLE_STARTS = [first for first, _last in _IGNORABLE]
# Drawn as nothing, although not ignorable by Unicode: the braille pattern without dots, Egyptian
# blanks, the filler of Khitan, the null notehead, the object replacement
_BLANK = frozenset("\u2800\ufffc\U00013441\U00013442\U00016fe4\U0001d159")
_INVISIBLE_CATEGORIES = ("Cf", "Cc")


def is_invisible(character: str) -> bool:
    """Return whether a character leaves no visible mark, such as a zero-width space.

    Control characters, including tabs and line breaks, count as invisible. Spaces do not, and
    neither do accents and other combining marks that are drawn.
    """
    number = ord(character)
    index = bisect_right(_IGNORABLE_STARTS, number) - 1
    return (
        (index >= 0 and number <= _IGNORABLE[index][1])
        or character in _BLANK
        or unicodedata.category(character) in _INVISIBLE_CATEGORIES
    )


def normalize_person(name: str) -> str:
    """Return a person's name, number or account in the normal form that is used for comparison.

    Two spellings have the same normal form if they differ only in compatibility characters, case,
    white space or invisible characters. This is the caseless match of Unicode (3.13, D146), applied
    without white space. Spellings with different accents or other combining marks are different.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = (sign for sign in folded if not sign.isspace() and not is_invisible(sign))
    return unicodedata.normalize("NFKC", "".join(visible))


def same_person(name: str, other: str) -> bool:
    """Return whether two names, numbers or accounts belong to the same person.

    Two empty texts are not the same person.
    """
    return normalize_person(name) == normalize_person(other) != ""


def is_among(name: str, people: Iterable[str]) -> bool:
    """Return whether a person is one of the people in a list, in any spelling of the name.

    The result is always False for an empty name.
    """
    return any(same_person(name, person) for person in people)


def exclude_people(people: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the people who are not in `others`. Different spellings of a name are equal.

    The result keeps the order and the spelling of `people`.
    """
    excluded = {normalize_person(other) for other in others}
    return [person for person in people if normalize_person(person) not in excluded]


MAX_MEMBERS = 1000  # maximum number of assigned people of a required action


class _AccountRows(NamedTuple):
    """The rows of the staff table that have the same spelling of an account.

    A query compares each row with the condition of a group of people in the policy pack.

    Attributes:
        account: spelling of the account.
        rows: number of rows with this spelling.
        any_fits: whether at least one of these rows meets the condition.
        all_fit: whether all of these rows meet the condition.
    """

    account: str
    rows: int
    any_fits: bool
    all_fit: bool


def group_members(
    connection: psycopg.Connection[Any] | None,
    database: MappedDatabase | None,
    staff: StaffTable | None,
    group: StaffGroup,
    *,
    any_row: bool = False,
) -> Sequence[str]:
    """Return the accounts that belong to a group of people in the policy pack.

    The accounts that the group lists are always members. If the group has an SQL condition, the
    accounts that meet it in the staff table are members too. Several rows of the staff table can
    name the same account, possibly spelled differently. The condition makes such an account a
    member only if `any_row` is set and one of its rows meets the condition. Callers must set
    `any_row` for a group of owners: an owner who is missing in the result could approve their own
    work.

    Args:
        connection: connection to the database of the staff table; None if the policy pack has no
            staff table.
        database: database of the staff table.
        staff: staff table of the data map.
        group: the accounts and the condition of the group.
        any_row: whether an account with several rows is a member if one of them meets the
            condition. If False, at most `MAX_MEMBERS` accounts are read from the staff table.
    """
    accounts = list(group.accounts)
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
        accounts += _unique_members(
            map(_AccountRows._make, connection.execute(query, {})), any_row=any_row
        )
    return list(dict.fromkeys(accounts))


def _unique_members(entries: Iterable[_AccountRows], *, any_row: bool) -> list[str]:
    people: dict[str, list[_AccountRows]] = {}
    for entry in entries:
        people.setdefault(normalize_person(entry.account), []).append(entry)
    if any_row:
        return [
            entry.account
            for spellings in people.values()
            if any(entry.any_fits for entry in spellings)
            for entry in spellings
        ]
    unique = [
        spellings[0] for spellings in people.values() if sum(entry.rows for entry in spellings) == 1
    ]
    return [entry.account for entry in unique if entry.all_fit][:MAX_MEMBERS]
