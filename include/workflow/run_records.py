"""The records that the steps of a run left, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic

from include.evidence.model import Approval, Finding, Metric, Outcome, StepRecord
from include.evidence.step_findings import Result, result_of
from include.messages import Message
from include.notify.sending import STEP_SEND, messages
from include.reports.conclusion import Conclusion, missing_record, worst
from include.reports.model import Fact, Section


@dataclass(frozen=True, kw_only=True)
class RecordedTask(Generic[Result]):
    """A step or a human task: its record holds a result of one type."""

    name: str
    title: Message
    clause: str
    result: type[Result]
    queue: str = ""

    def title_of(self, part: str) -> Message:
        """Return the title for the part that the task works on."""
        return for_part(self.title, part)


def for_part(title: Message, part: str) -> Message:
    """Return a title with the part that a task works on."""
    return title.model_copy(update={"values": {**title.values, "part": part}})


@dataclass(frozen=True)
class RunRecords:
    """The records and files that the steps of a run left.

    Attributes:
        records: in the order in which they were recorded.
        artifacts: files for the bundle, by name.
    """

    records: Sequence[StepRecord]
    artifacts: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def by_step(self) -> Mapping[tuple[str, str], StepRecord]:
        """The records by step and part."""
        return {(record.step, record.part): record for record in self.records}

    @property
    def findings(self) -> list[Finding]:
        """The findings of all steps."""
        return [finding for record in self.records for finding in record.findings]

    @property
    def metrics(self) -> list[Metric]:
        """The figures of all steps."""
        return [metric for record in self.records for metric in record.metrics]

    def find(self, step: str, part: str = "") -> StepRecord | None:
        """Return the record of a step, or None if it left none."""
        return self.by_step.get((step, part))

    def result(self, step: RecordedTask[Result], part: str = "") -> Result | None:
        """Return the result of a step; None if it was interrupted, failed or left no record."""
        return result_of(self.find(step.name, part), step.result)

    def results(self, step: RecordedTask[Result]) -> dict[str, Result]:
        """Return the results of a step by part, in the order in which they were recorded."""
        recorded = {
            record.part: result_of(record, step.result)
            for record in self.records
            if record.step == step.name
        }
        return {part: result for part, result in recorded.items() if result is not None}

    def missing(
        self, topic: str, clause: str, steps: Mapping[tuple[str, str], Message]
    ) -> list[Finding]:
        """Return a finding for each step without a record, unless a failure explains it.

        Args:
            topic: begins the codes of the findings: ``partners`` makes ``partners.send.missing``.
            clause: of the policy.
            steps: title of each step that the run has, by its name and part.
        """
        if any(record.outcome is Outcome.FAIL for record in self.records):
            return []
        return [
            missing_record(title, part or name, f"{topic}.{name}.missing", clause)
            for (name, part), title in steps.items()
            if self.find(name, part) is None
        ]

    def outcome(self, findings: Sequence[Finding]) -> Outcome:
        """Return the worst outcome of the steps and of further findings."""
        return worst(self.records, [*self.findings, *findings])

    def conclude(
        self,
        title: Message,
        summary: Message,
        *,
        outcome: Outcome | None = None,
        findings: Sequence[Finding] = (),
        metrics: Sequence[Metric] = (),
        facts: Sequence[Fact] = (),
        sections: Sequence[Section] = (),
        approvals: Sequence[Approval] = (),
        files: Mapping[str, bytes] | None = None,
        stored: Mapping[str, str] | None = None,
        lists_messages: bool = True,
    ) -> Conclusion:
        """Return the conclusion of the run, with the section "Messages" if the run sent any.

        Args:
            title: of the report.
            summary: one sentence for the head of the report.
            outcome: of the run; by default the worst of the steps and findings.
            findings: beside those of the steps.
            metrics: beside those of the steps.
            facts: head cards of the report.
            sections: of the report.
            approvals: decisions of people in this run.
            files: further files for the bundle, by name.
            stored: hex digests of files that the run wrote into its bundle before the seal.
            lists_messages: whether the report has the section "Messages".
        """
        sent = self.find(STEP_SEND) if lists_messages else None
        return Conclusion(
            title=title,
            summary=summary,
            outcome=outcome or self.outcome(findings),
            findings=[*self.findings, *findings],
            metrics=[*self.metrics, *metrics],
            facts=list(facts),
            sections=[*sections, *([messages(sent)] if sent is not None else [])],
            approvals=list(approvals),
            files=dict(files or {}),
            stored=dict(stored or {}),
        )
