"""Whether one expectation is met, and how people are told when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.expectations.check import RuleResult
from include.messages import Message, _
from include.policy.expectations import Expectation, are_enough
from include.policy.kwargs import Uncollected


@dataclass(frozen=True)
class Figures:
    """What is known of one rule after a run.

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
    seen: StepFindings, subject: str, rule: Expectation, figures: Figures, fault: Message | None
) -> Outcome:
    """Hold a rule's figures against its tolerance, and note a finding where they do not fit."""
    bad = Outcome.FAIL if rule.severity == "fail" else Outcome.ATTENTION
    if figures.broken is None:
        seen.find(
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
        seen.find("quality.broken", bad, what, todo, subject=subject, clause=rule.clause)
        return bad
    if not figures.rows and not figures.empty and not is_about_the_table(rule):
        seen.find(
            "quality.about_nothing",
            Outcome.ATTENTION,
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
    """Whether no more records break a rule than it tolerates."""
    return broken == 0 if is_about_the_table(rule) else are_enough(rows, broken, rule.mostly)


def is_about_the_table(rule: Expectation) -> bool:
    """Whether it is about the table as a whole and no record can break it."""
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
