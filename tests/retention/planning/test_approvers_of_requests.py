"""Tests that the person who entered an erasure request cannot approve the plan for it."""

from __future__ import annotations

from include.approvals.registry import APPROVE, RefusalCause
from include.evidence.model import Outcome
from tests.retention import step_records as steps
from tests.retention.runner import ALL_NEED_APPROVAL, RetentionRunner, disposition
from tests.retention.test_linked_requests import pagila

__all__ = ["pagila"]


def test_person_who_entered_erasure_request_may_not_approve_plan_that_contains_the_request(
    pagila: RetentionRunner,
) -> None:
    runner = pagila.but(rules_of_disposition=disposition(limit=ALL_NEED_APPROVAL))
    runner.request("1", entered_by="Bo")
    planned = runner.plan()
    action = steps.ask(runner.in_run("r1"), planned)
    assert action is not None
    assert action.assigned == ["chen"]
    refused = runner.answer(planned, by="bo")
    assert (refused.data["refused"], refused.outcome) == (RefusalCause.OWN_REQUEST, Outcome.FAIL)
    assert runner.answer(planned, by="chen").data["decision"] == APPROVE
