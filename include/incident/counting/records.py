"""Counting the affected records of a collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.sql import SQL, Composable

from include.incident.counting.affected import Affected
from include.incident.counting.live import Collected
from include.incident.counting.reading import first_and_last, span


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
        values: conditions over ``r``: rows that meet them are counted too, where the collection is
            looked through.
    """
    matches = found.matches(one)
    if not matches:
        return Rows()
    at = one.at.sql if one.at else SQL("NULL::timestamptz")
    if len(matches) == 1:
        source = SQL("{} WHERE {}").format(matches[0].source, matches[0].where)
    else:
        parts = [
            SQL("SELECT {}, {} AS made_at FROM {} WHERE {}").format(
                SQL(", ").join(one.identity), at, match.source, match.where
            )
            for match in matches
        ]
        source = SQL("({}) AS r").format(SQL(" UNION ").join(parts))
        at, values = SQL("made_at"), {}
    valued = [SQL(", count(*) FILTER (WHERE {})").format(each) for each in values.values()]
    query = SQL("SELECT count(*), count({}), {}{} FROM {}").format(
        at, span(at, one.at.type if one.at else None), SQL("").join(valued), source
    )
    row = found.live.connection.execute(query, found.values).fetchone()
    assert row is not None
    count, dated, first, last, *rest = row
    first, last = first_and_last(found.live.connection, [(first, last)], at, source, found.values)
    undated = count - dated if one.at else 0
    return Rows(count, undated, first, last, dict(zip(values, rest, strict=True)))
