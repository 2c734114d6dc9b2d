"""Rules for incoming rows: what they find, and the pack's own conditions as one of their kind.

The rules of a quality suite come from another room; orchestration hands them over as a `Checker`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import psycopg
from psycopg.sql import SQL, Composable

from include.intake.names import Incoming, pack_sql
from include.messages import Message
from include.policy.intake import Check

FAIL: Literal["fail"] = "fail"
Severity = Literal["fail", "warn"]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Verdict:
    """What one rule says of a batch.

    Attributes:
        rule: its id.
        title: what the rule asks for.
        severity: rows that break a ``fail`` rule are not let in; a ``warn`` is for the reviewer.
        rows: looked at.
        broken: of these; None when the rule could not be checked.
        fault: why not: an error's SQLSTATE, never its words; empty when it was checked.
    """

    rule: str
    title: Message
    severity: Severity
    rows: int
    broken: int | None
    fault: str = ""


class Checker(Protocol):
    """Rules that can be held against the pending rows of a batch."""

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Count broken rows by rule; ``where`` is a condition on the incoming table."""
        ...

    def broken_keys(
        self, connection: psycopg.Connection[Any], rule: str, where: Composable, now: datetime
    ) -> Iterator[Key]:
        """Return the primary keys of the rows that break a rule."""
        ...


@dataclass(frozen=True)
class OwnChecks:
    """The conditions of intake.yaml."""

    incoming: Incoming

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Count in one scan; where a condition cannot be evaluated, one by one."""
        del now  # conditions are about the row
        checks = self.incoming.rule.checks
        if not checks:
            return []
        try:
            with connection.transaction():
                return self._count(connection, checks, where)
        except psycopg.Error:
            return [one for check in checks for one in self._alone(connection, check, where)]

    def broken_keys(
        self, connection: psycopg.Connection[Any], rule: str, where: Composable, now: datetime
    ) -> Iterator[Key]:
        """Return the keys of rows whose condition is not true; unknown is not true."""
        del now
        (check,) = [one for one in self.incoming.rule.checks if one.id == rule]
        query = SQL("SELECT {key} FROM {table} AS i WHERE {where} AND ({c}) IS NOT TRUE").format(
            key=SQL(", ").join(map(self.incoming.column, self.incoming.key)),
            table=self.incoming.table,
            where=where,
            c=pack_sql(check.condition),
        )
        yield from connection.execute(query, {})

    def _count(
        self, connection: psycopg.Connection[Any], checks: Sequence[Check], where: Composable
    ) -> list[Verdict]:
        broken = [
            SQL("count(*) FILTER (WHERE ({}) IS NOT TRUE)").format(pack_sql(one.condition))
            for one in checks
        ]
        query = SQL("SELECT {figures} FROM {table} AS i WHERE {where}").format(
            figures=SQL(", ").join([SQL("count(*)"), *broken]),
            table=self.incoming.table,
            where=where,
        )
        row = connection.execute(query, {}).fetchone()
        assert row is not None
        return [
            Verdict(check.id, check.message, FAIL, row[0], count)
            for check, count in zip(checks, row[1:], strict=True)
        ]

    def _alone(
        self, connection: psycopg.Connection[Any], check: Check, where: Composable
    ) -> list[Verdict]:
        try:
            with connection.transaction():
                return self._count(connection, [check], where)
        except psycopg.Error as error:
            fault = f"SQLSTATE {error.sqlstate}"
            return [Verdict(check.id, check.message, FAIL, 0, None, fault)]


def all_verdicts(
    checkers: Sequence[Checker],
    connection: psycopg.Connection[Any],
    where: Composable,
    now: datetime,
) -> list[Verdict]:
    """Hold every rule against a batch."""
    return [one for checker in checkers for one in checker.check(connection, where, now)]


def broken_by_rule(
    checkers: Sequence[Checker],
    connection: psycopg.Connection[Any],
    where: Composable,
    now: datetime,
) -> tuple[list[Verdict], dict[str, list[Key]]]:
    """Hold every rule against a batch, and name the rows that may not be let in, by rule."""
    verdicts: list[Verdict] = []
    keys: dict[str, list[Key]] = {}
    for checker in checkers:
        for one in checker.check(connection, where, now):
            verdicts.append(one)
            if one.broken and one.severity == FAIL:
                keys[one.rule] = list(checker.broken_keys(connection, one.rule, where, now))
    return verdicts, keys
