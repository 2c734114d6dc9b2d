"""The steps of a workflow, and their records at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic

from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.evidence.step_result import Result, result_of
from include.messages import Message
from include.reports.conclusion import missing_record
from include.workflow.run_context import RunContext, RunRules


@dataclass(frozen=True, kw_only=True)
class Step(Generic[RunRules, Result]):
    """A step: an Airflow task and its record.

    Attributes:
        name: of the task and its record, ``check``.
        title: the step for people; ``{part}`` is what it works on.
        clause: of the policy, for findings that name no other.
        work: does the work; reports findings and figures, returns the result.
        result: type of the result.
        runs_always: whether it runs although an earlier step failed.
    """

    name: str
    title: Message
    clause: str
    work: Callable[[RunContext[RunRules], StepFindings], Result]
    result: type[Result]
    runs_always: bool = False

    def title_of(self, part: str) -> Message:
        """Return the title with the part that the step works on."""
        return self.title.model_copy(update={"values": {**self.title.values, "part": part}})


@dataclass(frozen=True)
class RunRecords:
    """What the steps of a run recorded, for its conclusion.

    Attributes:
        records: in the order in which they were recorded.
        artifacts: files for the bundle, by name.
    """

    records: Sequence[StepRecord]
    artifacts: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def _by_step(self) -> Mapping[tuple[str, str], StepRecord]:
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
        return self._by_step.get((step, part))

    def result(self, step: Step[Any, Result], part: str = "") -> Result | None:
        """Return the result of a step; None if it was interrupted, failed or left no record."""
        return result_of(self.find(step.name, part), step.result)

    def missing(self, topic: str, steps: Mapping[str, Message], clause: str) -> list[Finding]:
        """Return a finding for each step without a record, unless a failure explains it.

        Args:
            topic: begins the codes of the findings: ``partners`` makes ``partners.send.missing``.
            steps: titles by name of the steps that every run has.
            clause: of the policy.
        """
        if any(record.outcome is Outcome.FAIL for record in self.records):
            return []
        return [
            missing_record(title, name, f"{topic}.{name}.missing", clause)
            for name, title in steps.items()
            if self.find(name) is None
        ]
