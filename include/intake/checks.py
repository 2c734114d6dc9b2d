"""Rules for incoming rows: what they find, and the pack's own conditions as one of their kind.

The rules of the incoming collection's quality suite are checked by `include.expectations`, in the
transaction that looks at the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any, Literal, Protocol

import psycopg
from psycopg.sql import SQL, Composable, Identifier
from pydantic import Field
from sqlalchemy import ColumnElement, literal_column

from include.expectations.broken import Kept
from include.expectations.check import Check as Checking
from include.expectations.check import RuleResult, Snapshot, reason_of
from include.expectations.conditions import Records
from include.frozen import FrozenModel
from include.intake.names import Incoming
from include.messages import Message, verbatim
from include.policy.expectations import Expectation
from include.policy.fragments import pack_sql
from include.policy.intake import Check
from include.schema.live import read_schema

FAIL: Literal["fail"] = "fail"
Severity = Literal["fail", "warn"]
Key = tuple[Any, ...]


def _none() -> Iterator[Key]:
    return iter(())


class Verdict(FrozenModel):
    """The result of holding one rule against a batch.

    Attributes:
        rule: its id.
        title: requirement of the rule.
        severity: rows that break a ``fail`` rule are not let in; a ``warn`` is for the reviewer.
        rows: number of rows that were checked.
        broken: number of rows that break the rule; None if the rule could not be checked.
        fault: why not, without an error's own words; empty if it was checked.
        keys: returns the primary keys of the broken rows, as text, while the transaction lasts; not
            part of the record.
    """

    rule: str
    title: Message
    severity: Severity
    rows: int
    broken: int | None
    fault: Message = verbatim("")
    keys: Callable[[], Iterator[Key]] = Field(default=_none, exclude=True, repr=False)


class Checker(Protocol):
    """Rules that can be held against the pending rows of a batch."""

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Count broken rows by rule; ``where`` is a condition on the incoming table."""
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
            return [
                verdict for check in checks for verdict in self._alone(connection, check, where)
            ]

    def _keys(
        self, connection: psycopg.Connection[Any], checks: Sequence[Check], where: Composable
    ) -> list[list[Key]]:
        """The keys of rows whose condition is not true, by check; unknown is not true.

        One scan for all checks. Nobody asks for them while a batch is only looked at.
        """
        broken = [SQL("({}) IS NOT TRUE").format(pack_sql(check.condition)) for check in checks]
        query = SQL(
            "SELECT * FROM (SELECT {key}, ARRAY[{broken}] AS broken FROM {table} AS i "
            "WHERE {where}) AS judged WHERE true = ANY (broken)"
        ).format(
            key=SQL(", ").join(
                SQL("{}::text AS {}").format(self.incoming.column(one), Identifier(f"k{place}"))
                for place, one in enumerate(self.incoming.key)
            ),
            broken=SQL(", ").join(broken),
            table=self.incoming.table,
            where=where,
        )
        found: list[list[Key]] = [[] for _ in checks]
        for *key, breaks in connection.execute(query, {}):
            for keys, one in zip(found, breaks, strict=True):
                if one:
                    keys.append(tuple(key))
        return found

    def _count(
        self, connection: psycopg.Connection[Any], checks: Sequence[Check], where: Composable
    ) -> list[Verdict]:
        broken = [
            SQL("count(*) FILTER (WHERE ({}) IS NOT TRUE)").format(pack_sql(check.condition))
            for check in checks
        ]
        query = SQL("SELECT {figures} FROM {table} AS i WHERE {where}").format(
            figures=SQL(", ").join([SQL("count(*)"), *broken]),
            table=self.incoming.table,
            where=where,
        )
        row = connection.execute(query, {}).fetchone()
        assert row is not None
        found = cache(partial(self._keys, connection, checks, where))

        def keys(place: int) -> Iterator[Key]:
            return iter(found()[place])

        return [
            Verdict(
                rule=check.id,
                title=check.message,
                severity=FAIL,
                rows=row[0],
                broken=count,
                keys=partial(keys, place),
            )
            for place, (check, count) in enumerate(zip(checks, row[1:], strict=True))
        ]

    def _alone(
        self, connection: psycopg.Connection[Any], check: Check, where: Composable
    ) -> list[Verdict]:
        try:
            with connection.transaction():
                return self._count(connection, [check], where)
        except psycopg.Error as error:
            fault = reason_of(error.sqlstate or "")
            return [
                Verdict(
                    rule=check.id, title=check.message, severity=FAIL, rows=0, broken=None,
                    fault=fault,
                )
            ]  # fmt: skip


@dataclass(frozen=True)
class SuiteChecks:
    """The expectations of quality/*.yaml for the incoming collection.

    Attributes:
        incoming: the table.
        expectations: of its suites.
        timezone: IANA name of the pack's timezone.
    """

    incoming: Incoming
    expectations: Sequence[Expectation]
    timezone: str = "UTC"

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Check with Great Expectations, once for all rules and their keys."""
        if not self.expectations:
            return []
        kept = Kept()
        checking = self._checking(connection, where, now, kept)
        return [_verdict(kept, result) for result in checking.run()]

    def _checking(
        self,
        connection: psycopg.Connection[Any],
        where: Composable,
        now: datetime,
        kept: Kept,
    ) -> Checking:
        collection = self.incoming.collection
        name = (collection.schema_name, collection.table)
        columns = tuple(read_schema(connection, [name[0]]).tables[name].columns)
        condition: ColumnElement[bool] = literal_column(f"({where.as_string(connection)})")
        records = Records(
            collection,
            self.incoming.database,
            columns,
            self.incoming.key,
            condition,
            timezone=self.timezone,
        )
        return Checking(Snapshot(connection), records, self.expectations, now, kept, most=None)


def _verdict(kept: Kept, found: RuleResult) -> Verdict:
    rule = found.rule
    broken = None if found.fault is not None else found.broken
    fault = found.fault or verbatim("")

    def keys() -> Iterator[Key]:
        return iter(kept.keys[rule.id])

    return Verdict(
        rule=rule.id, title=rule.message, severity=rule.severity, rows=found.rows, broken=broken,
        fault=fault, keys=keys,
    )  # fmt: skip


def all_verdicts(
    checkers: Sequence[Checker],
    connection: psycopg.Connection[Any],
    where: Composable,
    now: datetime,
) -> list[Verdict]:
    """Hold every rule against a batch."""
    return [verdict for checker in checkers for verdict in checker.check(connection, where, now)]


def broken_by_rule(
    checkers: Sequence[Checker],
    connection: psycopg.Connection[Any],
    where: Composable,
    now: datetime,
) -> tuple[list[Verdict], dict[str, list[Key]]]:
    """Hold every rule against a batch, and name the rows that may not be let in, by rule."""
    verdicts = all_verdicts(checkers, connection, where, now)
    keys: dict[str, list[Key]] = {}
    for verdict in verdicts:
        if verdict.broken and verdict.severity == FAIL:
            keys.setdefault(verdict.rule, []).extend(verdict.keys())
    return verdicts, keys


def kept_out(keys: Mapping[str, Sequence[Key]]) -> set[Key]:
    """Return the rows that may not be let in, each once however many rules it breaks."""
    return {tuple(key) for found in keys.values() for key in found}
