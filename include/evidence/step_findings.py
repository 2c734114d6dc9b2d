"""The findings, figures and typed result of a step, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import Message


class StepResult(BaseModel):
    """The result of a step, as later steps and the report read it.

    The state database and ``result.json`` store it as JSON, without customer values.
    """

    model_config = ConfigDict(frozen=True)

    def as_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return self.model_dump(mode="json")


Result = TypeVar("Result", bound=StepResult)


def result_of(record: StepRecord | None, model: type[Result]) -> Result | None:
    """Return the result in a step's record; None if the step was interrupted, failed or skipped."""
    if record is None or not record.data:
        return None
    return model.model_validate(record.data)


@dataclass
class StepFindings:
    """Findings and figures of a step.

    Attributes:
        step: name of the step, ``backup``.
        clause: policy clause of its findings, where a finding names no other.
        part: what the step works on, ``courier``; empty when there is one.
    """

    step: str
    clause: str
    part: str = ""
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)

    def find(
        self,
        code: str,
        severity: Outcome,
        message: Message,
        action: Message,
        *,
        subject: str = "",
        clause: str = "",
    ) -> None:
        """Report a finding; its subject is the part of the step unless another one is given."""
        self.findings.append(
            Finding(
                code=code,
                severity=severity,
                subject=subject or self.part or self.step,
                message=message,
                action=action,
                clause=clause or self.clause,
            )
        )

    def fail(
        self, code: str, message: Message, action: Message, *, subject: str = "", clause: str = ""
    ) -> None:
        """Report a finding that fails the step; see `find`."""
        self.find(code, Outcome.FAIL, message, action, subject=subject, clause=clause)

    def warn(
        self, code: str, message: Message, action: Message, *, subject: str = "", clause: str = ""
    ) -> None:
        """Report a finding that needs attention; see `find`."""
        self.find(code, Outcome.ATTENTION, message, action, subject=subject, clause=clause)

    def measure(
        self, name: str, value: float | None, unit: str, target: float | None = None
    ) -> None:
        """Note a figure about the step's part."""
        self.metrics.append(
            Metric(name=name, value=value, unit=unit, target=target, subject=self.part)
        )

    @property
    def has_failed(self) -> bool:
        """Whether a finding fails the step."""
        return any(finding.severity is Outcome.FAIL for finding in self.findings)

    def record(self, result: StepResult | Mapping[str, Any]) -> StepRecord:
        """Return the step's record; its outcome is the worst finding.

        Args:
            result: of the step; no customer value. Plain JSON where a step has no type yet.
        """
        data = result.as_json() if isinstance(result, StepResult) else dict(result)
        return StepRecord(
            step=self.step,
            part=self.part,
            outcome=Outcome.worst([Outcome.PASS, *(one.severity for one in self.findings)]),
            findings=self.findings,
            metrics=self.metrics,
            data=data,
        )
