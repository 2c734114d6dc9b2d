"""Count the records of a collection by rule, and judge each expectation by the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.expectations.check import RuleResult, Snapshot
from include.expectations.conditions import OTHER, RECORD, Records, quoted, selected, table_of
from include.messages import Message, _
from include.policy.expectations import Expectation, Suite, are_enough
from include.policy.kwargs import Uncollected


@dataclass(frozen=True)
class Counts:
    """Numbers of records.

    Attributes:
        rows: all records of the collection.
        about: records to which a rule applies, by rule; all records if the rule is missing.
        unknown: rules whose records could not be counted.
        by_last_full: the last full check counted them.
    """

    rows: int
    about: Mapping[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    by_last_full: bool = False

    def of(self, rule: str) -> int:
        """Return the number of records to which a rule applies."""
        return self.about.get(rule, self.rows)


def count(
    view: Snapshot, records: Records, expectations: Sequence[Expectation], now: datetime
) -> Counts | None:
    """Count the records; return None where they cannot be counted, or not all of them."""
    wanted = {
        expectation.id: condition
        for expectation in expectations
        if (condition := selected(expectation, now)) is not None
    }
    different = {str(one): one for one in wanted.values()}
    found = _count(view, records, list(different.values()))
    if found is not None:
        rows, *about = found
        amounts = dict(zip(different, about, strict=True))
    elif view.first_failure.startswith("57"):
        return None  # whoever cancelled the query does not want to see it again
    else:  # one of the conditions is wrong, as its own rule will say
        alone = _count(view, records, [])
        if alone is None:
            return None
        (rows,) = alone
        each = {name: _count(view, records, [one]) for name, one in different.items()}
        amounts = {name: one[1] for name, one in each.items() if one is not None}
    known = {rule: amounts[str(one)] for rule, one in wanted.items() if str(one) in amounts}
    return Counts(rows, known, unknown=frozenset(wanted.keys() - known.keys()))


def _count(
    view: Snapshot, records: Records, conditions: Sequence[sa.ColumnElement[bool]]
) -> list[int] | None:
    """Count all records and those that meet each condition; return None where that fails."""
    number = sa.func.count()
    query = sa.select(number, *(number.filter(condition) for condition in conditions))
    try:
        with view.savepoint(), view.engine.connect() as conn:
            return list(conn.execute(query.select_from(records.selectable)).one())
    except SQLAlchemyError:
        return None


LONGEST = 200  # characters of a name; it stands beside every broken record


def part_of(
    view: Snapshot, records: Records, suite: Suite, findings: StepFindings, subject: str
) -> sa.ColumnElement[Any] | None:
    """SQL for what a record belongs to; None where nobody asked, or it cannot be read.

    Args:
        view: the snapshot that is checked.
        records: of the suite.
        suite: says what its records belong to.
        findings: gets a finding where that cannot be read.
        subject: of the finding.
    """
    part = _named(records, suite)
    if part is None:
        return None
    try:
        with view.savepoint(), view.engine.connect() as conn:
            conn.execute(sa.select(part).select_from(records.selectable).limit(0))
    except SQLAlchemyError:  # renamed, or no right to it: no reason to judge no rule
        findings.warn(
            "quality.no_breakdown",
            _("What the broken records belong to could not be read."),
            _("Correct the breakdown in the policy pack, or grant the reader what it names."),
            subject=subject,
        )
        return None
    return part


def _named(records: Records, suite: Suite) -> sa.ColumnElement[Any] | None:
    by = suite.breakdown
    if by is None or by.column not in records.columns:
        return None
    mine: sa.ColumnElement[Any] = sa.literal_column(quoted(RECORD, by.column))
    if by.collection is None or by.label is None:  # the pack's check lets no personal one pass
        return _short(mine)
    other = records.database.collections[by.collection]
    key = other.primary_key
    if len(key) != 1:
        return _short(mine)
    named = table_of(other, (*key, by.label)).alias(OTHER)
    label: sa.ColumnElement[Any] = sa.literal_column(quoted(OTHER, by.label))
    same = sa.literal_column(quoted(OTHER, key[0])) == mine
    # The least, since only the data map says that there is one.
    return sa.select(sa.func.min(_short(label))).select_from(named).where(same).scalar_subquery()


def _short(name: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.left(sa.cast(name, sa.Text), LONGEST)


@dataclass(frozen=True)
class Figures:
    """The figures of a rule after a run.

    Attributes:
        rows: records that the rule is about, of all of the collection: those that its ``where``
            selects and that have a value, where null has no answer.
        broken: of them; None when it could not be checked.
        listed: whether the broken ones stand in the register.
        empty: the collection has no record, which is said once and not for each rule.
        by_last_full: the last full check counted the records.
    """

    rows: int
    broken: int | None
    listed: bool = True
    empty: bool = False
    by_last_full: bool = False


def judge(
    findings: StepFindings, subject: str, rule: Expectation, figures: Figures, fault: Message | None
) -> Outcome:
    """Hold a rule's figures against its tolerance, and note a finding where they do not fit."""
    bad = Outcome.FAIL if rule.severity == "fail" else Outcome.ATTENTION
    if figures.broken is None:
        findings.find(
            "quality.unchecked",
            bad,
            _(
                "Expected: {title}. This could not be checked: {reason}.",
                title=rule.message,
                reason=fault or _("nobody knows why"),
            ),
            _(
                "Mend the cause (the rule {rule} in the policy pack, the table, a right, a lock), "
                "and check again.",
                rule=rule.id,
            ),
            subject=subject,
            clause=rule.clause,
        )
        return bad
    if not holds(rule, figures.rows, figures.broken):
        what, todo = _said(rule, figures.rows, figures)
        findings.find("quality.broken", bad, what, todo, subject=subject, clause=rule.clause)
        return bad
    if not figures.rows and not figures.empty and not is_about_the_table(rule):
        findings.warn(
            "quality.about_nothing",
            _("Expected: {title}. No record is one that this is about.", title=rule.message),
            _(
                "See why no record has a value there, or whether the condition `where` of the "
                "rule {rule} is right.",
                rule=rule.id,
            ),
            subject=subject,
            clause=rule.clause,
        )
        return Outcome.ATTENTION
    return Outcome.PASS


