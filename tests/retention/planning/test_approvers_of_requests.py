"""The plan of a data subject's request is approved by another person than its enterer."""

from __future__ import annotations

from include.approvals.registry import APPROVE, Cause
from include.evidence.model import Outcome
from tests.retention import step_records as steps
from tests.retention.rig import EVERYTHING_WAITS, Rig, disposition
from tests.retention.test_linked_requests import pagila

__all__ = ["pagila"]


def test_person_who_entered_request_may_not_approve_its_plan(pagila: Rig) -> None:
    rig = pagila.but(rules_of_disposition=disposition(limit=EVERYTHING_WAITS))
    rig.request("1", entered_by="Bo")
    planned = rig.plan()
    question = steps.ask(rig.in_run("r1"), planned)
    assert question is not None
    assert question.assigned == ["chen"]
    refused = rig.answer(planned, by="bo")
    assert (refused.data["refused"], refused.outcome) == (Cause.OWN_REQUEST, Outcome.FAIL)
    assert rig.answer(planned, by="chen").data["decision"] == APPROVE
