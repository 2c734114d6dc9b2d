"""Tests of the retry of an approval task after a kill."""

from __future__ import annotations

from functools import partial

import pytest

from include.approvals.registry import APPROVE, REJECT
from include.retention.planning import approval
from include.retention.steps import APPROVE as APPROVAL
from include.retention.workflow import ENFORCE_RETENTION
from tests.retention.runner import ALL_NEED_APPROVAL, DAG, NAME, RetentionRunner, disposition, fill
from tests.support.airflow_task import killed_after, record_of, with_services
from tests.support.registers import content_of

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


@pytest.mark.parametrize("option", [APPROVE, REJECT])
def test_retry_of_killed_approval_task_uses_recorded_decision(
    runner: RetentionRunner, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    from include.approvals.required_action import Answer
    from include.orchestration.tasks import ask_people, store_answer

    runner = runner.but(rules_of_disposition=disposition(limit=ALL_NEED_APPROVAL))
    fill(runner)
    with_services(monkeypatch, KEY, runner.in_run().run.services)
    ask = partial(ask_people, ENFORCE_RETENTION, APPROVAL, NAME)
    planned = runner.plan()
    assert ask() is not None
    content = content_of(runner.engine, planned)
    answer = Answer(option, "as discussed", "bo", runner.clock.now(), content=content)
    lost = killed_after(
        partial(store_answer, ENFORCE_RETENTION, APPROVAL, NAME, answer), approval, "enter_answer"
    )
    assert lost.decision == option
    assert ask() is None
    assert record_of(runner.engine, KEY, "approve", NAME).data == lost.as_json()
    assert bool(runner.execute(planned).data["not_approved"]) == (option == REJECT)
