"""Tests of the display titles of the tasks of the incident workflows."""

from __future__ import annotations

import pytest

from include.incident.incident_ids import STEP_ASSESS, STEP_WATCH, UPDATES, WORKFLOW
from include.incident.step_titles import HUMAN_STEP_TITLES, recorder_title, step_title
from include.incident.workflow import RESPOND_TO_INCIDENT, UPDATE_INCIDENT
from include.messages import _, verbatim
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


@pytest.mark.parametrize("workflow", [WORKFLOW, UPDATES])
def test_entry_of_a_workflow_is_recorded_by_parcelseal(workflow: str) -> None:
    assert recorder_title(workflow) == _("ParcelSeal")


@pytest.mark.parametrize("step", [STEP_ASSESS, STEP_WATCH])
def test_entry_of_a_step_without_person_is_recorded_by_the_titled_step(step: str) -> None:
    assert recorder_title(step) == step_title(step) != verbatim(step)


@pytest.mark.parametrize("user", ["E2", *HUMAN_STEP_TITLES])
def test_entry_of_a_person_is_recorded_under_the_user_id(user: str) -> None:
    """A user id may be equal to the id of a step in which people answer, such as "review"."""
    assert recorder_title(user) == verbatim(user)
