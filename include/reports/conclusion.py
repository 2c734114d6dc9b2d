"""The conclusion of a run: the outcome and content of its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from include.evidence.model import Approval, Finding, Metric, Outcome, StepRecord
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


def by_step(records: Sequence[StepRecord]) -> Mapping[tuple[str, str], StepRecord]:
    """Index records by step and part."""
    return {(record.step, record.part): record for record in records}


def metric_of(record: StepRecord | None, name: str) -> Metric | None:
    """Return a metric of a step, None if the step or the metric is missing."""
    metrics = record.metrics if record else []
    return next((metric for metric in metrics if metric.name == name), None)


def nothing_done(title: Message, summary: Message, records: Sequence[StepRecord]) -> Conclusion:
    """Return the conclusion of a run that had nothing to do, or was refused."""
    findings = [finding for record in records for finding in record.findings]
    return Conclusion(title, summary, worst(records, []), findings, metrics=[])


def worst(records: Sequence[StepRecord], findings: Sequence[Finding]) -> Outcome:
    """Return the worst outcome of any step or finding; nothing at all is a fail."""
    return Outcome.worst(
        [*(record.outcome for record in records), *(finding.severity for finding in findings)]
    )


def not_asked_for(database: str, code: str, clause: str) -> Finding:
    """Return the finding about a mapped database that a run was not asked for."""
    return Finding(
        code=code,
        severity=Outcome.ATTENTION,
        subject=database,
        message=_("{database} was not asked for in this run.", database=database),
        action=_("See that its daily run holds, or start this workflow without a choice."),
        clause=clause,
    )


def missing_record(step: Message, subject: str, code: str, clause: str) -> Finding:
    """Return the finding about a step that left no record: it was killed, or never began."""
    return Finding(
        code=code,
        severity=Outcome.FAIL,
        subject=subject,
        message=_("{step} of {subject} did not finish.", step=step, subject=subject),
        action=_("Open the run's task log in Airflow, remove the cause, run the workflow again."),
        clause=clause,
    )
