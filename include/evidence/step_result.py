"""Typed results of steps."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from include.evidence.model import StepRecord


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
