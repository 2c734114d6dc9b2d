"""Count the records to which each expectation applies, and decide the outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.expectations.check import CheckFault, RuleResult, Snapshot
from include.expectations.conditions import OTHER, RECORD, Records, quoted, selected, table_of
from include.messages import Message, _
from include.policy.expectations import Expectation, Suite, is_within_mostly
from include.policy.kwargs import Uncollected
from include.reports.conclusion import ASK_ENGINEERS


@dataclass(frozen=True)
class Counts:
    """The record counts of a collection.

    Attributes:
        rows: number of all records.
        rows_by_rule: number of records to which an expectation applies, by expectation id. An
            expectation without an entry applies to all records.
        unknown: ids of the expectations for which `rows_by_rule` lacks a number, because a query
            failed.
        by_last_full: whether the newest full check counted the records, and not the present check.
    """

    rows: int
    rows_by_rule: Mapping[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    by_last_full: bool = False

    def of(self, rule: str) -> int:
        """Return the number of records to which an expectation applies.

        Args:
            rule: id of the expectation.
        """
        return self.rows_by_rule.get(rule, self.rows)


def count(
    view: Snapshot, records: Records, expectations: Sequence[Expectation], now: datetime
) -> Counts | None:
    """Count the records to which each expectation applies. Return None if a query fails.

    Args:
        view: the snapshot of the database from which the records are read.
        records: the records of the collection.
        expectations: the expectations.
        now: time of the check. Conditions such as "older than a year" count back from this time.
    """
    conditions = {
        expectation.id: condition
        for expectation in expectations
        if (condition := selected(expectation, now)) is not None
    }
    distinct = {str(condition): condition for condition in conditions.values()}
    counts = _count(view, records, list(distinct.values()))
    if counts is not None:
        rows, *selected_rows = counts
        amounts = dict(zip(distinct, selected_rows, strict=True))
    elif view.first_failure.startswith("57"):
        return None  # the query was cancelled: do not run it again
    else:  # one condition is invalid, and the check of its rule reports it
        all_records = _count(view, records, [])
        if all_records is None:
            return None
        (rows,) = all_records
        separate = {sql: _count(view, records, [condition]) for sql, condition in distinct.items()}
        amounts = {sql: numbers[1] for sql, numbers in separate.items() if numbers is not None}
    by_rule = {
        rule: amounts[str(condition)]
        for rule, condition in conditions.items()
        if str(condition) in amounts
    }
    return Counts(rows, by_rule, unknown=frozenset(conditions.keys() - by_rule.keys()))


def _count(
    view: Snapshot, records: Records, conditions: Sequence[sa.ColumnElement[bool]]
) -> list[int] | None:
    """Count all records and, for each condition, the records that meet the condition.

    Return None if the query fails.
    """
    number = sa.func.count()
    query = sa.select(number, *(number.filter(condition) for condition in conditions))
    try:
        with view.savepoint(), view.engine.connect() as conn:
            return list(conn.execute(query.select_from(records.selectable)).one())
    except SQLAlchemyError:
        return None


LONGEST = 200  # characters of a department's name, which is stored with every broken record


def department_expression(
    view: Snapshot, records: Records, suite: Suite, findings: StepFindings, subject: str
) -> sa.ColumnElement[Any] | None:
    """Return an SQL expression for the department of a record.

    Return None if the suite defines no breakdown by department, or if the columns of the breakdown
    cannot be read.

    Args:
        view: the snapshot of the database from which the records are read.
        records: the records of the collection.
        suite: the expectations of the collection, with the breakdown by department.
        findings: findings of the step; a finding is added if the breakdown cannot be read.
        subject: subject of this finding.
    """
    part = _breakdown(records, suite)
    if part is None:
        return None
    try:
        with view.savepoint(), view.engine.connect() as conn:
            conn.execute(sa.select(part).select_from(records.selectable).limit(0))
    # A column was renamed or is unreadable. The rules can be checked nevertheless.
    except SQLAlchemyError:
        findings.warn(
            "quality.no_breakdown",
            _("The departments of the records that break an expectation could not be read."),
            _(
                "Correct the breakdown by department in the policy pack, or grant the login "
                "the right to read the column of the department."
            ),
            subject=subject,
        )
        return None
    return part


def _breakdown(records: Records, suite: Suite) -> sa.ColumnElement[Any] | None:
    by = suite.breakdown
    if by is None or by.column not in records.columns:
        return None
    own_value: sa.ColumnElement[Any] = sa.literal_column(quoted(RECORD, by.column))
    if by.collection is None or by.label is None:  # the pack loader refuses personal columns
        return _short(own_value)
    other = records.database.collections[by.collection]
    key = other.primary_key
    if len(key) != 1:
        return _short(own_value)
    named = table_of(other, (*key, by.label)).alias(OTHER)
    label: sa.ColumnElement[Any] = sa.literal_column(quoted(OTHER, by.label))
    same = sa.literal_column(quoted(OTHER, key[0])) == own_value
    # The minimum gives one label even if the key is unique only according to the data map.
    return sa.select(sa.func.min(_short(label))).select_from(named).where(same).scalar_subquery()


def _short(name: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.left(sa.cast(name, sa.Text), LONGEST)


@dataclass(frozen=True)
class Figures:
    """The counts of an expectation after a run.

    Attributes:
        rows: number of records to which the expectation applies. Records that its ``where`` does
            not select are left out. So are records whose column is null, if the expectation skips
            null.
        broken: number of records that break the expectation; None if it could not be checked.
        listed: whether the quarantine register lists the records that break the expectation.
        empty: whether the collection has no records. The check reports this once for the
            collection, so the expectations do not report it.
        by_last_full: whether `rows` was counted by the newest full check.
    """

    rows: int
    broken: int | None
    listed: bool = True
    empty: bool = False
    by_last_full: bool = False


def judge(
    findings: StepFindings,
    subject: str,
    rule: Expectation,
    figures: Figures,
    fault: CheckFault | None,
) -> Outcome:
    """Return the outcome of an expectation, and add a finding if the expectation is not met.

    An expectation is not met if more records break it than its tolerance allows, or if it could not
    be checked. A finding is also added if the expectation applies to no record of a collection that
    has records.

    Args:
        findings: findings of the step.
        subject: subject of the finding.
        rule: the expectation.
        figures: counts of the expectation.
        fault: reason why the expectation could not be checked; None if it was checked.
    """
    bad = Outcome.FAIL if rule.severity == "fail" else Outcome.ATTENTION
    if figures.broken is None:
        findings.find(
            "quality.unchecked",
            bad,
            _(
                "The expectation “{title}” could not be checked: {reason}.",
                title=rule.message,
                reason=fault.reason if fault is not None else _("the reason is not known"),
            ),
            ASK_ENGINEERS,
            subject=subject,
            clause=rule.clause,
            for_engineers=_rule_reference(rule, fault.detail if fault is not None else None),
            aspect=rule.id,
        )
        return bad
    if not is_within_tolerance(rule, figures.rows, figures.broken):
        message, action, for_engineers = _finding_texts(rule, figures.rows, figures)
        findings.find(
            "quality.broken",
            bad,
            message,
            action,
            subject=subject,
            clause=rule.clause,
            for_engineers=for_engineers,
            aspect=rule.id,
        )
        return bad
    if not figures.rows and not figures.empty and not is_about_the_table(rule):
        findings.warn(
            "quality.about_nothing",
            _("The expectation “{title}” applies to none of the records.", title=rule.message),
            _(
                "Find out why no record has a value in the field of the expectation, or "
                "correct the condition of the expectation."
            ),
            subject=subject,
            clause=rule.clause,
            for_engineers=_(
                "The condition of the expectation is `where` of the rule `{rule}`.", rule=rule.id
            ),
            aspect=rule.id,
        )
        return Outcome.ATTENTION
    return Outcome.PASS


def is_within_tolerance(rule: Expectation, rows: int, broken: int) -> bool:
    """Return whether an expectation tolerates the number of records that break it.

    Args:
        rule: the expectation.
        rows: number of records to which the expectation applies.
        broken: number of records that break the expectation.
    """
    return broken == 0 if is_about_the_table(rule) else is_within_mostly(rows, broken, rule.mostly)


def is_about_the_table(rule: Expectation) -> bool:
    """Return whether an expectation is about the whole table, and not about single records."""
    return rule.type.startswith("expect_table_")


def _rule_reference(rule: Expectation, detail: Message | None = None) -> Message:
    if detail is None:
        return _("Rule `{rule}` of the policy pack.", rule=rule.id)
    return _("Rule `{rule}` of the policy pack: {detail}.", rule=rule.id, detail=detail)


def _finding_texts(
    rule: Expectation, rows: int, figures: Figures
) -> tuple[Message, Message, Message]:
    """Return the texts of a finding about an expectation: message, action and hint for engineers.

    Args:
        rule: the expectation.
        rows: number of records to which the expectation applies.
        figures: counts of the expectation.
    """
    if is_about_the_table(rule):
        return (
            _(
                "The expectation “{title}” is not met: the table has {rows} records.",
                title=rule.message,
                rows=rows,
            ),
            _("Find out why the number of records in the table differs from the expectation."),
            _rule_reference(rule),
        )
    values = {
        "title": rule.message,
        "broken": figures.broken,
        "rows": rows,
        "tolerated": int(rows * (1 - rule.mostly)),
    }
    message = (
        _(
            "{broken} of {rows} records do not meet the expectation “{title}”; {tolerated} are "
            "tolerated. These numbers are from the last full check.",
            **values,
        )
        if figures.by_last_full
        else _(
            "{broken} of {rows} records do not meet the expectation “{title}”; {tolerated} are "
            "tolerated.",
            **values,
        )
    )
    if not figures.listed:
        action = _(
            "Correct the broken records in the system where they are entered. The quarantine "
            "register does not list them: there are too many of them, or they have no primary "
            "key."
        )
        return message, action, _rule_reference(rule)
    if isinstance(rule.kwargs, Uncollected):
        action = _(
            "Stop collecting this information and delete the information that was collected. "
            "If the company has a lawful purpose for it, have compliance assess the purpose, "
            "then add it to the policy pack. The quarantine register lists the records that "
            "contain it."
        )
        for_engineers = _(
            "`./parcelseal quarantine list --rule {rule}` lists the records; the purposes are in "
            "`purposes.yaml`.",
            rule=rule.id,
        )
        return message, action, for_engineers
    action = _(
        "Correct, review or delete the broken records in the system where they were entered, "
        "or obtain the missing consent. The quarantine register lists these records."
    )
    for_engineers = _(
        "`./parcelseal quarantine list --rule {rule}` lists the records.", rule=rule.id
    )
    return message, action, for_engineers


def with_collection_counts(
    results: Sequence[RuleResult], outcomes: Sequence[tuple[Figures, Outcome]]
) -> list[RuleResult]:
    """Put counts and outcomes of the whole collection into the results; return them for Data Docs.

    In an incremental check, Great Expectations counts only the changed records. The results are
    changed in place.

    Args:
        results: results of Great Expectations.
        outcomes: counts and outcome of each result, in the same order.
    """
    for result, (figures, outcome) in zip(results, outcomes, strict=True):
        if result.evr is not None and figures.broken is not None:
            share = 100 * figures.broken / figures.rows if figures.rows else 0.0
            result.evr.success = outcome is Outcome.PASS
            result.evr.result = {
                "element_count": figures.rows,
                "unexpected_count": figures.broken,
                "unexpected_percent": share,
            }
    return list(results)
