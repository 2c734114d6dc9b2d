"""Who entered a batch and who may review it, by the staff table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.approvals.names import as_compared, is_among, same_person
from include.intake.names import Incoming
from include.policy.fragments import pack_sql
from include.services.errors import ControlFailed

MOST_REVIEWERS = 1000  # names on one question


UNKNOWN_STAFF = "staff:"  # before the key of somebody without an account


@dataclass(frozen=True)
class People:
    """The people of one batch.

    Attributes:
        enterers: Airflow user ids of those who entered rows; ``staff:<key>`` where one has none.
        reviewers: user id -> staff key of those who may review this batch: entitled by the pack
            and not among those who entered a row of it.
    """

    enterers: list[str]
    reviewers: Mapping[str, Any]


def people_of(connection: psycopg.Connection[Any], incoming: Incoming, batch: str) -> People:
    """Look up who entered the pending rows of a batch, and who else may review them."""
    rule = incoming.rule
    query = SQL(
        "SELECT DISTINCT e.by, p.{account}::text "
        "FROM (SELECT DISTINCT {by} AS by FROM {table} WHERE {pending}) AS e "
        "LEFT JOIN {staff} AS p ON p.{key} = e.by"
    ).format(
        account=Identifier(rule.people.account),
        by=Identifier(rule.entered.by),
        table=incoming.table,
        pending=incoming.pending(batch),
        staff=incoming.staff,
        key=Identifier(rule.people.key),
    )
    entered = connection.execute(query).fetchall()
    accounts = sorted({account or f"{UNKNOWN_STAFF}{key}" for key, account in entered})
    keys = {key for key, _account in entered}
    # by key too: one person may have two accounts
    others = {
        account: key
        for account, key in reviewers(connection, incoming).items()
        if key not in keys and not is_among(account, accounts)
    }
    return People(accounts, others)


def reviewers(connection: psycopg.Connection[Any], incoming: Incoming) -> dict[str, Any]:
    """Return all who may review by the pack's condition: user id -> staff key, in key order.

    An account that several people have, in whatever spelling, identifies nobody and is left out.
    """
    rule = incoming.rule
    query = SQL(
        "SELECT p.{account}::text, p.{key}, coalesce(({condition}), false) FROM {staff} AS p "
        "WHERE p.{account} IS NOT NULL ORDER BY 2"
    ).format(
        account=Identifier(rule.people.account),
        key=Identifier(rule.people.key),
        staff=incoming.staff,
        condition=pack_sql(rule.people.reviewers),
    )
    rows = connection.execute(query, {}).fetchall()
    holders = Counter(as_compared(account) for account, _key, _may in rows)
    found = [(account, key) for account, key, may in rows if may]
    return dict([row for row in found if holders[as_compared(row[0])] == 1][:MOST_REVIEWERS])


def staff_key(connection: psycopg.Connection[Any], incoming: Incoming, account: str) -> Any:
    """Return the staff key of an account.

    Raises:
        ControlFailed: nobody has it, or several do.
    """
    rule = incoming.rule
    query = SQL(
        "SELECT p.{key}, p.{account}::text FROM {staff} AS p WHERE p.{account} IS NOT NULL"
    ).format(
        key=Identifier(rule.people.key),
        staff=incoming.staff,
        account=Identifier(rule.people.account),
    )
    found = [row for row in connection.execute(query) if same_person(row[1], account)]
    if len(found) != 1:
        raise ControlFailed(
            f"{len(found)} people of the staff table have the account {account}.",
            "Correct the staff table; the decision stands and is acted on by the next try.",
        )
    return found[0][0]
