"""The conclusion of a run: the outcome and content of its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from include.evidence.model import Approval, Finding, Metric, Outcome, StepRecord, failure_finding
from include.messages import Message, _
from include.reports.model import Fact, Section


@dataclass(frozen=True)
class Conclusion:
    """Outcome and content of a run's evidence.

    Attributes:
        summary: one sentence for the head of the report.
        approvals: decisions of people in this run.
        files: further files for the bundle, by name.
        stored: hex digests of files that the run stored in its bundle before the seal, by name.
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


def metric_of(record: StepRecord | None, name: str) -> Metric | None:
    """Return a metric of a step, None if the step or the metric is missing."""
    metrics = record.metrics if record else []
    return next((metric for metric in metrics if metric.name == name), None)


def worst(records: Sequence[StepRecord], findings: Sequence[Finding]) -> Outcome:
    """Return the worst outcome of any step or finding; nothing at all is a fail."""
    return Outcome.worst(
        [*(record.outcome for record in records), *(finding.severity for finding in findings)]
    )


def missing_record(step: Message, subject: str, code: str, clause: str) -> Finding:
    """Return the finding about a step that left no record: it was killed, or never began."""
    return failure_finding(
        code=code,
        subject=subject,
        message=_("{step} of {subject} did not finish.", step=step, subject=subject),
        action=_("Open the run's task log in Airflow, remove the cause, run the workflow again."),
        clause=clause,
    )
