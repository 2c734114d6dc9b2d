"""Who belongs to a group of people that the pack names, by the staff table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL

from include.approvals.names import as_compared
from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql, quoted
from include.policy.mapping import Group, Staff

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
            for entries_of_person in people.values()
            if any(entry.one_fits for entry in entries_of_person)
            for entry in entries_of_person
        ]
    unique = [
        entries_of_person[0]
        for entries_of_person in people.values()
        if sum(entry.rows for entry in entries_of_person) == 1
    ]
    return [entry.account for entry in unique if entry.all_fit][:MOST]
