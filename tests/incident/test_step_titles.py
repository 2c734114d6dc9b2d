"""Tests that every task of the incident workflows has a display title."""

from __future__ import annotations

import pytest

from include.incident.step_titles import step_title
from include.incident.workflow import RESPOND_TO_INCIDENT, UPDATE_INCIDENT
from include.messages import verbatim
from include.workflow.step import Watch


@pytest.mark.parametrize(
    "step",
    [
        step
        for step in (*RESPOND_TO_INCIDENT.steps, *UPDATE_INCIDENT.steps)
        if step.name != "enter"  # no notification names the step of an update
    ],
    ids=lambda step: step.name,
)
def test_every_workflow_step_has_a_title(step: object) -> None:
    name = step.name  # type: ignore[attr-defined]
    assert step_title(name) != verbatim(name)
    assert isinstance(step, Watch) or step.title == step_title(name)  # type: ignore[attr-defined]


def test_step_without_display_title_is_shown_with_its_id() -> None:
    assert step_title("seal") == verbatim("seal")
