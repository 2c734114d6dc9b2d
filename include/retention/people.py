"""Who owns the retention schedule, and who may approve a plan that is larger than usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL

from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql, quoted
from include.policy.retention import Approval, Group

MOST = 1000  # names on one question


@dataclass(frozen=True)
class People:
    """The people of one question.

    Attributes:
        owners: user ids of those whose work the schedule is, and of who started the run.
        approvers: user ids of those who may answer; none of them is an owner.
    """

    owners: tuple[str, ...]
    approvers: tuple[str, ...]


def people_of(
    connection: psycopg.Connection[Any] | None,
    staff: MappedDatabase | None,
    rule: Approval,
    starter: str | None,
) -> People:
    """Look up who may approve.

    Args:
        connection: to the database of the staff table; None where the pack names none.
        staff: that database.
        rule: of disposition.yaml.
        starter: user id of who started the run; None when its schedule did.
    """
    owners = {
        *_members(connection, staff, rule, rule.owners, in_doubt=True),
        *([starter] if starter else []),
    }
    approvers = _members(connection, staff, rule, rule.approvers)
    return People(tuple(sorted(owners)), tuple(one for one in approvers if one not in owners))


def _members(
    connection: psycopg.Connection[Any] | None,
    database: MappedDatabase | None,
    rule: Approval,
    group: Group,
    *,
    in_doubt: bool = False,
) -> Sequence[str]:
    """Return the accounts of a group.

    Nobody who stands in the staff table more than once is a member; ``in_doubt`` whoever is by any
    row, since an owner who is overlooked could approve alone.
    """
    found = list(group.accounts)
    if group.where and connection is not None and database is not None and rule.staff is not None:
        collection = database.collections[rule.staff.collection]
        query = SQL(
            "SELECT p.{account}::text FROM {staff} AS p WHERE p.{account} IS NOT NULL GROUP BY 1 "
            "HAVING {member} ORDER BY 1 LIMIT {most}"
        ).format(
            member=SQL(
                "bool_or(({condition}) IS TRUE)"
                if in_doubt
                else "count(*) = 1 AND bool_and(({condition}) IS TRUE)"
            ).format(condition=pack_sql(group.where)),
            account=quoted(rule.staff.account),
            staff=quoted(collection.schema_name, collection.table),
            most=SQL("ALL") if in_doubt else MOST,
        )
        found += [row[0] for row in connection.execute(query, {})]
    return list(dict.fromkeys(found))
