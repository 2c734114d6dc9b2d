"""The results of a run's steps for one database, as its certificate reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.messages import Message
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.retention.certificate.count.inspection import Left
from include.retention.planning.plan import PlannedClass
from include.retention.results import (
    ApprovalResult,
    ExecutionResult,
    PlanResult,
    VerificationResult,
)


@dataclass(frozen=True)
class Past:
    """What one run erased from a database; None where it executed nothing."""

    at: datetime
    done: int | None


@dataclass(frozen=True)
class Case:
    """One database of a run. Figures of a step without a result are None.

    Attributes:
        database: of the data map.
        rules: its record classes.
        plan: result of the plan.
        approval: result of the approval.
        execution: result of the execution.
        proof: result of the count afterwards.
        trend: past runs, this one included.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    plan: PlanResult | None = None
    approval: ApprovalResult | None = None
    execution: ExecutionResult | None = None
    proof: VerificationResult | None = None
    trend: Sequence[Past] = ()

    @property
    def whole(self) -> bool:
        """Whether plan, execution and count came to their end."""
        return bool(self.plan and self.execution and self.proof)

    @property
    def classes(self) -> list[PlannedClass]:
        """The record classes as planned, in the order of the schedule."""
        return self.plan.classes if self.plan else []

    def rule(self, name: str) -> RetentionRule | None:
        """Return a record class of the pack; None if the pack changed since."""
        return next((rule for rule in self.rules if rule.record_class == name), None)

    def title(self, name: str) -> Message | str:
        """Return the name of a record class for people."""
        rule = self.rule(name)
        return rule.message if rule else name

    @property
    def _done(self) -> Mapping[str, int] | None:
        latest = self.proof or self.execution
        return latest.done if latest else None

    def erased(self, planned: PlannedClass) -> int | None:
        """Return how many records of a class this run deleted or masked."""
        return None if self._done is None else self._done.get(planned.name, 0)

    def not_reached(self, planned: PlannedClass) -> int | None:
        """Return how many planned records of a class are still there."""
        erased = self.erased(planned)
        return None if erased is None else max(0, planned.planned - erased)

    def deleted(self) -> int | None:
        """Return how many records this run deleted, those of dropped partitions included."""
        return self._all_erased(masked=False)

    def masked(self) -> int | None:
        """Return how many records this run masked."""
        return self._all_erased(masked=True)

    def _all_erased(self, *, masked: bool) -> int | None:
        if not self.plan or self._done is None:
            return None
        return sum(
            self.erased(planned) or 0
            for planned in self.classes
            if (planned.action == "mask") is masked
        )

    def left(self, name: str) -> Left | None:
        """Return what the count afterwards found of a class."""
        left = self.proof.left if self.proof else ()
        return next((each for each in left if each.name == name), None)
