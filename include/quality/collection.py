"""Checking one collection: which records to look at, what breaks them, what the register keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.examination import Examination
from include.evidence.model import Outcome
from include.expectations import marks, scope
from include.expectations.broken import Key
from include.expectations.check import MOST_NAMED, Check, RuleResult, Snapshot
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
from include.quality.run import Run
from include.quarantine import register
from include.quarantine.keys import KeyNames, tells_a_person
from include.schema.live import LiveTable


@dataclass
class _Staged:
    """Names broken records as the register does, and hands them on to it."""

    stage: register.Stage
    names: KeyNames

    def add(self, rule: str, key: Key, part: str | None) -> None:
        self.stage.add(rule, self.names.of(key), part)

    def forget(self, rules: Sequence[str]) -> None:
        self.stage.forget(rules)


@dataclass
class CollectionCheck:
    """One suite on its table.

    Args:
        suite: what is expected.
        table: as it is now; None when it is gone.
        view: the snapshot that is checked.
        conn: to the state database, in no transaction.
        seen: gets what is found.
    """

    database: MappedDatabase
    collection: MappedCollection
    suite: Suite
    table: LiveTable | None
    view: Snapshot
    conn: Connection
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
        expectations = self.suite.expectations
        mark = marks.take(self.view.connection, records, expectations, self.run.at)
        if tells_a_person(self.collection, records.key):
            mark = None  # what stands in the register as HMAC cannot be asked for again
        if not self._count(records):
            return self._nothing(_("its records may not be read, or not all of them"))
        self._notice_empty()
        stage = register.Stage.of(self.conn)
        narrow, always = self._narrow(records, mark, stage) or (None, set())
        self.whole = narrow is None
        others = [one for one in expectations if one.id not in always]
        looked = records if narrow is None else narrow.records
        results = self._check(looked, others, stage)
        if narrow is None:
            self.looked_at = max((one.rows for one in results), default=0)
        else:
            self.looked_at = len(narrow.keys)
            stage.looked_at(register.key_text(key) for key in narrow.keys)
        change = stage.enter(self._place, _listed(results), "all" if self.whole else "looked_at")
        if always:
            more = self._check(records, [one for one in expectations if one.id in always], stage)
            change += stage.enter(self._place, _listed(more), "all")
            results = sorted(results + more, key=lambda one: expectations.index(one.rule))
        for one in results:
            self._judge(one, change.open.get(one.rule.id), mark)
        rules = [one.id for one in expectations]
        close_dropped(self.seen, self.conn, self._place, rules)
        self.resolved = change.resolved
        return as_judged(results, self.judged)

    def summary(self) -> dict[str, Any]:
        """What the report needs of this collection; no customer value."""
        with self.conn.begin():
            parts = register.by_part(self.conn, self.database.name, self.collection.name)
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

    def _check(
        self,
        records: Records,
        expectations: Sequence[Expectation],
        stage: register.Stage,
    ) -> list[RuleResult]:
        if not expectations:
            return []
        names = KeyNames(self.run.keys, self.database.name, self.collection, records.key)
        staged = _Staged(stage, names)
        rows = self.rows if records.where is None else None
        checking = Check(
            self.view, records, expectations, self.run.at, staged, self._part, rows=rows
        )
        return checking.run()

    def _mapped_key(self) -> tuple[str, ...]:
        assert self.table is not None
        key = self.collection.primary_key
        return key if all(one in self.table.columns for one in key) else ()

    def _narrow(
        self, records: Records, mark: marks.Mark | None, stage: register.Stage
    ) -> tuple[scope.Narrow, set[str]] | None:
        """The records to look at, and the rules that look at all of them nevertheless.

        None when all rules look at all records.
        """
        assert self.table is not None
        # A key that only the data map knows may be null or repeat itself.
        if self.run.full or mark is None or not self.table.primary_key:
            return None
        types = [self.table.columns[one].type for one in records.key]
        if any(one.endswith("[]") for one in types):
            return None
        expectations = self.suite.expectations
        name = (self.database.name, self.collection.name)
        again = [one.id for one in expectations if scope.may_mend_unchanged(one)]
        with self.conn.begin():
            last = history.last_mark(self.conn, *name, expectations, self.run.at)
            if last is None or not marks.usable(last, mark):
                return None
            mended = list(register.open_keys(self.conn, *name, again))
        if any(register.is_digest(one) for one in mended):
            return None
        most = min(int((self.rows or 0) * scope.MOST_CHANGED), scope.MOST_KEYS)
        looking = scope.Scope(self.view.engine, records, types, most)
        try:
            with self.view.savepoint():
                always = scope.lists_changed(self.view.engine, records, expectations, last)
                always |= {one.id for one in expectations if scope.looks_at_all(one)}
                keys = [tuple(register.key_of(one)) for one in mended]
                narrow = looking.narrowed(expectations, last, self.run.at, keys)
                if narrow is None or not self._notice_gone(looking, stage):
                    return None
        except SQLAlchemyError:  # a column was dropped or retyped: its own rule will say so
            return None
        return narrow, always

    def _notice_gone(self, looking: scope.Scope, stage: register.Stage) -> bool:
        """Count records of the register that are no longer there as looked at.

        Returns:
            False where the register does not tell by key which records they are.
        """
        with self.run.state.connect() as conn:
            opened = register.open_keys(conn, self.database.name, self.collection.name)
            while some := list(islice(opened, register.AT_ONCE)):
                if any(register.is_digest(one) for one in some):
                    return False
                gone = looking.gone([tuple(register.key_of(one)) for one in some])
                stage.looked_at(register.key_text(one) for one in gone)
        return True

    def _notice_empty(self) -> None:
        if self.rows:
            return
        with self.conn.begin():
            before = history.had_records(self.conn, self.database.name, self.collection.name)
        if before:
            self.seen.find(
                "quality.emptied",
                Outcome.ATTENTION,
                _("The table had records at the last check and has none."),
                _("Find out who emptied it; if nobody meant to, restore it from a backup."),
                subject=self._subject,
            )
        else:
            self.seen.find(
                "quality.empty",
                Outcome.ATTENTION,
                _("The table has no records, so that nothing is shown of them."),
                _("See whether it is the right table; else leave its suite out."),
                subject=self._subject,
            )

    @property
    def _place(self) -> register.Place:
        run = self.run
        return register.Place(
            self.database.name, self.collection.name, run.dag_id, run.run_id, run.at
        )

    def _nothing(self, reason: Message) -> list[RuleResult]:
        """The results where no record could be looked at."""
        self.whole, self.rows = False, None
        results = [RuleResult(one, fault=reason, named=False) for one in self.suite.expectations]
        for one in results:
            self._judge(one, None, None)
        return results

    def _count(self, records: Records) -> bool:
        """Count the records, and those that each rule with a ``where`` is about."""
        rows = sa.func.count()
        wanted = {
            one.id: condition
            for one in self.suite.expectations
            if (condition := selected(one, self.run.at)) is not None
        }
        different = {str(one): one for one in wanted.values()}
        record = records.selectable
        query = sa.select(rows, *(rows.filter(one) for one in different.values()))
        try:
            with self.view.savepoint(), self.view.engine.connect() as conn:
                self.rows, *about = conn.execute(query.select_from(record)).one()
            amounts = dict(zip(different, about, strict=True))
            self.about = {rule: amounts[str(one)] for rule, one in wanted.items()}
        except SQLAlchemyError:  # one of the conditions is wrong, as its own rule will say
            try:
                with self.view.savepoint(), self.view.engine.connect() as conn:
                    self.rows = conn.scalar(sa.select(rows).select_from(records.table))
            except SQLAlchemyError:  # no right to read, or row security would hide records
                return False
        return True

    @cached_property
    def _part(self) -> sa.ColumnElement[Any] | None:
        """What a record belongs to; None where nobody asked, or it cannot be read."""
        part = self._named_part()
        if part is None or self.table is None:
            return None
        records = Records(self.collection, self.database, tuple(self.table.columns), ())
        try:
            with self.view.savepoint(), self.view.engine.connect() as conn:
                conn.execute(sa.select(part).select_from(records.selectable).limit(0))
        except SQLAlchemyError:  # renamed, or no right to it: no reason to judge no rule
            self.seen.find(
                "quality.no_breakdown",
                Outcome.ATTENTION,
                _("What the broken records belong to could not be read."),
                _("Correct the breakdown in the policy pack, or grant the reader what it names."),
                subject=self._subject,
            )
            return None
        return part

    def _named_part(self) -> sa.ColumnElement[Any] | None:
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

    def _judge(self, found: RuleResult, listed: int | None, mark: marks.Mark | None) -> None:
        """Judge a rule.

        Args:
            found: of it.
            listed: broken records that stand in the register now; None when it lists none of them.
            mark: of this run.
        """
        rule = found.rule
        if found.fault is not None:
            broken = None
        elif listed is None or self.whole:
            # A mapped key of a view may repeat itself: then there are fewer entries than records.
            broken = found.broken
        else:
            broken = listed
        if found.fault is not None or found.broken > MOST_NAMED:
            mark = None  # the next run looks at all of them again
        rows = self.about.get(rule.id, self.rows or 0)
        figures = Figures(rows, broken, listed is not None, self.rows == 0)
        outcome = judge(self.seen, f"{self._subject}.{rule.id}", rule, figures, found.fault)
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
                None if mark is None else str(mark),
            )
        )

    @property
    def _subject(self) -> str:
        return f"{self.database.name}.{self.collection.name}"


def _listed(results: Sequence[RuleResult]) -> list[str]:
    """The rules whose broken records stand in the register by name."""
    return [
        one.rule.id
        for one in results
        if one.fault is None and one.named and one.broken <= MOST_NAMED
    ]


def close_dropped(
    seen: Examination, conn: Connection, place: register.Place, rules: Sequence[str]
) -> None:
    """Close what rules left open that the pack no longer has; that mends no record."""
    with conn.begin():
        closed = register.close_others(conn, place, rules)
    if closed:
        seen.find(
            "quality.rule_dropped",
            Outcome.ATTENTION,
            _(
                "{count} entries of the quarantine register were closed because the policy pack "
                "has their rules no longer: {rules}. Nobody found their records good.",
                count=sum(closed.values()),
                rules=", ".join(sorted(closed)),
            ),
            _("See that the rules were left out on purpose."),
            subject=f"{place.database}.{place.collection}",
        )


def notice_dropped(
    seen: Examination, conn: Connection, run: Run, database: str, collections: set[str]
) -> None:
    """The same for collections of which the pack no longer expects anything."""
    with conn.begin():
        left = register.forsaken(conn, database, run.dag_id, collections)
    for name in left:
        place = register.Place(database, name, run.dag_id, run.run_id, run.at)
        close_dropped(seen, conn, place, ())
