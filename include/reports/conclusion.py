"""The conclusion of a run: its outcome and the content of its evidence bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from include.evidence.model import Approval, Finding, Metric, Outcome, StepRecord, failure_finding
from include.messages import Message, _
from include.reports.model import Fact, Section

ASK_ENGINEERS = _("Ask the data engineers to remove the cause, then run the workflow again.")
TASK_LOG = _("The log of the failed task in Airflow names the cause.")


@dataclass(frozen=True)
class Conclusion:
    """The outcome of a run and the content of its evidence bundle.

    Attributes:
        title: title of the report.
        summary: result of the run in one sentence, at the head of the report.
        outcome: outcome of the run.
        findings: findings of the run.
        metrics: measured values of the run.
        facts: key figures of the report.
        sections: sections of the report that follow the findings.
        approvals: decisions that people made in this run.
        files: content of further files of the bundle, by file name.
        stored: hexadecimal SHA-256 digests of files that the run stored in the bundle before it was
            sealed, by file name.
        could_not_run: whether the run did nothing, because it was refused, its inputs were wrong,
            or the policy pack lacks the rules. Such a run is not evidence for any control.
        known_failures: indicators that miss their targets only because of what the bundle of an
            earlier run reported. Their controls fail, but the run does not fail again.
    """

    title: Message
    summary: Message
    outcome: Outcome
    findings: list[Finding]
    metrics: list[Metric]
    facts: list[Fact] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    could_not_run: bool = False
    known_failures: frozenset[str] = frozenset()


def refused(title: Message, records: Sequence[StepRecord]) -> Conclusion:
    """Return the conclusion of a run that a step refused before any work.

    Args:
        title: title of the report.
        records: step records of the run, whose findings state the reason.
    """
    return Conclusion(
        title=title,
        summary=_(
            "The run could not start its work, so it says nothing about a control. The findings "
            "state the reason."
        ),
        outcome=Outcome.FAIL,
        findings=[finding for record in records for finding in record.findings],
        metrics=[],
        could_not_run=True,
    )


def metric_of(record: StepRecord | None, name: str) -> Metric | None:
    """Return a metric of a step record, or None if the record or the metric is missing."""
    metrics = record.metrics if record else []
    return next((metric for metric in metrics if metric.name == name), None)


def worst(records: Sequence[StepRecord], findings: Sequence[Finding]) -> Outcome:
    """Return the worst outcome of all steps and findings.

    If there is no step and no finding, the outcome is failed.
    """
    return Outcome.worst(
        [*(record.outcome for record in records), *(finding.severity for finding in findings)]
    )


def missing_record(
    step: Message, subject: str, code: str, clause: str, *, show_subject: bool = True
) -> Finding:
    """Return a finding for a step that left no record, because it was killed or never started.

    Args:
        step: title of the step.
        subject: what the step works on, such as a database or a batch; the workflow's id if the
            step works on nothing in particular.
        code: code of the finding.
        clause: number of the policy clause.
        show_subject: whether the message names the subject. It may be False if the step's title
            names the subject, or if the subject is the workflow.
    """
    message = (
        _("{step} of {subject} did not finish.", step=step, subject=subject)
        if show_subject
        else _("{step} did not finish.", step=step)
    )
    return failure_finding(
        code=code,
        subject=subject,
        message=message,
        action=ASK_ENGINEERS,
        clause=clause,
        for_engineers=TASK_LOG,
    )
