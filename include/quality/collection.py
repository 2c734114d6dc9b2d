"""Check one collection: choose the records to examine, check them, update the register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy import Connection

from include.erasure import ledger
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.expectations.broken import Key
from include.expectations.check import MOST_NAMED, Check, RuleResult, Snapshot, reason_of
from include.expectations.conditions import RECORD, Condition, Records, quoted
from include.messages import Message, _
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.quality import history
from include.quality.history import RuleCheck, close_dropped
from include.quality.incremental import (
    IncrementalCheck,
    IncrementalFigures,
    compares_records,
    examines_all,
    incremental_check,
)
from include.quality.judge import (
    Counts,
    Figures,
    as_judged,
    count,
    is_about_the_table,
    judge,
    part_of,
)
from include.quality.watermark import Watermark, tracking
from include.quarantine import register
from include.quarantine.keys import KeyNames
from include.schema.json_keys import JsonPlace
from include.schema.live import LiveSchema, LiveTable
from include.workflow.run_context import RunContext


@dataclass
class _Staged:
    """Names broken records as the register does, and hands them on to it."""

    stage: register.Stage
    names: KeyNames

    def add(self, rule: str, key: Key, part: str | None) -> None:
        self.stage.add(rule, self.names.of(key), part)

    def forget(self, rules: Sequence[str]) -> None:
        self.stage.forget(rules)


class Scope(StrEnum):
    """The records that a check examined for a rule."""

    ALL = "all"
    CHANGED = "changed"
    LAST_FULL = "last_full"  # none: the figures are those of the last full check


class RuleFigures(BaseModel):
    """The figures of a rule; None if it was not checked. Earlier versions recorded no scope."""

    rule: str
    rows: int | None
    broken: int | None
    outcome: Outcome
    examined: Scope | None = None


class CheckedCollection(BaseModel):
    """The figures of a collection.

    Attributes:
        collection: of the data map.
        rows: number of records; None if they were not counted.
        looked_at: records that were examined.
        whole: whether all records were examined.
        whole_because: why; None in an incremental check and in records of earlier versions.
        resolved: records that are good again, or gone.
        incremental: the scope of an incremental check; None if all records were examined.
        parts: broken records by department, the most first.
        rules: in the order of the policy pack.
    """

    collection: str
    rows: int | None
    looked_at: int
    whole: bool
    whole_because: Message | None = None
    resolved: int
    incremental: IncrementalFigures | None = None
    parts: list[tuple[str | None, int]]
    rules: list[RuleFigures]


@dataclass
class CollectionCheck:
    """One suite on its table.

    Args:
        suite: what is expected.
        table: as it is now; None when it is gone.
        live: all tables.
        view: the snapshot that is checked.
        conn: to the state database, in no transaction.
        run: the run that checks.
        at: the moment of the check.
        findings: of the step.
        indexed: collections and fields by which PostgreSQL finds records without reading them all.
        places: in its JSON columns, of which the data map names the keys.

    Attributes:
        clean: the places that were looked at with the records and have no other keys.
        kept: what the next check has to know beside the rules.
        because: why all records were examined; None in an incremental check.
        incremental: what was examined otherwise.
    """

    database: MappedDatabase
    collection: MappedCollection
    suite: Suite
    table: LiveTable | None
    live: LiveSchema
    view: Snapshot
    conn: Connection
    run: RunContext[None]
    at: datetime
    findings: StepFindings
    indexed: frozenset[tuple[str, str]] = frozenset()
    places: Sequence[JsonPlace] = ()
    clean: list[JsonPlace] = field(default_factory=list)
    kept: list[RuleCheck] = field(default_factory=list)
    checks: list[RuleCheck] = field(default_factory=list)
    counts: Counts | None = None
    looked_at: int = 0
    resolved: int = 0
    whole: bool = True
    because: Message | None = None
    incremental: IncrementalCheck | None = None
    judged: list[tuple[Figures, Outcome]] = field(default_factory=list)
    _part: sa.ColumnElement[Any] | None = None

    @property
    def rows(self) -> int | None:
        """Number of records of the collection; None if it was not examined."""
        return self.counts.rows if self.counts else None

    def check(self) -> list[RuleResult]:
        """Check, enter what is broken, judge; return Great Expectations' results."""
        if self.table is None:
            return self._nothing(_("the table is gone"))
        records = Records(
            self.collection,
            self.database,
            tuple(self.table.columns),
            self.table.primary_key or self._mapped_key(),
            indexed=self.indexed,
            timezone=self.run.pack.calendar.timezone,
        )
        stage = register.Stage.of(self.conn)
        watermark = self._choose(records, self.table)
        if self.incremental is not None:
            last = self.incremental.last
            self.counts = Counts(last.all_rows, last.rows, by_last_full=True)
        elif not self._count(records):
            return self._nothing(reason_of(self.view.first_failure))
        self._notice_empty()
        self._part = part_of(self.view, records, self.suite, self.findings, self._subject)
        results, broken = self._look(records, stage)
        for result in results:
            self._judge(result, broken.get(result.rule.id))
        rules = [expectation.id for expectation in self.suite.expectations]
        close_dropped(self.findings, self.conn, self._place, rules)
        self.kept = [history.clean_place(place) for place in self.clean]
        if self.rows is not None:
            name = self.collection.name
            self.kept.append(history.all_records(name, self.rows, watermark, whole=self.whole))
        return as_judged(results, self.judged)

    def _choose(self, records: Records, table: LiveTable) -> Watermark | None:
        """Choose the records to examine; return the watermark for the next check."""
        zone = self.run.pack.calendar.timezone
        tracked = tracking(self.view, self.collection, table, self.live, self.suite.changed, zone)
        if isinstance(tracked, Message):
            self.because = tracked
            return None
        watermark = tracked.watermark()
        if isinstance(watermark, Message):
            self.because = watermark
            return None
        chosen = incremental_check(
            self.conn, records, tracked, watermark, self.suite.expectations, self.run, self.at
        )
        if isinstance(chosen, Message):
            self.because = chosen
        else:
            self.incremental = chosen
        return watermark

    def summary(self) -> CheckedCollection:
        """Return the figures of the report; they hold no customer value."""
        with self.conn.begin():
            parts = register.by_part(self.conn, self.database.name, self.collection.name)
        checked = any(check.broken is not None for check in self.checks)
        return CheckedCollection(
            collection=self.collection.name,
            rows=self.rows,
            looked_at=self.looked_at,
            whole=self.whole,
            whole_because=self.because,
            resolved=self.resolved,
            incremental=self.incremental and self.incremental.figures,
            parts=parts if self.suite.breakdown and checked else [],
            rules=[
                RuleFigures(
                    rule=check.rule,
                    rows=check.rows,
                    broken=check.broken,
                    outcome=check.outcome,
                    examined=self._examined(check.rule),
                )
                for check in self.checks
            ],
        )

    def _examined(self, rule: str) -> Scope:
        """Return the records that were examined for a rule."""
        if self.incremental is None:
            return Scope.ALL
        (expectation,) = [
            candidate for candidate in self.suite.expectations if candidate.id == rule
        ]
        if examines_all(expectation):
            return Scope.ALL
        return Scope.LAST_FULL if compares_records(expectation) else Scope.CHANGED

    def _look(
        self, records: Records, stage: register.Stage
    ) -> tuple[list[RuleResult], Mapping[str, int]]:
        """Check the records and enter what is broken.

        Returns:
            The results in the order of the expectations, and how many records stand in the register
            after it, by rule, for rules of which it lists any.
        """
        expectations = self.suite.expectations
        with self.conn.begin():
            begun = history.begin(self.conn, self._place)
        if self.incremental is not None:
            return self._look_at_changed(records, self.incremental, stage, begun)
        self.whole = True
        results = self._check(records, expectations, stage, self.rows, self.places)
        self.looked_at = max((result.rows for result in results), default=0)
        change = stage.enter(self._place, _listed(results), "all", begun=begun)
        self.resolved = change.resolved
        return results, change.open

    def _look_at_changed(
        self, records: Records, check: IncrementalCheck, stage: register.Stage, begun: int
    ) -> tuple[list[RuleResult], Mapping[str, int]]:
        """Check changed records; keep the register's entries of all other records."""
        self.whole = False
        groups: dict[Scope, list[Expectation]] = {scope: [] for scope in Scope}
        for rule in self.suite.expectations:
            groups[self._examined(rule.id)].append(rule)
        # A place with undeclared keys may have been cleaned in a record that did not change.
        places = [place for place in self.places if check.last.was_clean(place)]
        results = self._check(check.records, groups[Scope.CHANGED], stage, len(check.keys), places)
        results += self._check(records, groups[Scope.ALL], stage, check.last.all_rows, [])
        self.looked_at = len(check.keys)
        names = self._key_names(records)
        stage.looked_at(names.of(key) for key in check.keys)
        every = [rule.id for rule in groups[Scope.ALL]]
        unexamined = [rule.id for rule in groups[Scope.LAST_FULL] if not is_about_the_table(rule)]
        change = stage.enter(self._place, _listed(results), "looked_at", every, begun, unexamined)
        self.resolved = change.resolved
        results += [_as_before(rule, check) for rule in groups[Scope.LAST_FULL]]
        results.sort(key=lambda one: self.suite.expectations.index(one.rule))
        return results, change.open

    def _check(
        self,
        records: Records,
        expectations: Sequence[Expectation],
        stage: register.Stage,
        rows: int | None,
        places: Sequence[JsonPlace],
    ) -> list[RuleResult]:
        if not expectations:
            return []
        checking = Check(
            self.view,
            records,
            expectations,
            self.at,
            _Staged(stage, self._key_names(records)),
            self._part,
            rows=rows,
            # Those of a column that is no jsonb may not be JSON at all: they are asked alone.
            counted={_name(place): _others(place) for place in places if place.binary},
        )
        results = checking.run()
        self.clean += [place for place in places if checking.counts.get(_name(place)) == 0]
        return results

    def _key_names(self, records: Records) -> KeyNames:
        return KeyNames(
            self.run.services.erasure_keys,
            self.database.name,
            self.collection,
            records.key,
            self._kept_digests(),
        )

    def _kept_digests(self) -> frozenset[str]:
        if len(self.run.services.erasure_keys.keys) == 1:
            return frozenset()  # never rotated
        with self.conn.begin():
            return register.digests(self.conn, self.database.name, self.collection.name)

    def _count(self, records: Records) -> bool:
        """Count the records; False where they may not be read."""
        self.counts = count(self.view, records, self.suite.expectations, self.at)
        return self.counts is not None

    def _mapped_key(self) -> tuple[str, ...]:
        assert self.table is not None
        key = self.collection.primary_key
        return key if all(column in self.table.columns for column in key) else ()

    def _notice_empty(self) -> None:
        if self.rows != 0:
            return
        with self.conn.begin():
            last = history.last_count(self.conn, self.database.name, self.collection.name)
            before, at = last or (0, self.at)
            erased = ledger.deleted_since(self.conn, self.database.name, self.collection.name, at)
        if before and erased >= before:
            self.findings.warn(
                "quality.empty",
                _("The table has no records: by the schedule, {count} were deleted.", count=erased),
                _("No action if that is right. Checks show nothing until the table has records."),
                subject=self._subject,
            )
        elif before:
            self.findings.warn(
                "quality.emptied",
                _("The table had records at the last check and has none."),
                _("Find out who emptied it; if nobody meant to, restore it from a backup."),
                subject=self._subject,
            )
        else:
            self.findings.warn(
                "quality.empty",
                _("The table has no records, so that nothing is shown of them."),
                _("See whether it is the right table; else leave its suite out."),
                subject=self._subject,
            )

    @property
    def _place(self) -> register.Place:
        run = self.run.run
        return register.Place(
            self.database.name, self.collection.name, run.dag_id, run.run_id, self.at
        )

    def _nothing(self, reason: Message) -> list[RuleResult]:
        """The results where no record could be looked at."""
        self.whole, self.counts = False, None
        results = [
            RuleResult(expectation, fault=reason, named=False)
            for expectation in self.suite.expectations
        ]
        for result in results:
            self._judge(result, None)
        return results

    def _broken(self, found: RuleResult, listed: int | None) -> int | None:
        if found.fault is not None:
            return None
        # A mapped key of a view may repeat itself: then there are fewer entries than records.
        return found.broken if listed is None or self.whole else listed

    def _judge(self, found: RuleResult, listed: int | None) -> None:
        """Judge a rule.

        Args:
            found: of it.
            listed: broken records that stand in the register now; None when it lists none of them.
        """
        rule = found.rule
        if found.fault is None and self.counts and rule.id in self.counts.unknown:
            found = replace(found, fault=_("the records that it is about could not be counted"))
        broken = self._broken(found, listed)
        rows = self.counts.of(rule.id) if self.counts else 0
        by_last_full = self.counts is not None and self.counts.by_last_full
        if by_last_full and broken is not None and not is_about_the_table(rule):
            rows = max(rows, broken)  # records came since they were counted
        figures = Figures(rows, broken, listed is not None, self.rows == 0, by_last_full)
        outcome = judge(self.findings, f"{self._subject}.{rule.id}", rule, figures, found.fault)
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
            )
        )

    @property
    def _subject(self) -> str:
        return f"{self.database.name}.{self.collection.name}"


def _name(place: JsonPlace) -> str:
    return f"keys of {place.field}"  # which no rule is called


def _others(place: JsonPlace) -> Condition:
    """Records that may have keys at a place that nobody declared."""
    others = place.others(quoted(RECORD, place.column))
    return Condition(sa.literal_column(others, sa.Boolean), named=False)


def _as_before(rule: Expectation, check: IncrementalCheck) -> RuleResult:
    """Return the last full check's result of a rule that changed records do not decide."""
    from include.expectations import gx

    last = check.last
    return RuleResult(
        rule,
        last.rows[rule.id],
        last.broken[rule.id],
        named=not is_about_the_table(rule),
        evr=gx.not_validated(rule),
    )


def _listed(results: Sequence[RuleResult]) -> list[str]:
    """The rules whose broken records stand in the register by name."""
    return [
        result.rule.id
        for result in results
        if result.fault is None and result.named and result.broken <= MOST_NAMED
    ]
