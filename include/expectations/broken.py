"""Which records break which expectations: found, counted and named in one scan.

Counting first and asking for the keys afterwards would judge every record twice, and a cursor of
the server, which hands rows on a few at a time, makes PostgreSQL do without its parallel workers.
Here rows stream to us while one query runs to its end, and on to whoever wants the keys.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa

from include.expectations.conditions import Condition, Records

ROWS_AT_ONCE = 1_000
_MOST_IN_ONE = 60  # rules; their bits fit a bigint

Key = tuple[Any, ...]
"""A primary key, each of its columns as text."""


class Names(Protocol):
    """Takes the keys of broken records while they are found."""

    def add(self, rule: str, key: Key, part: str | None) -> None:
        """Take the key of a record that breaks a rule, and what the record belongs to."""
        ...

    def forget(self, rules: Sequence[str]) -> None:
        """Discard the keys of rules: they are checked again."""
        ...


@dataclass
class Kept:
    """Keys kept in memory, for batches of which all are needed at once."""

    keys: dict[str, list[Key]] = field(default_factory=lambda: defaultdict(list))

    def add(self, rule: str, key: Key, part: str | None) -> None:
        """Keep one."""
        del part
        self.keys[rule].append(key)

    def forget(self, rules: Sequence[str]) -> None:
        """Drop those of rules."""
        for rule in rules:
            self.keys.pop(rule, None)


@dataclass
class Finder:
    """Finds the records that break rules: one scan for all that a record tells by itself.

    Rules for which other records are asked have a query each, which PostgreSQL turns into a join.

    Args:
        connection: in an open transaction.
        dialect: of SQLAlchemy, for it.
        records: what is looked at; without a key its broken ones are counted only.
        part: what a record belongs to, a department.
        names: takes the keys.
        most: keys to name for each rule; None for all.
    """

    connection: psycopg.Connection[Any]
    dialect: sa.Dialect
    records: Records
    part: sa.ColumnElement[Any] | None
    names: Names
    most: int | None

    def find(self, conditions: Mapping[str, Condition]) -> dict[str, int]:
        """Count the records that break each rule, and name up to the most of them.

        Raises:
            psycopg.Error: PostgreSQL refused one of the conditions.
        """
        apart = [rule for rule, one in conditions.items() if one.joined]
        alone = [rule for rule in conditions if rule not in apart]
        scans = [alone[at : at + _MOST_IN_ONE] for at in range(0, len(alone), _MOST_IN_ONE)]
        scans += [[rule] for rule in apart]
        counts = dict.fromkeys(conditions, 0)
        most = sys.maxsize if self.most is None else self.most
        for rules in scans:
            query = self._query([conditions[rule] for rule in rules])
            bits = [(1 << at, rule, conditions[rule].named) for at, rule in enumerate(rules)]
            for *key, part, mask in self._stream(query):
                for bit, rule, named in bits:
                    if mask & bit:
                        counts[rule] += 1
                        if key and named and counts[rule] <= most:
                            self.names.add(rule, tuple(key), part)
        return counts

    def _query(self, conditions: Sequence[Condition]) -> sa.Select[Any]:
        bound = {name: sql for condition in conditions for name, sql in condition.bound.items()}
        record = self.records.with_columns(bound)
        keys = [sa.cast(record.c[column], sa.Text) for column in self.records.key]
        broken = [condition.broken for condition in conditions]
        # Judged again only for the few records that are broken at all.
        bits: list[sa.ColumnElement[Any]] = [
            sa.case((one, sa.literal_column(f"{1 << at}::bigint")), else_=sa.literal_column("0"))
            for at, one in enumerate(broken)
        ]
        mask = sum(bits[1:], bits[0]) if len(bits) > 1 else sa.literal_column("1::bigint")
        part = sa.null() if self.part is None else self.part
        columns: list[sa.ColumnElement[Any]] = [*keys, part, mask]
        return sa.select(*columns).select_from(record).where(sa.or_(*broken))

    def _stream(self, query: sa.Select[Any]) -> Iterator[tuple[Any, ...]]:
        # Lists of values are written out: they stand in the statement only when it is executed.
        compiled = query.compile(dialect=self.dialect, compile_kwargs={"render_postcompile": True})
        size = ROWS_AT_ONCE if psycopg.capabilities.has_stream_chunked() else 1
        with self.connection.cursor() as cursor:
            yield from cursor.stream(str(compiled).encode(), compiled.params, size=size)
