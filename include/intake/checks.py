"""Check incoming rows against the conditions of intake.yaml and against expectations.

The expectations are those of quality/*.yaml about the incoming collection. `include.expectations`
checks them in the same transaction that reads the batch.
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

from include.expectations.broken import KeyList
from include.expectations.check import Check as Checking
from include.expectations.check import RuleResult, Snapshot, fault_of
from include.expectations.conditions import Records
from include.frozen import FrozenModel
from include.intake.incoming import Incoming
from include.messages import Message, verbatim
from include.policy.expectations import Expectation
from include.policy.fragments import pack_sql
from include.policy.intake import Check
from include.schema.live import read_schema

FAIL: Literal["fail"] = "fail"
Severity = Literal["fail", "warn"]
Key = tuple[Any, ...]


def _no_keys() -> Iterator[Key]:
    return iter(())


class Verdict(FrozenModel):
    """The result of checking a batch against one condition of intake.yaml or one expectation.

    Attributes:
        rule: id of the condition or expectation.
        title: what the condition or expectation requires.
        severity: ``fail`` if rows that break the condition or expectation must not become formal
            records, ``warn`` if the reviewer is only informed.
        rows: number of checked rows.
        broken: number of rows that break the condition or expectation; None if it could not be
            checked.
        fault: reason why the condition or expectation could not be checked, without the database's
            message; empty if it was checked.
        keys: function that returns, as text, the primary keys of the rows that break the condition
            or expectation. It only works during the transaction in which the batch was checked. The
            step record does not contain it.
    """

    rule: str
    title: Message
    severity: Severity
    rows: int
    broken: int | None
    fault: Message = verbatim("")
    keys: Callable[[], Iterator[Key]] = Field(default=_no_keys, exclude=True, repr=False)


class Checker(Protocol):
    """An object that checks the rows of a batch against conditions or expectations."""

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Check the rows of a batch, and return one result for each condition or expectation.

        Args:
            connection: connection on which the transaction is open that reads the batch.
            where: SQL condition on the incoming table that selects the rows of the batch.
            now: current time.
        """
        ...


