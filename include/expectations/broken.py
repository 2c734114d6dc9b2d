"""Find, count and list the records that break expectations, in one scan of the table.

A separate query for the counts would evaluate the conditions for every record twice. With a
server-side cursor, PostgreSQL would plan no parallel workers. This module therefore uses a normal
query, and processes the result rows while they arrive.
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
_MAX_RULES_PER_SCAN = 60  # one bit per rule must fit a bigint

Key = tuple[Any, ...]
"""The values of a primary key's columns as text."""


class KeyReceiver(Protocol):
    """An object that receives the keys of records that break expectations during a scan."""

    def add(self, rule: str, key: Key, part: str | None) -> None:
        """Receive the primary key of a record that breaks an expectation.

        Args:
            rule: id of the expectation.
            key: primary key of the record.
            part: value of the SQL expression `Finder.part`, for example the record's department;
                None if the finder has no such expression.
        """
        ...

    def forget(self, rules: Sequence[str]) -> None:
        """Discard the keys that were received for some expectations.

        The expectations will be checked again.

        Args:
            rules: ids of the expectations.
        """
        ...


@dataclass
class KeyList:
    """A receiver that stores all keys in memory.

    Attributes:
        keys: primary keys of the records that break an expectation, by id of the expectation.
    """

    keys: dict[str, list[Key]] = field(default_factory=lambda: defaultdict(list))

    def add(self, rule: str, key: Key, part: str | None) -> None:
        """Store the primary key of a record that breaks an expectation."""
        del part
        self.keys[rule].append(key)

    def forget(self, rules: Sequence[str]) -> None:
        """Discard the keys that were stored for some expectations.

        The expectations will be checked again.

        Args:
            rules: ids of the expectations.
        """
        for rule in rules:
            self.keys.pop(rule, None)


@dataclass
class Finder:
    """Finds the records that break expectations.

    All expectations that need only the record itself are evaluated in one scan. An expectation that
    compares a record with other records has its own query, which PostgreSQL plans as a join.

    Args:
        connection: connection on which a transaction is open.
        dialect: SQLAlchemy's dialect of the connection.
        records: records to check. If they have no primary key, those that break an expectation are
            only counted.
        part: SQL expression whose value is passed on with each key, for example the record's
            department; None if only keys are needed.
        names: object that receives the primary keys of the records that break expectations.
        most: largest number of keys to pass on for each expectation; None for all keys.
    """

    connection: psycopg.Connection[Any]
    dialect: sa.Dialect
    records: Records
    part: sa.ColumnElement[Any] | None
    names: KeyReceiver
    most: int | None

    def find(self, conditions: Mapping[str, Condition]) -> dict[str, int]:
        """Count the records that break each expectation, and pass their keys to `self.names`.

        Args:
            conditions: for each id of an expectation, the condition under which a record breaks it.

        Returns:
            The number of records that break an expectation, by id of the expectation.

        Raises:
            psycopg.Error: PostgreSQL refused one of the conditions.
        """
        apart = [rule for rule, condition in conditions.items() if condition.joined]
        alone = [rule for rule in conditions if rule not in apart]
        scans = [
            alone[at : at + _MAX_RULES_PER_SCAN] for at in range(0, len(alone), _MAX_RULES_PER_SCAN)
        ]
        scans += [[rule] for rule in apart]
        counts = dict.fromkeys(conditions, 0)
        most = sys.maxsize if self.most is None else self.most
        for rules in scans:
            query = self._query([conditions[rule] for rule in rules])
            bits = [(1 << at, rule, conditions[rule].needs_keys) for at, rule in enumerate(rules)]
            for *key, part, mask in self._stream(query):
                for bit, rule, needs_keys in bits:
                    if mask & bit:
                        counts[rule] += 1
                        if key and needs_keys and counts[rule] <= most:
                            self.names.add(rule, tuple(key), part)
        return counts

    def _query(self, conditions: Sequence[Condition]) -> sa.Select[Any]:
        bound = {name: sql for condition in conditions for name, sql in condition.bound.items()}
        record = self.records.with_columns(bound)
        keys = [sa.cast(record.c[column], sa.Text) for column in self.records.key]
        broken = [condition.broken for condition in conditions]
        # The CASE evaluates the conditions again, but only for the few broken records.
        bits: list[sa.ColumnElement[Any]] = [
            sa.case(
                (is_broken, sa.literal_column(f"{1 << at}::bigint")), else_=sa.literal_column("0")
            )
            for at, is_broken in enumerate(broken)
        ]
        mask = sum(bits[1:], bits[0]) if len(bits) > 1 else sa.literal_column("1::bigint")
        part = sa.null() if self.part is None else self.part
        columns: list[sa.ColumnElement[Any]] = [*keys, part, mask]
        return sa.select(*columns).select_from(record).where(sa.or_(*broken))

    def _stream(self, query: sa.Select[Any]) -> Iterator[tuple[Any, ...]]:
        # render_postcompile writes lists of values into the statement before its execution.
        compiled = query.compile(dialect=self.dialect, compile_kwargs={"render_postcompile": True})
        size = ROWS_AT_ONCE if psycopg.capabilities.has_stream_chunked() else 1
        with self.connection.cursor() as cursor:
            yield from cursor.stream(str(compiled).encode(), compiled.params, size=size)
