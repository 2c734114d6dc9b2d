"""Check the records of one collection, and update the collection's quarantine entries."""

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
from include.expectations.check import MOST_NAMED, Check, CheckFault, RuleResult, Snapshot, fault_of
from include.expectations.conditions import RECORD, Condition, Records, quoted
from include.messages import Message, _
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.quality import history
from include.quality.history import RuleCheck, close_entries_of_removed_rules
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
    count,
    department_expression,
    is_about_the_table,
    judge,
    with_collection_counts,
)
from include.quality.watermark import Watermark, tracking
from include.quarantine import register
from include.quarantine.keys import KeyNames
from include.schema.json_keys import MappedObject
from include.schema.live import LiveSchema, LiveTable
from include.workflow.run_context import RunContext


@dataclass
class _Staged:
    """Collects the keys of records that break expectations, for the quarantine register.

    Attributes:
        stage: temporary tables for the names of these records, until they are written to the
            register.
        names: converts the primary key of a record to the name of the record in the register.
    """

    stage: register.Stage
    names: KeyNames

    def add(self, rule: str, key: Key, part: str | None) -> None:
        self.stage.add(rule, self.names.of(key), part)

    def forget(self, rules: Sequence[str]) -> None:
        self.stage.forget(rules)


class Scope(StrEnum):
    """The records that a check examined for an expectation.

    Attributes:
        ALL: all records.
        CHANGED: only the changed records.
        LAST_FULL: no records; the check uses the counts of the newest full check.
    """

    ALL = "all"
    CHANGED = "changed"
    LAST_FULL = "last_full"  # no record in this check: the counts are those of the last full check


class RuleFigures(BaseModel):
    """The counts and the outcome of one expectation.

    Attributes:
        rule: id of the expectation.
        rows: number of records to which the expectation applies; None if the expectation could not
            be checked.
        broken: number of records that break the expectation; None if the expectation could not be
            checked.
        outcome: outcome of the expectation.
        examined: records that the check examined for the expectation; None in step records that
            earlier versions of the program wrote.
    """

    rule: str
    rows: int | None
    broken: int | None
    outcome: Outcome
    examined: Scope | None = None