@dataclass(frozen=True)
class ConditionChecks:
    """Checks rows against the conditions of intake.yaml.

    Attributes:
        incoming: incoming table and its rule, which contains the conditions.
    """

    incoming: Incoming

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Count the rows that break each condition of intake.yaml, in a single scan of the table.

        If PostgreSQL reports an error, each condition is checked again in its own scan, so that the
        error only concerns the condition that causes it.
        """
        del now  # conditions do not use the time
        checks = self.incoming.rule.checks
        if not checks:
            return []
        try:
            with connection.transaction():
                return self._count(connection, checks, where)
        except psycopg.Error:
            return [
                verdict
                for check in checks
                for verdict in self._count_single(connection, check, where)
            ]

    def _keys(
        self, connection: psycopg.Connection[Any], checks: Sequence[Check], where: Composable
    ) -> list[list[Key]]:
        """Return, for each condition, the primary keys of the rows that break it.

        A row breaks a condition if the condition is false or null. A single scan finds the keys for
        all conditions. This scan is a separate query, because the keys are not needed to display a
        batch.

        Args:
            connection: connection on which the transaction is open that reads the batch.
            checks: the conditions.
            where: SQL condition on the incoming table that selects the rows of the batch.
        """
        broken = [SQL("({}) IS NOT TRUE").format(pack_sql(check.condition)) for check in checks]
        query = SQL(
            "SELECT * FROM (SELECT {key}, ARRAY[{broken}] AS broken FROM {table} AS i "
            "WHERE {where}) AS judged WHERE true = ANY (broken)"
        ).format(
            key=SQL(", ").join(
                SQL("{}::text AS {}").format(
                    self.incoming.column(column_or_flag), Identifier(f"k{index}")
                )
                for index, column_or_flag in enumerate(self.incoming.key)
            ),
            broken=SQL(", ").join(broken),
            table=self.incoming.table,
            where=where,
        )
        keys_by_check: list[list[Key]] = [[] for _ in checks]
        for *key, breaks in connection.execute(query, {}):
            for keys, column_or_flag in zip(keys_by_check, breaks, strict=True):
                if column_or_flag:
                    keys.append(tuple(key))
        return keys_by_check

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
        broken_keys = cache(partial(self._keys, connection, checks, where))

        def keys(index: int) -> Iterator[Key]:
            return iter(broken_keys()[index])

        return [
            Verdict(
                rule=check.id,
                title=check.message,
                severity=FAIL,
                rows=row[0],
                broken=count,
                keys=partial(keys, index),
            )
            for index, (check, count) in enumerate(zip(checks, row[1:], strict=True))
        ]

    def _count_single(
        self, connection: psycopg.Connection[Any], check: Check, where: Composable
    ) -> list[Verdict]:
        try:
            with connection.transaction():
                return self._count(connection, [check], where)
        except psycopg.Error as error:
            fault = fault_of(error.sqlstate or "").with_detail
            return [
                Verdict(
                    rule=check.id, title=check.message, severity=FAIL, rows=0, broken=None,
                    fault=fault,
                )
            ]  # fmt: skip


@dataclass(frozen=True)
class SuiteChecks:
    """Checks rows against the expectations of quality/*.yaml about the incoming collection.

    Attributes:
        incoming: incoming table and its rule of intake.yaml.
        expectations: expectations about the incoming collection.
        timezone: IANA name of the policy pack's timezone.
    """

    incoming: Incoming
    expectations: Sequence[Expectation]
    timezone: str = "UTC"

    def check(
        self, connection: psycopg.Connection[Any], where: Composable, now: datetime
    ) -> Sequence[Verdict]:
        """Check all expectations with Great Expectations, and return one result for each."""
        if not self.expectations:
            return []
        broken_keys = KeyList()
        checking = self._checking(connection, where, now, broken_keys)
        return [_verdict(broken_keys, result) for result in checking.run()]

    def _checking(
        self,
        connection: psycopg.Connection[Any],
        where: Composable,
        now: datetime,
        broken_keys: KeyList,
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
        return Checking(
            Snapshot(connection), records, self.expectations, now, broken_keys, most=None
        )


def _verdict(broken_keys: KeyList, result: RuleResult) -> Verdict:
    rule = result.rule
    broken = None if result.fault is not None else result.broken
    fault = result.fault.with_detail if result.fault is not None else verbatim("")

    def keys() -> Iterator[Key]:
        return iter(broken_keys.keys[rule.id])

    return Verdict(
        rule=rule.id, title=rule.message, severity=rule.severity, rows=result.rows, broken=broken,
        fault=fault, keys=keys,
    )  # fmt: skip


def check_rules(
    checkers: Sequence[Checker],
    connection: psycopg.Connection[Any],
    where: Composable,
    now: datetime,
) -> list[Verdict]:
    """Check a batch with all checkers, and return the result of each condition and expectation.

    Args:
        checkers: checkers of the conditions and of the expectations.
        connection: connection on which the transaction is open that reads the batch.
        where: SQL condition on the incoming table that selects the rows of the batch.
        now: current time.
    """
    return [verdict for checker in checkers for verdict in checker.check(connection, where, now)]


def broken_by_rule(
    checkers: Sequence[Checker],
    connection: psycopg.Connection[Any],
    where: Composable,
    now: datetime,
) -> tuple[list[Verdict], dict[str, list[Key]]]:
    """Check a batch, and find the rows that must not become formal records.

    Args:
        checkers: checkers of the conditions and of the expectations.
        connection: connection on which the transaction is open that reads the batch.
        where: SQL condition on the incoming table that selects the rows of the batch.
        now: current time.

    Returns:
        Two values. The first is the result of each condition and expectation. The second is: id of
        a condition or expectation of severity ``fail`` -> primary keys of the rows that break it.
    """
    verdicts = check_rules(checkers, connection, where, now)
    keys: dict[str, list[Key]] = {}
    for verdict in verdicts:
        if verdict.broken and verdict.severity == FAIL:
            keys.setdefault(verdict.rule, []).extend(verdict.keys())
    return verdicts, keys


def blocked_rows(keys: Mapping[str, Sequence[Key]]) -> set[Key]:
    """Return the primary keys of all rows that must not become formal records.

    Args:
        keys: id of a condition or expectation of severity ``fail`` -> primary keys of the rows that
            break it.
    """
    return {tuple(key) for rows in keys.values() for key in rows}
