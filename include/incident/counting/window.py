"""The time window of a selection, in SQL."""

from __future__ import annotations

from psycopg.sql import SQL, Composable

from include.incident.selection import Selection
from include.policy.fragments import both

_DATE = 1082  # type oid of PostgreSQL


def in_window(at: Composable, selection: Selection, kind: int | None = None) -> Composable:
    """Whether a moment is in the window: from ``since`` on and before ``until``.

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
    return SQL("({} OR {} IS NULL)").format(both(limits), at) if limits else SQL("true")
