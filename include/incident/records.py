"""Counting the affected records of a collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.sql import SQL, Composable

from include.incident.affected import Affected
from include.incident.live import Collected
from include.incident.reading import span


@dataclass(frozen=True)
class Rows:
    """Affected records of one collection.

    Attributes:
        count: each once.
        undated: those without a moment.
        first: moment of the oldest; None where none has one.
        last: of the newest.
        valued: how many have a value, by what was asked for; empty where that was not counted.
    """

    count: int = 0
    undated: int = 0
    first: datetime | None = None
    last: datetime | None = None
    valued: Mapping[str, int] = field(default_factory=dict)


def rows_of(found: Affected, one: Collected, values: Mapping[str, Composable]) -> Rows:
    """Count records, in one look at the collection.

    Args:
        found: what is affected.
        one: a collection of it.
        values: conditions over ``r`` whose rows are counted too, where one selector is all.
    """
    selectors = found.selectors(one)
    if not selectors:
        return Rows()
    at = one.at.sql if one.at else SQL("NULL::timestamptz")
    if len(selectors) == 1:
        source = SQL("{} AS r WHERE {}").format(one.table, selectors[0].where)
        asked = values
    else:
        parts = [
            SQL("SELECT {}, {} AS made_at FROM {} AS r WHERE {}").format(
                SQL(", ").join(one.identity), at, one.table, selector.where
            )
            for selector in selectors
        ]
        source = SQL("({}) AS r").format(SQL(" UNION ").join(parts))
        at, asked = SQL("made_at"), {}
    valued = [SQL(", count(*) FILTER (WHERE {})").format(condition) for condition in asked.values()]
    query = SQL("SELECT count(*), count({}), {}{} FROM {}").format(
        at, span(at), SQL("").join(valued), source
    )
    row = found.live.connection.execute(query, found.values).fetchone()
    assert row is not None
    count, dated, first, last, *rest = row
    undated = count - dated if one.at else 0
    return Rows(count, undated, first, last, dict(zip(asked, rest, strict=True)))