def holds(rule: Expectation, rows: int, broken: int) -> bool:
    """Return whether no more records break a rule than it tolerates."""
    return broken == 0 if is_about_the_table(rule) else are_enough(rows, broken, rule.mostly)


def is_about_the_table(rule: Expectation) -> bool:
    """Return whether it is about the table as a whole and no record can break it."""
    return rule.type.startswith("expect_table_")


def _said(rule: Expectation, rows: int, figures: Figures) -> tuple[Message, Message]:
    if is_about_the_table(rule):
        return (
            _("Expected: {title}. The table has {rows} records.", title=rule.message, rows=rows),
            _("Find out what filled or emptied the table."),
        )
    told = {
        "title": rule.message,
        "broken": figures.broken,
        "rows": rows,
        "tolerated": int(rows * (1 - rule.mostly)),
    }
    what = (
        _(
            "Expected: {title}. {broken} of {rows} records (counted by the last full check) break "
            "this; {tolerated} are tolerated.",
            **told,
        )
        if figures.by_last_full
        else _(
            "Expected: {title}. {broken} of {rows} records break this; {tolerated} are tolerated.",
            **told,
        )
    )
    if not figures.listed:
        return what, _(
            "They are too many to be named, or have no key. Mend the cause at its source; see "
            "the rule {rule}.",
            rule=rule.id,
        )
    if isinstance(rule.kwargs, Uncollected):
        return what, _(
            "Stop collecting it and delete what is there, or say in purposes.yaml what it is for. "
            "`./parcelseal quarantine list --rule {rule}` names the records.",
            rule=rule.id,
        )
    return what, _(
        "`./parcelseal quarantine list --rule {rule}` names the records; put them right at their "
        "source: correct, review, ask for consent, or delete.",
        rule=rule.id,
    )


def as_judged(
    results: Sequence[RuleResult], outcomes: Sequence[tuple[Figures, Outcome]]
) -> list[RuleResult]:
    """Return the results for Data Docs, with figures and success of the whole collection.

    Great Expectations itself examined the changed records only in an incremental check.
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
