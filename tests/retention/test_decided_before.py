"""An approval whose task was killed after its decision was registered, and is repeated."""

from __future__ import annotations

from functools import partial

import pytest

from include.approvals.registry import APPROVE, REJECT
from include.retention import steps
from tests.retention.rig import DAG, EVERYTHING_WAITS, NAME, Rig, disposition, fill
from tests.support.airflow_task import in_task, killed_after, record_of
from tests.support.registers import content_of

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


@pytest.mark.parametrize("option", [APPROVE, REJECT])
def test_approval_goes_on_with_a_registered_decision_after_its_task_was_killed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """The step skips the question and keeps the record that the killed task lost."""
    from include.approvals.answer import Answer
    from include.orchestration import retention

    rig = rig.but(rules_of_disposition=disposition(limit=EVERYTHING_WAITS))
    fill(rig)
    in_task(monkeypatch, KEY, rig.engine, rig.clock)
    monkeypatch.setattr(retention, "_desk", lambda *_: rig.desk())
    planned = rig.plan()
    assert retention.ask(NAME) is not None
    content = content_of(rig.engine, planned)
    answer = Answer(option, "as discussed", "bo", rig.clock.now(), content=content)
    lost = killed_after(partial(retention.take, NAME, answer), steps, "take")
    assert lost.data["decision"] == option
    assert retention.ask(NAME) is None
    assert record_of(rig.engine, KEY, "approve", NAME) == lost
    assert bool(rig.execute(planned).data["not_approved"]) == (option == REJECT)
