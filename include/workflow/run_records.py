"""The records that the steps of a run have stored, and the results that these records contain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic

from include.evidence.model import Approval, Finding, Metric, Outcome, StepRecord
from include.evidence.step_findings import Result, result_of
from include.messages import Message
from include.notify.sending import STEP_SEND, messages_section
from include.reports.conclusion import Conclusion, missing_record, worst
from include.reports.model import Fact, Section


@dataclass(frozen=True, kw_only=True)
class RecordedTask(Generic[Result]):
    """A step or human task that stores a record with a result.

    A mapped task works on one part in each of its task instances, for example on one database.

    Attributes:
        name: name of the task and of its record.
        title: display name of the task. In a mapped task, the placeholder ``part`` of the title is
            replaced with the display name of the part.
        clause: policy clause of findings that name no other clause.
        result: type of the result.
        queue: queue of the task; empty for the queue of the workflow.
        part_text: returns the display name of a part; by default the part itself.
    """

    name: str
    title: Message
    clause: str
    result: type[Result]
    queue: str = ""
    part_text: Callable[[str], Message | str] = str

    def title_of(self, part: str) -> Message:
        """Return the display name of the task, which includes the display name of a part.

        Args:
            part: item that the mapped task works on, such as a database; empty if the task is not
                mapped.
        """
        return for_part(self.title, self.part_text(part))


def for_part(title: Message, part: Message | str) -> Message:
    """Replace the placeholder ``part`` in the title of a mapped task.

    Args:
        title: title of the task.
        part: display name of the item that the task works on, such as a database.
    """
    return title.model_copy(update={"values": {**title.values, "part": part}})


@dataclass(frozen=True)
class RunRecords:
    """The records and files that the steps of a run have stored.

    Attributes:
        records: step records, in the order in which they were stored.
        artifacts: files for the evidence bundle: name -> content.
    """

    records: Sequence[StepRecord]
    artifacts: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def by_step(self) -> Mapping[tuple[str, str], StepRecord]:
        """The step records by (step name, part); the part is empty if the step is not mapped."""
        return {(record.step, record.part): record for record in self.records}

    @property
    def findings(self) -> list[Finding]:
        """The findings from the records of all steps of the run."""
        return [finding for record in self.records for finding in record.findings]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics from the records of all steps of the run."""
        return [metric for record in self.records for metric in record.metrics]

    def find(self, step: str, part: str = "") -> StepRecord | None:
        """Return the record of a step, or None if the step has no record.

        Args:
            step: name of the step.
            part: item that the mapped task worked on, such as a database; empty if the step is not
                mapped.
        """
        return self.by_step.get((step, part))

    def result(self, step: RecordedTask[Result], part: str = "") -> Result | None:
        """Return the result of a step.

        Return None if the step was interrupted, failed or has no record.

        Args:
            step: declaration of the step.
            part: item that the mapped task worked on, such as a database; empty if the step is not
                mapped.
        """
        return result_of(self.find(step.name, part), step.result)

    def results(self, step: RecordedTask[Result]) -> dict[str, Result]:
        """Return the results of a mapped step: part, such as a database name -> result.

        The results are in the order in which the records were stored.
        """
        recorded = {
            record.part: result_of(record, step.result)
            for record in self.records
            if record.step == step.name
        }
        return {part: result for part, result in recorded.items() if result is not None}

    def missing(
        self, topic: str, clause: str, steps: Mapping[tuple[str, str], Message]
    ) -> list[Finding]:
        """Return a finding for each of the given steps that has no record.

        If any step failed, the result is empty, because the failure explains the missing records.

        Args:
            topic: first part of the finding codes; ``partners`` gives ``partners.send.missing``.
            clause: policy clause of the findings.
            steps: (step name, part) -> title, for each step that the run has to execute.
        """
        if any(record.outcome is Outcome.FAIL for record in self.records):
            return []
        return [
            missing_record(
                title, part or name, f"{topic}.{name}.missing", clause, show_subject=False
            )
            for (name, part), title in steps.items()
            if self.find(name, part) is None
        ]

    def outcome(self, findings: Sequence[Finding]) -> Outcome:
        """Return the worst outcome of the run's steps, their findings and the given findings."""
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
        known_failures: frozenset[str] = frozenset(),
        lists_messages: bool = True,
    ) -> Conclusion:
        """Return the conclusion of the run from its step records.

        Args:
            title: title of the report.
            summary: one sentence for the top of the report.
            outcome: outcome of the run; by default the worst outcome of the steps and findings.
            findings: findings in addition to those of the steps.
            metrics: figures in addition to those of the steps.
            facts: cards with figures at the top of the report.
            sections: sections of the report.
            approvals: decisions of people in this run.
            files: additional files for the bundle: name -> content.
            stored: file name -> SHA-256, for files that the run has already written into the folder
                of its bundle.
            known_failures: indicators whose missed targets an earlier run reported; see
                `Conclusion`.
            lists_messages: whether the report gets a section "Messages" if the run sent messages.
        """
        send_record = self.find(STEP_SEND) if lists_messages else None
        return Conclusion(
            title=title,
            summary=summary,
            outcome=outcome or self.outcome(findings),
            findings=[*self.findings, *findings],
            metrics=[*self.metrics, *metrics],
            facts=list(facts),
            sections=[
                *sections,
                *([messages_section(send_record)] if send_record is not None else []),
            ],
            approvals=list(approvals),
            files=dict(files or {}),
            stored=dict(stored or {}),
            known_failures=known_failures,
        )