class CheckedCollection(BaseModel):
    """The counts and outcomes of a collection.

    Attributes:
        collection: name of the collection in the data map.
        rows: number of records; None if they were not counted.
        looked_at: number of records that the check examined. An incremental check counts only
            changed records here, even if it examined all records for some expectations.
        whole: whether it was a full check, which examines all records. False if the records could
            not be read.
        whole_because: reason for a full check; None in an incremental check and in step records
            that earlier versions of the program wrote.
        resolved: number of quarantine entries that the check closed, because their records meet the
            expectation again or were deleted.
        incremental: facts about an incremental check; None if the check was not incremental.
        parts: pairs of a department and the number of its records in the quarantine register,
            highest number first.
        rules: counts and outcomes of the expectations, in the order of the policy pack.
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
    """A check of one collection against its expectations.

    Args:
        database: the data map that contains the collection.
        collection: the collection in the data map.
        suite: the expectations for the collection, from the policy pack.
        table: the collection's table in the database; None if it does not exist.
        live: all tables in the database.
        view: the snapshot of the database from which the records are read.
        conn: connection to the state database, outside of a transaction.
        run: context of the run.
        at: time of the check.
        findings: findings of the step.
        indexed: pairs of collection and field for which the database has an index.
        mapped_objects: JSON columns of the collection whose keys the data map declares.

    Attributes:
        clean_objects: JSON columns without undeclared keys, of those that were examined together
            with the records.
        history_rows: rows for the check history that are not about an expectation, but about the
            whole collection or a JSON column. The next check needs them.
        full_check_reason: reason for a full check; None in an incremental check.
        incremental: scope of an incremental check; None in a full check.
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
    mapped_objects: Sequence[MappedObject] = ()
    clean_objects: list[MappedObject] = field(default_factory=list)
    history_rows: list[RuleCheck] = field(default_factory=list)
    checks: list[RuleCheck] = field(default_factory=list)
    counts: Counts | None = None
    looked_at: int = 0
    resolved: int = 0
    whole: bool = True
    full_check_reason: Message | None = None
    incremental: IncrementalCheck | None = None
    outcomes: list[tuple[Figures, Outcome]] = field(default_factory=list)
    _part: sa.ColumnElement[Any] | None = None

    @property
    def rows(self) -> int | None:
        """Return the number of records in the collection; None if the records were not counted."""
        return self.counts.rows if self.counts else None

    def check(self) -> list[RuleResult]:
        """Check the records, update the quarantine register, and decide each expectation's outcome.

        Returns:
            The results of the expectations for Data Docs, in the order of the policy pack.
        """
        if self.table is None:
            return self._unexamined(CheckFault(_("the table no longer exists")))
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
            return self._unexamined(fault_of(self.view.first_failure))
        self._notice_empty()
        self._part = department_expression(
            self.view, records, self.suite, self.findings, self._subject
        )
        results, broken = self._examine(records, stage)
        for result in results:
            self._judge(result, broken.get(result.rule.id))
        rules = [expectation.id for expectation in self.suite.expectations]
        close_entries_of_removed_rules(self.findings, self.conn, self._collection_run, rules)
        self.history_rows = [history.clean_object_row(mapped) for mapped in self.clean_objects]
        if self.rows is not None:
            name = self.collection.name
            self.history_rows.append(
                history.record_count_row(name, self.rows, watermark, whole=self.whole)
            )
        return with_collection_counts(results, self.outcomes)

    def _choose(self, records: Records, table: LiveTable) -> Watermark | None:
        """Decide between a full and an incremental check.

        For an incremental check, the method sets the attribute `incremental`. For a full check, it
        sets `full_check_reason`.

        Returns:
            The watermark for the next check; None if the next check has to examine all records.
        """
        zone = self.run.pack.calendar.timezone
        tracked = tracking(self.view, self.collection, table, self.live, self.suite.changed, zone)
        if isinstance(tracked, Message):
            self.full_check_reason = tracked
            return None
        watermark = tracked.watermark()
        if isinstance(watermark, Message):
            self.full_check_reason = watermark
            return None
        chosen = incremental_check(
            self.conn, records, tracked, watermark, self.suite.expectations, self.run, self.at
        )
        if isinstance(chosen, Message):
            self.full_check_reason = chosen
        else:
            self.incremental = chosen
        return watermark

    def summary(self) -> CheckedCollection:
        """Return the counts and outcomes for the report, without customer data."""
        with self.conn.begin():
            parts = register.count_by_department(
                self.conn, self.database.name, self.collection.name
            )
        checked = any(check.broken is not None for check in self.checks)
        return CheckedCollection(
            collection=self.collection.name,
            rows=self.rows,
            looked_at=self.looked_at,
            whole=self.whole,
            whole_because=self.full_check_reason,
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
        """Return which records the check examines for an expectation.

        Args:
            rule: id of the expectation.
        """
        if self.incremental is None:
            return Scope.ALL
        (expectation,) = [
            candidate for candidate in self.suite.expectations if candidate.id == rule
        ]
        if examines_all(expectation):
            return Scope.ALL
        return Scope.LAST_FULL if compares_records(expectation) else Scope.CHANGED

    def _examine(
        self, records: Records, stage: register.Stage
    ) -> tuple[list[RuleResult], Mapping[str, int]]:
        """Check the records, and enter those that break expectations in the quarantine register.

        Args:
            records: records of the collection.
            stage: temporary tables that collect the names of records that break expectations until
                they are written to the quarantine register.

        Returns:
            The results in the order of the expectations; and expectation id -> number of open
            quarantine entries. An expectation is left out if the register does not list the records
            that break it.
        """
        expectations = self.suite.expectations
        with self.conn.begin():
            began = history.begin(self.conn, self._collection_run)
        if self.incremental is not None:
            return self._examine_changed(records, self.incremental, stage, began)
        self.whole = True
        results = self._check(records, expectations, stage, self.rows, self.mapped_objects)
        self.looked_at = max((result.rows for result in results), default=0)
        change = stage.enter(self._collection_run, _listed(results), "all", check_number=began)
        self.resolved = change.resolved
        return results, change.open

    def _examine_changed(
        self, records: Records, check: IncrementalCheck, stage: register.Stage, began: int
    ) -> tuple[list[RuleResult], Mapping[str, int]]:
        """Check only the changed records, and keep the quarantine entries of all other records.

        Expectations whose scope is ``all`` are nevertheless checked on all records. For
        expectations that compare or count records, the result of the newest full check is returned.

        Args:
            records: all records of the collection.
            check: the incremental check, with the changed records and the results of the newest
                full check.
            stage: temporary tables that collect the names of records that break expectations until
                they are written to the quarantine register.
            began: sequence number of this check, as `include.quality.history.begin` returned it.

        Returns:
            The same as `_examine`.
        """
        self.whole = False
        groups: dict[Scope, list[Expectation]] = {scope: [] for scope in Scope}
        for rule in self.suite.expectations:
            groups[self._examined(rule.id)].append(rule)
        # If a column had undeclared keys, unchanged records may have lost them unnoticed. Such
        # a column is examined separately.
        mapped_objects = [mapped for mapped in self.mapped_objects if check.last.was_clean(mapped)]
        results = self._check(
            check.records, groups[Scope.CHANGED], stage, len(check.keys), mapped_objects
        )
        results += self._check(records, groups[Scope.ALL], stage, check.last.all_rows, [])
        self.looked_at = len(check.keys)
        names = self._key_names(records)
        stage.add_checked_keys(names.of(key) for key in check.keys)
        every = [rule.id for rule in groups[Scope.ALL]]
        unexamined = [rule.id for rule in groups[Scope.LAST_FULL] if not is_about_the_table(rule)]
        change = stage.enter(
            self._collection_run, _listed(results), "checked", every, began, unexamined
        )
        self.resolved = change.resolved
        results += [_last_full_result(rule, check) for rule in groups[Scope.LAST_FULL]]
        results.sort(key=lambda result: self.suite.expectations.index(result.rule))
        return results, change.open

    def _check(
        self,
        records: Records,
        expectations: Sequence[Expectation],
        stage: register.Stage,
        rows: int | None,
        mapped_objects: Sequence[MappedObject],
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
            # Only jsonb: a column of another type may contain invalid JSON and is queried
            # separately.
            counted={
                _name(mapped): _undeclared_keys(mapped)
                for mapped in mapped_objects
                if mapped.binary
            },
        )
        results = checking.run()
        self.clean_objects += [
            mapped for mapped in mapped_objects if checking.counts.get(_name(mapped)) == 0
        ]
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
            return frozenset()  # the HMAC key was never rotated
        with self.conn.begin():
            return register.open_digests(self.conn, self.database.name, self.collection.name)

    def _count(self, records: Records) -> bool:
        """Count the records of the collection. Return False if the records cannot be read."""
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
            erased = ledger.count_deleted_since(
                self.conn, self.database.name, self.collection.name, at
            )
        if before and erased >= before:
            self.findings.warn(
                "quality.empty",
                _(
                    "The table has no records: {count} records were deleted after their "
                    "retention period.",
                    count=erased,
                ),
                _(
                    "If the deletion was correct, no action is required. Checks of this table "
                    "give no result until it has records again."
                ),
                subject=self._subject,
            )
        elif before:
            self.findings.warn(
                "quality.emptied",
                _("The table had records at the last check, and is now empty."),
                _(
                    "Find out why the table was emptied. If this was a mistake, restore the "
                    "records from a backup."
                ),
                subject=self._subject,
            )
        else:
            self.findings.warn(
                "quality.empty",
                _("The table has no records, so the check gives no result."),
                _(
                    "Check that the data map names the right table. If this table should be "
                    "empty, remove its expectations from the policy pack."
                ),
                subject=self._subject,
            )

    @property
    def _collection_run(self) -> register.CheckedCollection:
        run = self.run.run
        return register.CheckedCollection(
            self.database.name, self.collection.name, run.dag_id, run.run_id, self.at
        )

    def _unexamined(self, fault: CheckFault) -> list[RuleResult]:
        """Return a result without counts for each expectation of an unreadable collection.

        Args:
            fault: why the collection cannot be read. Each result states this reason.
        """
        self.whole, self.counts = False, None
        results = [
            RuleResult(expectation, fault=fault, keys_available=False)
            for expectation in self.suite.expectations
        ]
        for result in results:
            self._judge(result, None)
        return results

    def _broken(self, result: RuleResult, listed: int | None) -> int | None:
        if result.fault is not None:
            return None
        # The mapped key of a view may not be unique: then there are fewer entries than records.
        return result.broken if listed is None or self.whole else listed

    def _judge(self, result: RuleResult, listed: int | None) -> None:
        """Decide the outcome of an expectation, and store the outcome with the counts.

        Args:
            result: result of the expectation.
            listed: number of records that break the expectation according to the quarantine
                register; None if the register lists no records for the expectation.
        """
        rule = result.rule
        if result.fault is None and self.counts and rule.id in self.counts.unknown:
            reason = _("the records to which the expectation applies could not be counted")
            result = replace(result, fault=CheckFault(reason))
        broken = self._broken(result, listed)
        rows = self.counts.of(rule.id) if self.counts else 0
        by_last_full = self.counts is not None and self.counts.by_last_full
        if by_last_full and broken is not None and not is_about_the_table(rule):
            rows = max(rows, broken)  # records were added since the last full check
        figures = Figures(rows, broken, listed is not None, self.rows == 0, by_last_full)
        subject = f"{self._subject}.{rule.id}"
        # The message contains the title of the rule.
        self.findings.subject_titles[subject] = self.database.collection_title(self.collection.name)
        outcome = judge(self.findings, subject, rule, figures, result.fault)
        self.outcomes.append((figures, outcome))
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


def _name(mapped: MappedObject) -> str:
    return f"keys of {mapped.field}"  # ids of rules contain no spaces


def _undeclared_keys(mapped: MappedObject) -> Condition:
    """Return the SQL condition that selects the records that possibly have undeclared keys.

    The condition also selects records that have another value, such as an array, in place of the
    JSON object. If it selects no record, the object has no undeclared keys. Otherwise the keys of
    the object are read after this check.

    Args:
        mapped: the JSON column, or an object inside it, with its declared keys.
    """
    has_others = mapped.may_have_undeclared_keys(quoted(RECORD, mapped.column))
    return Condition(sa.literal_column(has_others, sa.Boolean), needs_keys=False)


def _last_full_result(rule: Expectation, check: IncrementalCheck) -> RuleResult:
    """Return the result of an expectation in the newest full check.

    Args:
        rule: the expectation.
        check: the incremental check, with the results of the newest full check.
    """
    from include.expectations import gx

    last = check.last
    return RuleResult(
        rule,
        last.rows[rule.id],
        last.broken[rule.id],
        keys_available=not is_about_the_table(rule),
        evr=gx.not_validated(rule),
    )


def _listed(results: Sequence[RuleResult]) -> list[str]:
    """Return the ids of expectations for which the quarantine register can list all broken records.

    The register cannot list them if there are more than `MOST_NAMED` of them, if they have no
    primary key, or if the expectation could not be checked.

    Args:
        results: results of the expectations.
    """
    return [
        result.rule.id
        for result in results
        if result.fault is None and result.keys_available and result.broken <= MOST_NAMED
    ]
