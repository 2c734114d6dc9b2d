"""Tests of a review task that is killed after it has stored the decision, and is then repeated."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from include.evidence.step_findings import StepFindings
from include.intake.review import REVIEW
from include.intake.workflow import REVIEW_INTAKE
from tests.intake import steps
from tests.intake.conftest import NOW, OLDEST, REVIEWER, Rig
from tests.support.airflow_task import killed_after, record_of
from tests.support.registers import content_of

pytestmark = pytest.mark.airflow


@pytest.mark.parametrize("option", ["Approve", "Reject"])
@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_repeated_review_task_uses_the_decision_stored_by_an_earlier_attempt(
    rig: Rig, run_of_tasks: tuple[str, str], option: str, late: bool
) -> None:
    from include.approvals.required_action import Answer
    from include.orchestration.tasks import ask_people, store_answer

    checked = rig.checked()
    part = checked.part
    assert ask_people(REVIEW_INTAKE, REVIEW, part) is not None
    at = NOW + timedelta(days=30) if late else NOW
    answer = Answer(option, "forms are incomplete", REVIEWER, at)
    answer = Answer(**vars(answer) | {"content": content_of(rig.table.state, checked)})
    task = partial(store_answer, REVIEW_INTAKE, REVIEW, part, answer)
    lost = killed_after(task, StepFindings, "record")
    assert lost.data["decision"] == option
    assert ask_people(REVIEW_INTAKE, REVIEW, part) is None
    assert record_of(rig.table.state, run_of_tasks, "review", part) == lost
    assert steps.settle(rig.table, checked).data["promoted"] == (24 if option == "Approve" else 0)


@pytest.mark.usefixtures("run_of_tasks")
def test_repeated_review_task_requests_new_review_if_content_changed(rig: Rig) -> None:
    from include.orchestration.tasks import ask_people

    checked = rig.checked()
    rig.answered(checked)
    rig.rows("UPDATE intake_record SET name = 'Somebody Else' WHERE batch_id = %s", OLDEST)
    changed = rig.checked()
    action = ask_people(REVIEW_INTAKE, REVIEW, changed.part)
    assert action is not None
    assert changed.data["sha256"] in action.content
