"""What the steps of a run say of one database, as its certificate reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from include.evidence.model import StepRecord
from include.messages import Message
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.retention.names import STEP_APPROVE, STEP_EXECUTE, STEP_PLAN, STEP_VERIFY
from include.retention.plan import PlannedClass

Steps = Mapping[tuple[str, str], StepRecord]
# What only a step that came to its end leaves in its record.
WHOLE = {STEP_PLAN: "sha256", STEP_EXECUTE: "done", STEP_VERIFY: "unexplained"}


@dataclass(frozen=True)
class Past:
    """What one run erased from a database; None where it executed nothing."""

    at: datetime
    done: int | None


@dataclass(frozen=True)
class Case:
    """One database of a run. What a step did not come to is empty, and None in figures.

    Attributes:
        database: of the data map.
        rules: its record classes.
        steps: records of the run.
        trend: past runs, this one included.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    steps: Steps
    trend: Sequence[Past] = ()

    def data(self, step: str) -> Mapping[str, Any]:
        """What a step that came to its end left; empty where it did not."""
        record = self.steps.get((step, self.database.name))
        wanted = WHOLE.get(step)
        return record.data if record and (wanted is None or wanted in record.data) else {}

    @property
    def plan(self) -> Mapping[str, Any]:
        """Of the step that plans."""
        return self.data(STEP_PLAN)

    @property
    def approval(self) -> Mapping[str, Any]:
        """Of the step that takes the answer."""
        return self.data(STEP_APPROVE)

    @property
    def execution(self) -> Mapping[str, Any]:
        """Of the step that erases."""
        return self.data(STEP_EXECUTE)

    @property
    def proof(self) -> Mapping[str, Any]:
        """Of the step that counts afterwards."""
        return self.data(STEP_VERIFY)

    @property
    def whole(self) -> bool:
        """Whether plan, execution and count came to their end."""
        return bool(self.plan and self.execution and self.proof)

    @cached_property
    def classes(self) -> list[PlannedClass]:
        """The record classes as planned, in the order of the schedule."""
        return [PlannedClass.model_validate(one) for one in self.plan.get("classes", ())]

    def rule(self, name: str) -> RetentionRule | None:
        """A record class of the pack; None when the pack changed since."""
        return next((one for one in self.rules if one.record_class == name), None)

    def title(self, name: str) -> Message | str:
        """A record class for people."""
        rule = self.rule(name)
        return rule.message if rule else name

    @property
    def _done(self) -> Mapping[str, int] | None:
        found: Mapping[str, int] | None = self.proof.get("done", self.execution.get("done"))
        return found

    def erased(self, one: PlannedClass) -> int | None:
        """Records of a class that this run deleted or masked."""
        return None if self._done is None else self._done.get(one.name, 0)

    def not_reached(self, one: PlannedClass) -> int | None:
        """Records of a class that the plan names and that are there nevertheless."""
        erased = self.erased(one)
        return None if erased is None else max(0, one.planned - erased)

    def deleted(self) -> int | None:
        """Records that this run deleted, those of dropped partitions included."""
        return self._all_erased(masked=False)

    def masked(self) -> int | None:
        """Records that this run masked."""
        return self._all_erased(masked=True)

    def _all_erased(self, *, masked: bool) -> int | None:
        found = [self.erased(one) for one in self.classes if (one.action == "mask") is masked]
        if not self.plan or self._done is None:
            return None
        return sum(one or 0 for one in found)

    def left(self, name: str) -> Mapping[str, Any] | None:
        """What the count afterwards found of a class."""
        return next((one for one in self.proof.get("left", ()) if one["name"] == name), None)
