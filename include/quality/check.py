"""Checking the formal records of one database: counts, broken records, quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from include.erasure.ledger import ErasureKeys
from include.evidence.examination import Examination
from include.evidence.model import Outcome, StepRecord
from include.expectations import scope
from include.expectations.check import Check, RuleResult, Snapshot, snapshot
from include.expectations.conditions import OTHER, RECORD, Records, quoted, table_of
from include.messages import Message, _
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.quality import history
from include.quality.history import RuleCheck
from include.quarantine import register
from include.schema.drift import DriftKind, drift, mapped_schemas
from include.schema.findings import findings as drift_findings
from include.schema.live import LiveSchema, LiveTable, read_schema
from include.services.database import DatabaseAddress

STEP, CLAUSE = "check", "4.1"
MOST_NAMED = 100_000  # records of one rule in the register; more are counted, not named
MOST_CHANGED = 0.2  # share of the records above which all are looked at
OVER_COLLECTED = "expect_column_values_to_not_be_collected"
# Keys that tell who a person is never stand in the register as they are.
_PLAIN_KEYS = ("user.unique_id", "user.account", "user.workplace")


@dataclass(frozen=True)
class Run:
    """The run that checks.

    Attributes:
        state: the state database.
        keys: for keys of records that are personal themselves.
        full: look at all records.
        purposes: whether the pack says for which purposes the database's fields are collected.
    """

    dag_id: str
    run_id: str
    at: datetime
    state: Engine
    keys: ErasureKeys
    full: bool = False
    purposes: bool = False


@dataclass
class Checked:
    """What one database's check leaves.

    Attributes:
        record: of the step.
        results: by collection, for Data Docs.
    """

    record: StepRecord
    results: dict[str, list[RuleResult]] = field(default_factory=dict)


def check_database(
    database: MappedDatabase, address: DatabaseAddress, suites: Sequence[Suite], run: Run
) -> Checked:
    """Check every suite of a database on one snapshot, and its schema against the data map.

    May be repeated: what an earlier try entered is found again.

    Raises:
        UsageError: user, password or database name is wrong.
        DatabaseUnavailable: the server does not answer.
    """
    seen = Examination(STEP, CLAUSE, database.name)
    checks: list[RuleCheck] = []
    summaries: list[dict[str, Any]] = []
    done = Checked(seen.record({}))
    with snapshot(address) as view:
        live = read_schema(view.connection, mapped_schemas(database))
        undeclared = _look_at_schema(seen, live, database)
        for suite in suites:
            collection = database.collections[suite.collection]
            table = live.tables.get((collection.schema_name, collection.table))
            one = _Collection(database, collection, suite, table, view, run, seen)
            results = one.check()
            checks += one.checks
            summaries.append(one.summary())
            done.results[collection.name] = results
    with run.state.begin() as conn:
        history.record(
            conn,
            checks,
            database=database.name,
            dag_id=run.dag_id,
            run_id=run.run_id,
            at=run.at,
        )
    _measure(seen, suites, checks, undeclared, run)
    done.record = seen.record({"collections": summaries, "rules": len(checks)})
    return done


def _look_at_schema(seen: Examination, live: LiveSchema, database: MappedDatabase) -> int:
    drifts = drift(live, database)
    seen.findings += drift_findings(drifts)
    return sum(
        one.kind in (DriftKind.UNDECLARED_COLUMN, DriftKind.UNDECLARED_TABLE) for one in drifts
    )


def _measure(
    seen: Examination,
    suites: Sequence[Suite],
    checks: Sequence[RuleCheck],
    undeclared: int,
    run: Run,
) -> None:
    unneeded = {
        (suite.collection, one.id)
        for suite in suites
        for one in suite.expectations
        if one.type == OVER_COLLECTED
    }
    over = [one.broken for one in checks if (one.collection, one.rule) in unneeded]
    known = [one for one in over if one is not None]
    seen.measure("quality.rules", len(checks), "1")
    seen.measure("quality.rules_broken", sum(one.outcome is Outcome.FAIL for one in checks), "1")
    seen.measure("quality.rules_unchecked", sum(one.broken is None for one in checks), "1")
    seen.measure("quality.broken", sum(one.broken or 0 for one in checks), "rows")
    seen.measure("quality.undeclared", undeclared, "1")
    if unneeded or run.purposes:  # no unneeded field at all is a figure too
        complete = len(known) == len(over)
        seen.measure("quality.over_collected", sum(known) if complete else None, "rows")


@dataclass
class _Collection:
    """One suite on its table."""

    database: MappedDatabase
    collection: MappedCollection
    suite: Suite
    table: LiveTable | None
    view: Snapshot
    run: Run
    seen: Examination
    checks: list[RuleCheck] = field(default_factory=list)
    rows: int | None = None
    looked_at: int = 0
    resolved: int = 0
    whole: bool = True

    def check(self) -> list[RuleResult]:
        """Check, enter what is broken, judge; return Great Expectations' results."""
        if self.table is None:
            for one in self.suite.expectations:
                self._judge(one, RuleResult(one, fault=_("the table is gone"), named=False), None)
            return []
        records = Records(
            self.collection,
            self.database,
            tuple(self.table.columns),
            self.table.primary_key or self._mapped_key(),
        )
        mark = scope.take(self.view.connection, records, self.suite.expectations, self.run.at)
        if self._keys_are_personal(records):
            mark = None  # what stands in the register as HMAC cannot be asked for again
        self.rows = self._count(records)
        changed = self._changed(records, mark)
        self.whole = changed is None
        always = [one for one in self.suite.expectations if changed and scope.looks_at_all(one)]
        others = [one for one in self.suite.expectations if one not in always]
        results: list[RuleResult] = []
        for part, expectations in ((changed or records, others), (records, always)):
            if expectations:
                checking = Check(self.view, part, expectations, self.run.at, self._part())
                found = checking.run()
                with self.run.state.connect() as conn:  # one for all: each costs a handshake
                    for result in found:
                        self._enter(conn, checking, result, mark)
                results += found
        return results

    def summary(self) -> dict[str, Any]:
        """What the report needs of this collection; no customer value."""
        with self.run.state.connect() as conn:
            parts = register.by_part(conn, self.database.name, self.collection.name)
        return {
            "collection": self.collection.name,
            "rows": self.rows,
            "looked_at": self.looked_at,
            "whole": self.whole,
            "resolved": self.resolved,
            "parts": parts[:20] if self.suite.breakdown else [],
            "rules": [
                {
                    "rule": one.rule,
                    "broken": one.broken,
                    "outcome": str(one.outcome),
                }
                for one in self.checks
            ],
        }

    def _mapped_key(self) -> tuple[str, ...]:
        assert self.table is not None
        key = self.collection.primary_key
        return key if all(one in self.table.columns for one in key) else ()

    def _keys_are_personal(self, records: Records) -> bool:
        fields = [self.collection.fields.get(name) for name in records.key]
        return any(
            category.startswith("user.") and not category.startswith(_PLAIN_KEYS)
            for one in fields
            if one is not None
            for category in one.categories
        )

    def _changed(self, records: Records, mark: scope.Mark | None) -> Records | None:
        """The records to look at; None when that is all of them."""
        if self.run.full or mark is None or not records.key or self.table is None:
            return None
        expectations = self.suite.expectations
        name = (self.database.name, self.collection.name)
        with self.run.state.connect() as conn:
            last = history.last_mark(conn, *name, expectations, self.run.at)
            if last is None or not scope.usable(last, mark):
                return None
            keys = [register.key_of(one) for one in register.open_keys(conn, *name)]
        types = [self.table.columns[one].type for one in records.key]
        conditions = scope.changed(records, expectations, last, self.run.at)
        most = int((self.rows or 0) * MOST_CHANGED)
        try:
            with self.view.savepoint():
                return scope.narrowed(self.view.engine, records, conditions, types, keys, most)
        except SQLAlchemyError:  # a column was dropped or retyped: its own rule will say so
            return None

    def _count(self, records: Records) -> int:
        with self.view.engine.connect() as conn:
            return int(conn.scalar(sa.select(sa.func.count()).select_from(records.table)) or 0)

    def _enter(
        self, conn: Connection, checking: Check, found: RuleResult, mark: scope.Mark | None
    ) -> None:
        self.looked_at = max(self.looked_at, found.rows)
        if found.fault is not None or not found.named:
            broken = None if found.fault is not None else found.broken
            self._judge(found.rule, found, broken, mark)
            return
        if found.broken > MOST_NAMED:  # a whole check: only that finds so many at once
            self._judge(found.rule, found, found.broken, None)
            return
        place = register.Place(
            self.database.name,
            self.collection.name,
            found.rule.id,
            self.run.dag_id,
            self.run.run_id,
            self.run.at,
        )
        with conn.begin():
            raw = conn.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            change = register.put(raw, place, self._named(checking, found.rule, found.broken))
        self.resolved += change.resolved
        self._judge(found.rule, found, change.open, mark)

    def _named(
        self, checking: Check, rule: Expectation, broken: int
    ) -> Iterator[tuple[str, str | None]]:
        personal = self._keys_are_personal(checking.records)
        for *key, part in checking.broken_keys(rule) if broken else ():
            if personal:
                digest = self.run.keys.digest(
                    self.run.keys.current, self.database.name, self.collection.name, key
                )
                yield register.key_text([f"hmac:{self.run.keys.current}:{digest.hex()}"]), part
            else:
                yield register.key_text(key), part

    def _part(self) -> sa.ColumnElement[Any] | None:
        by = self.suite.breakdown
        if by is None or self.table is None or by.column not in self.table.columns:
            return None
        mine: sa.ColumnElement[Any] = sa.literal_column(quoted(RECORD, by.column))
        if by.collection is None or by.label is None:
            return sa.cast(mine, sa.Text)
        other = self.database.collections[by.collection]
        key = other.primary_key
        if len(key) != 1 or other.fields[by.label].is_personal:
            return sa.cast(mine, sa.Text)
        named = table_of(other, (*key, by.label)).alias(OTHER)
        label: sa.ColumnElement[Any] = sa.literal_column(quoted(OTHER, by.label))
        same = sa.literal_column(quoted(OTHER, key[0])) == mine
        return sa.select(sa.cast(label, sa.Text)).select_from(named).where(same).scalar_subquery()

    def _judge(
        self,
        rule: Expectation,
        found: RuleResult,
        broken: int | None,
        mark: scope.Mark | None = None,
    ) -> None:
        bad = Outcome.FAIL if rule.severity == "fail" else Outcome.ATTENTION
        rows = self.rows
        if broken is None:
            outcome = bad
            self._find_unchecked(rule, found.fault or _("nobody knows why"), bad)
        else:
            good = _holds(rule, rows or 0, broken)
            outcome = Outcome.PASS if good else bad
            if not good:
                self._find_broken(rule, rows or 0, broken, bad)
        self.checks.append(
            RuleCheck(
                self.collection.name,
                rule.id,
                rule.digest,
                self.whole,
                None if broken is None else rows,
                broken,
                outcome,
                None if mark is None or broken is None else str(mark),
            )
        )

    def _find_unchecked(self, rule: Expectation, reason: Message, bad: Outcome) -> None:
        self.seen.find(
            "quality.unchecked",
            bad,
            _(
                "Expected: {title}. This could not be checked: {reason}.",
                title=rule.message,
                reason=reason,
            ),
            _("Correct the rule {rule} in the policy pack, or the table.", rule=rule.id),
            subject=self._subject(rule),
            clause=rule.clause,
        )

    def _find_broken(self, rule: Expectation, rows: int, broken: int, bad: Outcome) -> None:
        self.seen.find(
            "quality.broken",
            bad,
            _(
                "Expected: {title}. {broken} of {rows} records break this; "
                "{tolerated} are tolerated.",
                title=rule.message,
                broken=broken,
                rows=rows,
                tolerated=int(rows * (1 - rule.mostly)),
            ),
            _(
                "See the records by key in the quarantine register, rule {rule}, and correct them.",
                rule=rule.id,
            ),
            subject=self._subject(rule),
            clause=rule.clause,
        )

    def _subject(self, rule: Expectation) -> str:
        return f"{self.database.name}.{self.collection.name}.{rule.id}"


def _holds(rule: Expectation, rows: int, broken: int) -> bool:
    if rule.type.startswith("expect_table_"):
        return broken == 0
    return rows == 0 or broken <= rows * (1 - rule.mostly)
