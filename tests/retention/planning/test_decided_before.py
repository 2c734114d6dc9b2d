"""An approval whose task was killed after its decision was registered, and is repeated."""

from __future__ import annotations

from functools import partial

import pytest

from include.approvals.registry import APPROVE, REJECT
from include.retention.planning import approval
from include.retention.steps import APPROVE as APPROVAL
from include.retention.workflow import ENFORCE_RETENTION
from tests.retention.rig import DAG, EVERYTHING_WAITS, NAME, Rig, disposition, fill
from tests.support.airflow_task import killed_after, record_of, with_services
from tests.support.registers import content_of

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


@pytest.mark.parametrize("option", [APPROVE, REJECT])
def test_approval_goes_on_with_a_registered_decision_after_its_task_was_killed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """The step skips the question and keeps the record that the killed task lost."""
    from include.approvals.question import Answer
    from include.orchestration.tasks import ask_people, take_answer

    rig = rig.but(rules_of_disposition=disposition(limit=EVERYTHING_WAITS))
    fill(rig)
    with_services(monkeypatch, KEY, rig.in_run().run.services)
    ask = partial(ask_people, ENFORCE_RETENTION, APPROVAL, NAME)
    planned = rig.plan()
    assert ask() is not None
    content = content_of(rig.engine, planned)
    answer = Answer(option, "as discussed", "bo", rig.clock.now(), content=content)
    lost = killed_after(
        partial(take_answer, ENFORCE_RETENTION, APPROVAL, NAME, answer), approval, "take"
    )
    assert lost.decision == option
    assert ask() is None
    assert record_of(rig.engine, KEY, "approve", NAME).data == lost.as_json()
    assert bool(rig.execute(planned).data["not_approved"]) == (option == REJECT)
