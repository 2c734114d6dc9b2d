"""Find the people whose records certain accounts opened, or whose data a partner received.

The access log and the sharing log name these people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Placeholder

from include.incident.counting.live_database import LiveDatabase, has_foreign_keys, plain_column
from include.incident.counting.snapshot import (
    CannotCount,
    column,
    lookup_join,
    name_condition,
    name_expression,
    parse_moment,
    table_name,
)
from include.incident.rules import Lookup
from include.incident.selection import Selection
from include.messages import _
from include.policy.fragments import all_of, pack_sql

_DATE = 1082  # type oid of PostgreSQL


def window_condition(at: Composable, selection: Selection, kind: int | None = None) -> Composable:
    """Return the SQL condition that a time is in the time window of the entered criteria.

    The window includes ``since`` and excludes ``until``, so consecutive windows do not overlap.
    NULL is in every window. A date without a time is in the window if the window includes any part
    of the day.

    Args:
        at: SQL expression for the time.
        selection: criteria with the time window. The condition uses the query parameters ``since``
            and ``until``.
        kind: OID of the data type of the expression; None if it is certain that the expression is
            not a date.
    """
    since = "%(since)s::timestamptz::date" if kind == _DATE else "%(since)s::timestamptz"
    limits = []
    if selection.since is not None:
        limits.append(SQL("{} >= {}").format(at, SQL(since)))
    if selection.until is not None:
        limits.append(SQL("{} < %(until)s::timestamptz").format(at))
    return SQL("({} OR {} IS NULL)").format(all_of(limits), at) if limits else SQL("true")


MAX_INLINE_KEYS = 3_000_000
"""Largest number of people's keys that are passed to queries as a parameter. If a log names more,
each query reads the log itself."""


@dataclass(frozen=True)
class LoggedSubjects:
    """The people named by the log entries to which the entered criteria apply.

    Attributes:
        people: SQL that selects the keys of these people as a column ``k``, each once.
        people_count: number of these people; None if they are too many to pass their keys as a
            query parameter. If the access log and the sharing log are combined, the number is an
            upper bound.
        is_linked: whether foreign keys guarantee that all these people are in the subject table.
        values: values of the query parameters in ``people``.
        rows: number of log entries to which the criteria apply.
        first: time of the oldest of these entries; None if no entry has a time.
        last: time of the newest of these entries; None if no entry has a time.
        accounts: account -> number of people whose records the account opened.
    """

    people: Composable
    people_count: int | None = None
    is_linked: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    accounts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _LogSource:
    """The SQL to read a log: its table, its columns, and a condition on its entries.

    The condition is true for the entries to which the entered criteria apply.
    """

    source: Composable
    subject: Composable
    account: Composable
    at: Composable
    where: Composable
    is_linked: bool


def read_logs(live: LiveDatabase, selection: Selection) -> LoggedSubjects | None:
    """Find the people named by the log entries to which the entered criteria apply.

    If the criteria contain both accounts and a partner, only people named in both logs are
    included. Return None if the criteria use no log.

    Args:
        live: database with the tables and columns that `inspect_database` found.
        selection: criteria that `check_selection` returned.

    Raises:
        CannotCount: the criteria use a log that the database does not have.
        psycopg.Error: the log does not match incident.yaml, or may not be read.
    """
    logged = []
    if selection.accounts:
        logged.append(_read_log(live, _access_log(live, selection), selection, "opened"))
    if selection.partner is not None:
        logged.append(_read_log(live, _share_log(live, selection), selection, "shared"))
    if not logged:
        return None
    if len(logged) == 1:
        return logged[0]
    opened, shared = logged
    counts = [log.people_count for log in logged if log.people_count is not None]
    return LoggedSubjects(
        people=SQL("{} INTERSECT {}").format(opened.people, shared.people),
        people_count=min(counts, default=None),
        is_linked=opened.is_linked or shared.is_linked,
        values={**opened.values, **shared.values},
        rows=opened.rows + shared.rows,
        first=min(filter(None, (opened.first, shared.first)), default=None),
        last=max(filter(None, (opened.last, shared.last)), default=None),
        accounts=opened.accounts,
    )


def _access_log(live: LiveDatabase, selection: Selection) -> _LogSource:
    log = live.rule.access
    if log is None:
        raise CannotCount(
            _(
                "The incident rules name no access log of this database, so it is unknown "
                "which records the entered accounts opened."
            )
        )
    source = SQL("{} AS a").format(table_name(live.database, log.collection))
    account = name_expression(live.database, "a", log.account)
    if isinstance(log.account, Lookup):
        source += lookup_join(live.database, "a", log.account, "n")
        account = SQL("{}::text").format(column("n", log.account.name))
    is_selected = name_condition(live.database, "a", log.account, SQL("%(accounts)s::text[]"))
    at = column("a", log.at)
    return _LogSource(
        source, SQL("({})").format(pack_sql(log.subject)), account, at,
        all_of([is_selected, window_condition(at, selection)]),
        has_foreign_keys(live, log.collection, [plain_column(log.subject, "a")]),
    )  # fmt: skip


def _share_log(live: LiveDatabase, selection: Selection) -> _LogSource:
    log = live.rule.shares
    if log is None:
        raise CannotCount(
            _(
                "The incident rules name no sharing log of this database, so it is unknown "
                "which records the partner received."
            )
        )
    source = SQL("{} AS g").format(table_name(live.database, log.collection))
    is_selected = SQL("({})::text = %(partner)s::text").format(pack_sql(log.partner))
    at = column("g", log.at)
    return _LogSource(
        source, SQL("({})").format(pack_sql(log.subject)), SQL("NULL::text"), at,
        all_of([is_selected, window_condition(at, selection)]),
        has_foreign_keys(live, log.collection, [plain_column(log.subject, "g")]),
    )  # fmt: skip


# One scan of the log returns the entries of each account, and the keys unless too many.
_ENTRIES = """
WITH pair AS MATERIALIZED (
    SELECT {key} AS k, {account} AS account, count(*) AS entries,
        min({at}) FILTER (WHERE isfinite({at})) AS first,
        max({at}) FILTER (WHERE isfinite({at})) AS last
    FROM {source} WHERE {where} GROUP BY 1, 2
), person AS MATERIALIZED (SELECT DISTINCT k FROM pair WHERE k IS NOT NULL),
counted AS MATERIALIZED (SELECT count(*) AS people FROM person)
SELECT true, account, count(k), sum(entries)::bigint, min(first)::timestamptz::text,
    max(last)::timestamptz::text, NULL
