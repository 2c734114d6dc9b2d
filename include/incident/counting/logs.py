"""Find the records that accounts opened or that a partner received, by the logs of a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Placeholder

from include.incident.counting.live import Live, linked, plain_column
from include.incident.counting.reading import (
    CannotCount,
    among,
    column,
    joined,
    moment,
    table,
    value,
)
from include.incident.rules import Lookup
from include.incident.selection import Selection
from include.messages import _
from include.policy.fragments import all_of, pack_sql

_DATE = 1082  # type oid of PostgreSQL


def in_window(at: Composable, selection: Selection, kind: int | None = None) -> Composable:
    """Return whether a moment is in the window: from ``since`` on and before ``until``.

    So windows that follow each other share nothing. A moment that nobody knows may be in any, and
    what only has a day is in the window where a part of that day is.

    Args:
        at: the moment.
        selection: its values are the parameters ``since`` and ``until``.
        kind: oid of the moment's type, where it may be a day.
    """
    since = "%(since)s::timestamptz::date" if kind == _DATE else "%(since)s::timestamptz"
    limits = []
    if selection.since is not None:
        limits.append(SQL("{} >= {}").format(at, SQL(since)))
    if selection.until is not None:
        limits.append(SQL("{} < %(until)s::timestamptz").format(at))
    return SQL("({} OR {} IS NULL)").format(all_of(limits), at) if limits else SQL("true")


MOST_KEYS = 3_000_000
"""So many people's keys are brought here, as one text, and given to what counts; where a log names
more, each query looks into the log itself."""


@dataclass(frozen=True)
class Logged:
    """What the logs say.

    Attributes:
        people: a relation of keys ``k``, each once.
        people_count: how many, where their keys are parameters; None where they are too many.
        linked: whether all of them stand in the collection of people, for sure.
        values: parameters of it.
        rows: entries that say so.
        first: moment of the oldest of these; None where none has one.
        last: of the newest.
        accounts: people whose records each account opened.
    """

    people: Composable
    people_count: int | None = None
    linked: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    accounts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Log:
    """One log: where, whose key it has, by whom, and which entries count."""

    source: Composable
    subject: Composable
    who: Composable
    at: Composable
    where: Composable
    linked: bool


def logged(live: Live, selection: Selection) -> Logged | None:
    """Find whom the logs name; None where the selection asks for no log.

    Raises:
        CannotCount: it asks for a log that the database does not have.
        psycopg.Error: the log is not as incident.yaml says, or may not be read.
    """
    found = []
    if selection.accounts:
        found.append(_read(live, _accesses(live, selection), selection, "opened"))
    if selection.partner is not None:
        found.append(_read(live, _shares(live, selection), selection, "shared"))
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    opened, shared = found
    counts = [one.people_count for one in found if one.people_count is not None]
    return Logged(
        people=SQL("{} INTERSECT {}").format(opened.people, shared.people),
        people_count=min(counts, default=None),
        linked=opened.linked or shared.linked,
        values={**opened.values, **shared.values},
        rows=opened.rows + shared.rows,
        first=min(filter(None, (opened.first, shared.first)), default=None),
        last=max(filter(None, (opened.last, shared.last)), default=None),
        accounts=opened.accounts,
    )


def _accesses(live: Live, selection: Selection) -> _Log:
    log = live.rule.access
    if log is None:
        raise CannotCount(
            _("incident.yaml names no log of accesses there, so nobody knows what accounts opened.")
        )
    source = SQL("{} AS a").format(table(live.database, log.collection))
    who = value(live.database, "a", log.account)
    if isinstance(log.account, Lookup):
        source += joined(live.database, "a", log.account, "n")
        who = SQL("{}::text").format(column("n", log.account.name))
    wanted = among(live.database, "a", log.account, SQL("%(accounts)s::text[]"))
    at = column("a", log.at)
    return _Log(
        source, SQL("({})").format(pack_sql(log.subject)), who, at,
        all_of([wanted, in_window(at, selection)]),
        linked(live, log.collection, [plain_column(log.subject, "a")]),
    )  # fmt: skip


def _shares(live: Live, selection: Selection) -> _Log:
    log = live.rule.shares
    if log is None:
        raise CannotCount(
            _("incident.yaml names no log of sharing there, so nobody knows what a partner got.")
        )
    source = SQL("{} AS g").format(table(live.database, log.collection))
    wanted = SQL("({})::text = %(partner)s::text").format(pack_sql(log.partner))
    at = column("g", log.at)
    return _Log(
        source, SQL("({})").format(pack_sql(log.subject)), SQL("NULL::text"), at,
        all_of([wanted, in_window(at, selection)]),
        linked(live, log.collection, [plain_column(log.subject, "g")]),
    )  # fmt: skip


# The log is looked through once: what each account did, and the keys, unless they are too many.
_ENTRIES = """
WITH pair AS MATERIALIZED (
    SELECT {key} AS k, {who} AS who, count(*) AS entries,
        min({at}) FILTER (WHERE isfinite({at})) AS first,
        max({at}) FILTER (WHERE isfinite({at})) AS last
    FROM {source} WHERE {where} GROUP BY 1, 2
), person AS MATERIALIZED (SELECT DISTINCT k FROM pair WHERE k IS NOT NULL),
counted AS MATERIALIZED (SELECT count(*) AS people FROM person)
SELECT true, who, count(k), sum(entries)::bigint, min(first)::timestamptz::text,
    max(last)::timestamptz::text, NULL
FROM pair GROUP BY who
UNION ALL SELECT false, NULL, people, 0, NULL, NULL,
    CASE WHEN people <= %(most)s THEN (SELECT array_agg(k)::text FROM person) END FROM counted
"""


def _read(live: Live, log: _Log, selection: Selection, name: str) -> Logged:
    """What a log says; the parameter with its keys is named after it."""
    given = {
        "accounts": list(selection.accounts),
        "partner": selection.partner,
        "since": selection.since,
        "until": selection.until,
    }
    query = SQL(_ENTRIES).format(
        key=live.as_key(log.subject), who=log.who, at=log.at, source=log.source, where=log.where
    )
    rows = live.connection.execute(query, {**given, "most": MOST_KEYS}).fetchall()
    accounts = dict.fromkeys(selection.accounts, 0)
    groups = [rest for is_group, *rest in rows if is_group]
    ((_, people, _, _, _, keys),) = (rest for is_group, *rest in rows if not is_group)
    for who, count, *_ in groups:
        if who is not None:
            accounts[who] = count
    few = people <= MOST_KEYS
    return Logged(
        people=_given(live, name) if few else _looked_up(live, log),
        people_count=people if few else None,
        linked=log.linked,
        values={name: keys or "{}"} if few else given,
        rows=sum(group[2] for group in groups),
        first=min(filter(None, (moment(group[3]) for group in groups)), default=None),
        last=max(filter(None, (moment(group[4]) for group in groups)), default=None),
        accounts=accounts,
    )


def _given(live: Live, name: str) -> Composable:
    return SQL("SELECT DISTINCT one AS k FROM unnest({}::{}[]) AS one").format(
        Placeholder(name), live.key_name
    )


def _looked_up(live: Live, log: _Log) -> Composable:
    return SQL("SELECT DISTINCT {} AS k FROM {} WHERE {} AND {} IS NOT NULL").format(
        live.as_key(log.subject), log.source, log.where, log.subject
    )
