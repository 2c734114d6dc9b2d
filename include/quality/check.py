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
from include.expectations.check import MOST_KEPT, Check, RuleResult, Snapshot, snapshot
from include.expectations.conditions import (
    OTHER,
    RECORD,
    Records,
    quoted,
    selected,
    table_of,
)
from include.messages import Message, _
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.quality import history
from include.quality.history import RuleCheck
from include.quality.judge import Figures, as_judged, judge
from include.quarantine import register
from include.quarantine.keys import KeyNames, tells_a_person
from include.schema.drift import DriftKind, drift, mapped_schemas
from include.schema.findings import findings as drift_findings
from include.schema.live import LiveSchema, LiveTable, read_schema
from include.services.database import DatabaseAddress

STEP, CLAUSE = "check", "4.1"
MOST_CHANGED = 0.2  # share of the records above which all are looked at
OVER_COLLECTED = "expect_column_values_to_not_be_collected"


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
    required = {
        (suite.collection, one.id)
        for suite in suites
        for one in suite.expectations
        if one.severity == "fail"
    }
    seen.measure("quality.rules_required", len(required), "1")
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
    about: dict[str, int] = field(default_factory=dict)
    judged: list[tuple[Figures, Outcome]] = field(default_factory=list)

    def check(self) -> list[RuleResult]:
        """Check, enter what is broken, judge; return Great Expectations' results."""
        if self.table is None:
            return self._nothing(_("the table is gone"))
        records = Records(
            self.collection,
            self.database,
            tuple(self.table.columns),
            self.table.primary_key or self._mapped_key(),
        )
        mark = scope.take(self.view.connection, records, self.suite.expectations, self.run.at)
        if tells_a_person(self.collection, records.key):
            mark = None  # what stands in the register as HMAC cannot be asked for again
        if not self._count(records):
            return self._nothing(_("its records may not be read, or not all of them"))
        self._notice_emptied()
        results: list[RuleResult] = []
        changed = self._changed(records, mark)
        self.whole = changed is None
        always = [one for one in self.suite.expectations if changed and scope.looks_at_all(one)]
        others = [one for one in self.suite.expectations if one not in always]
        for part, expectations in ((changed or records, others), (records, always)):
            if expectations:
                checking = Check(self.view, part, expectations, self.run.at, self._part())
                found = checking.run()
                with self.run.state.connect() as conn:  # one for all: each costs a handshake
                    for result in found:
                        self._enter(conn, checking, result, mark)
                results += found
                if part is not records or self.whole:
                    self.looked_at = max((one.rows for one in found), default=0)
        with self.run.state.begin() as conn:
            raw = conn.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            rules = [one.id for one in self.suite.expectations]
            self.resolved += register.close_others(raw, self._place(""), rules)
        return as_judged(results, self.judged)

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
            "parts": parts if self.suite.breakdown else [],
            "rules": [
                {
                    "rule": one.rule,
                    "rows": one.rows,
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

    def _notice_emptied(self) -> None:
        with self.run.state.connect() as conn:
            before = history.last_rows(conn, self.database.name, self.collection.name)
        if before and not self.rows:
            self.seen.find(
                "quality.emptied",
                Outcome.ATTENTION,
                _("The table had {before} records at the last check and has none.", before=before),
                _("Find out who emptied it; if nobody meant to, restore it from a backup."),
                subject=f"{self.database.name}.{self.collection.name}",
            )

    def _place(self, rule: str) -> register.Place:
        return register.Place(
            self.database.name,
            self.collection.name,
            rule,
            self.run.dag_id,
            self.run.run_id,
            self.run.at,
        )

    def _nothing(self, reason: Message) -> list[RuleResult]:
        """The results where no record could be looked at."""
        self.whole, self.rows = False, None
        results = [RuleResult(one, fault=reason, named=False) for one in self.suite.expectations]
        for one in results:
            self._judge(one, None)
        return results

    def _count(self, records: Records) -> bool:
        """Count the records, and those that each rule with a ``where`` is about."""
        rows = sa.func.count()
        wanted = {
            one.id: condition
            for one in self.suite.expectations
            if (condition := selected(one, self.run.at)) is not None
        }
        record = records.selectable
        query = sa.select(rows, *(rows.filter(one) for one in wanted.values())).select_from(record)
        try:
            with self.view.savepoint(), self.view.engine.connect() as conn:
                self.rows, *about = conn.execute(query).one()
            self.about = dict(zip(wanted, about, strict=True))
        except SQLAlchemyError:  # one of the conditions is wrong, as its own rule will say
            try:
                with self.view.savepoint(), self.view.engine.connect() as conn:
                    self.rows = conn.scalar(sa.select(rows).select_from(records.table))
            except SQLAlchemyError:  # no right to read, or row security would hide records
                return False
        return True

    def _enter(
        self, conn: Connection, checking: Check, found: RuleResult, mark: scope.Mark | None
    ) -> None:
        if found.fault is not None or not found.named:
            broken = None if found.fault is not None else found.broken
            self._judge(found, broken, mark, listed=False)
            return
        if found.broken > MOST_KEPT:  # no mark, so that the next run looks at all of them again
            self._judge(found, found.broken, None, listed=False)
            return
        place = self._place(found.rule.id)
        with conn.begin():
            raw = conn.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            change = register.put(raw, place, self._named(checking, found.rule, found.broken))
        self.resolved += change.resolved
        # A mapped key of a view may repeat itself: then there are fewer entries than records.
        self._judge(found, found.broken if self.whole else change.open, mark)

    def _named(
        self, checking: Check, rule: Expectation, broken: int
    ) -> Iterator[tuple[str, str | None]]:
        name = KeyNames(self.run.keys, self.database.name, self.collection, checking.records.key)
        for *key, part in checking.broken_keys(rule) if broken else ():
            yield name.of(key), part

    def _part(self) -> sa.ColumnElement[Any] | None:
        by = self.suite.breakdown
        if by is None or self.table is None or by.column not in self.table.columns:
            return None
        mine: sa.ColumnElement[Any] = sa.literal_column(quoted(RECORD, by.column))
        if by.collection is None or by.label is None:  # the pack's check lets no personal one pass
            return sa.cast(mine, sa.Text)
        other = self.database.collections[by.collection]
        key = other.primary_key
        if len(key) != 1:
            return sa.cast(mine, sa.Text)
        named = table_of(other, (*key, by.label)).alias(OTHER)
        label: sa.ColumnElement[Any] = sa.literal_column(quoted(OTHER, by.label))
        same = sa.literal_column(quoted(OTHER, key[0])) == mine
        return sa.select(sa.cast(label, sa.Text)).select_from(named).where(same).scalar_subquery()

    def _judge(
        self,
        found: RuleResult,
        broken: int | None,
        mark: scope.Mark | None = None,
        *,
        listed: bool = True,
    ) -> None:
        rule = found.rule
        rows = self.about.get(rule.id, self.rows or 0)
        figures = Figures(rows, broken, listed)
        outcome = judge(self.seen, self._subject(rule), rule, figures, found.fault)
        self.judged.append((figures, outcome))
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

    def _subject(self, rule: Expectation) -> str:
        return f"{self.database.name}.{self.collection.name}.{rule.id}"