FROM pair GROUP BY account
UNION ALL SELECT false, NULL, people, 0, NULL, NULL,
    CASE WHEN people <= %(most)s THEN (SELECT array_agg(k)::text FROM person) END FROM counted
"""


def _read_log(
    live: LiveDatabase, log: _LogSource, selection: Selection, name: str
) -> LoggedSubjects:
    """Read the people named by those entries of one log to which the entered criteria apply.

    Args:
        live: database with the tables and columns that `inspect_database` found.
        log: SQL to read the log.
        selection: criteria that `check_selection` returned.
        name: name of the query parameter for the keys of the people.
    """
    parameters = {
        "accounts": list(selection.accounts),
        "partner": selection.partner,
        "since": selection.since,
        "until": selection.until,
    }
    query = SQL(_ENTRIES).format(
        key=live.as_key(log.subject),
        account=log.account,
        at=log.at,
        source=log.source,
        where=log.where,
    )
    rows = live.connection.execute(query, {**parameters, "most": MAX_INLINE_KEYS}).fetchall()
    accounts = dict.fromkeys(selection.accounts, 0)
    groups = [group for is_group, *group in rows if is_group]
    ((_, people, _, _, _, keys),) = (group for is_group, *group in rows if not is_group)
    for account, count, *_ in groups:
        if account is not None:
            accounts[account] = count
    has_few_keys = people <= MAX_INLINE_KEYS
    return LoggedSubjects(
        people=_inline_keys(live, name) if has_few_keys else _keys_from_log(live, log),
        people_count=people if has_few_keys else None,
        is_linked=log.is_linked,
        values={name: keys or "{}"} if has_few_keys else parameters,
        rows=sum(group[2] for group in groups),
        first=min(filter(None, (parse_moment(group[3]) for group in groups)), default=None),
        last=max(filter(None, (parse_moment(group[4]) for group in groups)), default=None),
        accounts=accounts,
    )


def _inline_keys(live: LiveDatabase, name: str) -> Composable:
    return SQL("SELECT DISTINCT one AS k FROM unnest({}::{}[]) AS one").format(
        Placeholder(name), live.key_name
    )


def _keys_from_log(live: LiveDatabase, log: _LogSource) -> Composable:
    return SQL("SELECT DISTINCT {} AS k FROM {} WHERE {} AND {} IS NOT NULL").format(
        live.as_key(log.subject), log.source, log.where, log.subject
    )
