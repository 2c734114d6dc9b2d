"""Who belongs to a group of people that the pack names, by the staff table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL

from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql, quoted
from include.policy.people import Group, Staff

MOST = 1000  # names on one question


def members(
    connection: psycopg.Connection[Any] | None,
    database: MappedDatabase | None,
    staff: Staff | None,
    group: Group,
    *,
    in_doubt: bool = False,
) -> Sequence[str]:
    """Return the accounts of a group.

    Nobody who stands in the staff table more than once is a member; ``in_doubt`` whoever is by any
    row, since an owner who is overlooked could approve alone.

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
            "SELECT p.{account}::text FROM {staff} AS p WHERE p.{account} IS NOT NULL GROUP BY 1 "
            "HAVING {member} ORDER BY 1 LIMIT {most}"
        ).format(
            member=SQL(
                "bool_or(({condition}) IS TRUE)"
                if in_doubt
                else "count(*) = 1 AND bool_and(({condition}) IS TRUE)"
            ).format(condition=pack_sql(group.where)),
            account=quoted(staff.account),
            staff=quoted(collection.schema_name, collection.table),
            most=SQL("ALL") if in_doubt else MOST,
        )
        found += [row[0] for row in connection.execute(query, {})]
    return list(dict.fromkeys(found))
