"""Whose records accounts opened or a partner was given, by the logs of a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Placeholder

from include.incident.listed import printed
from include.incident.live import Live
from include.incident.named import among, column, joined, table, value
from include.incident.reading import CannotCount, moment, span
from include.incident.selection import Selection
from include.incident.window import in_window
from include.messages import _
from include.policy.fragments import both, pack_sql
from include.policy.incident_scope import Lookup

MOST_KEYS = 200_000
"""So many people's keys are brought here and given to what counts; where a log names more, each
query looks into the log itself. Either way no more than these are held in memory."""


@dataclass(frozen=True)
class Logged:
    """What the logs say.

    Attributes:
        people: a relation of keys ``k``, each once.
        people_count: how many, where their keys are parameters; None where they are too many.
        values: parameters of it.
        rows: entries that say so.
        first: moment of the oldest of these; None where none has one.
        last: of the newest.
        accounts: people whose records each account opened.
    """

    people: Composable
    people_count: int | None = None
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
    return _Log(source, SQL("({})").format(pack_sql(log.subject)), who, at,
                both([wanted, in_window(at, selection)]))  # fmt: skip


def _shares(live: Live, selection: Selection) -> _Log:
    log = live.rule.shares
    if log is None:
        raise CannotCount(
            _("incident.yaml names no log of sharing there, so nobody knows what a partner got.")
        )
    source = SQL("{} AS g").format(table(live.database, log.collection))
    wanted = SQL("({})::text = %(partner)s::text").format(pack_sql(log.partner))
    at = column("g", log.at)
    return _Log(source, SQL("({})").format(pack_sql(log.subject)), SQL("NULL::text"), at,
                both([wanted, in_window(at, selection)]))  # fmt: skip


def _read(live: Live, log: _Log, selection: Selection, name: str) -> Logged:
    """What a log says; the parameter with its keys is named after it."""
    given = {
        "accounts": list(selection.accounts),
        "partner": selection.partner,
        "since": selection.since,
        "until": selection.until,
    }
    kept, whom = live.as_key(log.subject), printed(live, live.as_key(log.subject))
    some = SQL(
        "SELECT {}, {}, count(*), 1, {} FROM {} WHERE {} GROUP BY 1, 2 LIMIT %(most)s"
    ).format(whom, log.who, span(log.at), log.source, log.where)
    groups = live.connection.execute(some, {**given, "most": MOST_KEYS + 1}).fetchall()
    if len(groups) <= MOST_KEYS:
        keys = sorted({key for key, *_rest in groups if key is not None})
        people = SQL("SELECT DISTINCT one::{} AS k FROM unnest({}::text[]) AS one").format(
            live.key_name, Placeholder(name)
        )
        return _summed(groups, people, {name: keys}, selection, len(keys))
    people = SQL("SELECT DISTINCT {} AS k FROM {} WHERE {} AND {} IS NOT NULL").format(
        kept, log.source, log.where, log.subject
    )
    sums = SQL(
        "SELECT '', {}, count(*), count(DISTINCT {}), {} FROM {} WHERE {} GROUP BY 2"
    ).format(log.who, kept, span(log.at), log.source, log.where)
    return _summed(live.connection.execute(sums, given).fetchall(), people, given, selection)


def _summed(
    groups: Sequence[tuple[Any, ...]],
    people: Composable,
    values: Mapping[str, Any],
    selection: Selection,
    keys: int | None = None,
) -> Logged:
    """Add up groups: key or not, account, entries, people, first and last moment."""
    accounts = dict.fromkeys(selection.accounts, 0)
    for key, who, _rows, count, _first, _last in groups:
        if key is not None and who is not None:
            accounts[who] = accounts.get(who, 0) + count
    return Logged(
        people=people,
        people_count=keys,
        values=values,
        rows=sum(one[2] for one in groups),
        first=min(filter(None, (moment(one[4]) for one in groups)), default=None),
        last=max(filter(None, (moment(one[5]) for one in groups)), default=None),
        accounts=accounts,
    )
