"""Which records break which expectations: found, counted and named in one scan.

Counting first and asking for the keys afterwards would judge every record twice, and a cursor of
the server, which hands rows on a few at a time, makes PostgreSQL do without its parallel workers.
Here rows stream to us while one query runs to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa

from include.expectations.conditions import Condition, Records

ROWS_AT_ONCE = 1_000
_MOST_IN_ONE = 60  # rules; their bits fit a bigint


@dataclass
class Broken:
    """The records that break one rule.

    Attributes:
        count: of all of them.
        keys: primary key as text, then the part; None when there were more than could be kept.
    """

    count: int = 0
    keys: list[tuple[Any, ...]] | None = field(default_factory=list)

    def add(self, key: tuple[Any, ...], most: int) -> None:
        """Take one more."""
        self.count += 1
        if self.keys is not None:
            self.keys.append(key)
            if len(self.keys) > most:
                self.keys = None


def find(
    connection: psycopg.Connection[Any],
    dialect: sa.Dialect,
    records: Records,
    conditions: Mapping[str, Condition],
    part: sa.ColumnElement[Any] | None,
    most: int,
) -> dict[str, Broken]:
    """Find the records that break the rules: one scan for all that a record tells by itself.

    Rules for which other records are asked have a query each, which PostgreSQL turns into a join.

    Args:
        connection: in an open transaction.
        dialect: of SQLAlchemy, for it.
        records: what is looked at; without a key its broken ones are counted only.
        conditions: by rule.
        part: what a record belongs to, a department.
        most: keys to keep for each rule.

    Raises:
        psycopg.Error: PostgreSQL refused one of the conditions.
    """
    alone = [rule for rule, one in conditions.items() if not one.joined]
    scans = [alone[at : at + _MOST_IN_ONE] for at in range(0, len(alone), _MOST_IN_ONE)]
    scans += [[rule] for rule, one in conditions.items() if one.joined]
    found = {rule: Broken(keys=[] if records.key else None) for rule in conditions}
    for rules in scans:
        query = _query(records, [conditions[one].broken for one in rules], part)
        bits = [(1 << at, found[rule]) for at, rule in enumerate(rules)]
        for *key, mask in _stream(connection, dialect, query):
            row = tuple(key)
            for bit, one in bits:
                if mask & bit:
                    one.add(row, most)
    return found


def _query(
    records: Records,
    broken: Sequence[sa.ColumnElement[bool]],
    part: sa.ColumnElement[Any] | None,
) -> sa.Select[Any]:
    record = records.selectable
    keys = [sa.cast(record.c[one], sa.Text) for one in records.key]
    # Judged again only for the few records that are broken at all.
    bits: list[sa.ColumnElement[Any]] = [
        sa.case((one, sa.literal_column(f"{1 << at}::bigint")), else_=sa.literal_column("0"))
        for at, one in enumerate(broken)
    ]
    mask = sum(bits[1:], bits[0]) if len(bits) > 1 else sa.literal_column("1::bigint")
    columns: list[sa.ColumnElement[Any]] = [*keys, sa.null() if part is None else part, mask]
    return sa.select(*columns).select_from(record).where(sa.or_(*broken))


def _stream(
    connection: psycopg.Connection[Any], dialect: sa.Dialect, query: sa.Select[Any]
) -> Iterator[tuple[Any, ...]]:
    compiled = query.compile(dialect=dialect)
    size = ROWS_AT_ONCE if psycopg.capabilities.has_stream_chunked() else 1
    with connection.cursor() as cursor:
        yield from cursor.stream(str(compiled).encode(), compiled.params, size=size)
