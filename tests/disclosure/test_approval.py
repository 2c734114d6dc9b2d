"""Approvals: by the supervisor, never the requester, for exactly one content, before a deadline."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from include.approvals.required_action import InvalidAnswer, RequiredAction
from include.disclosure.approval import APPROVE, APPROVE_SECOND, UseApproval
from include.disclosure.delivery import DELIVER
from include.disclosure.use_check import CHECK
from include.evidence.model import Outcome
from include.services.errors import ControlFailed
from tests.disclosure.use_fixtures import UseCompany, UseRun


def checked(company: UseCompany, by: str = "clerk", **more: Any) -> UseRun:
    """Return a run that waits for the supervisor's approval."""
    run = company.start(by=by, request=company.request(by, **more).id)
    run.step(CHECK)
    return run


def asked(run: UseRun) -> RequiredAction:
    """Return the required action for the supervisor."""
    action = run.ask(APPROVE)
    assert isinstance(action, RequiredAction)
    return action


def result(record: Any) -> UseApproval:
    """Return the result in the record of an approval task."""
    return UseApproval.model_validate(record.data)


def test_supervisor_is_asked_and_request_is_described(company: UseCompany) -> None:
    action = asked(checked(company))
    assert action.assigned == ["lead"]
    assert "C-17" in action.body
    assert "寄递" in action.body


def test_superior_of_absent_supervisor_is_asked(company: UseCompany) -> None:
    run = checked(company)
    company.set_employee("lead", active=False)
    assert asked(run).assigned == ["boss"]


def test_check_refuses_requester_who_is_their_own_only_supervisor(company: UseCompany) -> None:
    company.set_employee("lead", supervisor="Lead")
    with pytest.raises(Exception, match="no active supervisor"):
        checked(company, by="lead")


def test_approval_by_supervisor_counts(company: UseCompany) -> None:
    record = checked(company).answer(APPROVE, "lead")
    assert result(record).approved


@pytest.mark.parametrize(
    ("person", "code"),
    [
        ("clerk", "use.own_request"),
        ("ＣＬＥＲＫ ", "use.own_request"),
        ("officer", "use.not_entitled"),
    ],
)
def test_answer_of_other_person_is_refused_and_fails(
    company: UseCompany, person: str, code: str
) -> None:
    record = checked(company).answer(APPROVE, person)
    assert record is not None
    assert (record.outcome, record.findings[0].code) == (Outcome.FAIL, code)
    assert not result(record).approved


def test_supervisor_who_left_after_the_approval_request_cannot_decide(company: UseCompany) -> None:
    run = checked(company)
    action = asked(run)
    company.set_employee("lead", active=False)
    record = run.answer(APPROVE, "lead", form=action)
    assert record is not None
    assert record.findings[0].code == "use.not_entitled"


def test_no_answer_is_a_rejection(company: UseCompany) -> None:
    record = checked(company).answer(APPROVE, None)
    assert record is not None
    assert not result(record).approved
    assert record.findings[0].code == "use.nobody"


def test_rejection_without_reason_is_reported(company: UseCompany) -> None:
    record = checked(company).answer(APPROVE, "lead", "Reject", reason=" ")
    assert record is not None
    assert record.findings[0].code == "use.no_reason"


def test_decision_after_the_deadline_does_not_count(company: UseCompany) -> None:
    run = checked(company)
    action = asked(run)
    company.clock.at += timedelta(hours=25)
    record = run.answer(APPROVE, "lead", form=action)
    assert record is not None
    assert record.findings[0].code == "use.decided_late"
    assert not result(record).approved


def test_answer_to_form_with_other_content_is_invalid(company: UseCompany) -> None:
    run = checked(company)
    action = replace(asked(run), content="1:0")
    with pytest.raises(InvalidAnswer):
        run.answer(APPROVE, "lead", form=action)


def test_masked_request_without_minors_needs_no_second_approval(company: UseCompany) -> None:
    run = checked(company)
    run.answer(APPROVE, "lead")
    second = run.ask(APPROVE_SECOND)
    assert second == UseApproval(needed=False, approved=True)


def test_second_approval_is_asked_of_other_people(company: UseCompany) -> None:
    run = checked(company, fields=["name", "id_number"], unmasked=["id_number"])
    run.answer(APPROVE, "lead")
    second = run.ask(APPROVE_SECOND)
    assert isinstance(second, RequiredAction)
    assert second.assigned == ["officer", "deputy"]


def test_person_of_first_approval_cannot_give_the_second(company: UseCompany) -> None:
    company.set_employee("lead", second_approver=True)
    run = checked(company, fields=["name", "id_number"], unmasked=["id_number"])
    run.answer(APPROVE, "lead")
    record = run.answer(APPROVE_SECOND, "lead")
    assert record is not None
    assert record.findings[0].code == "use.not_entitled"


def test_delivery_without_second_approval_is_refused(company: UseCompany) -> None:
    run = checked(company, fields=["name", "id_number"], unmasked=["id_number"])
    run.answer(APPROVE, "lead")
    run.answer(APPROVE_SECOND, "officer", "Reject")
    assert run.step(DELIVER).findings[0].code == "use.not_approved"


def test_forged_step_record_without_decision_delivers_nothing(company: UseCompany) -> None:
    """A step record that says approved is not enough; the stored decision counts."""
    run = checked(company)
    run.answer(APPROVE, "lead")
    run.answer(APPROVE_SECOND, "officer")
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("DELETE FROM approval_decision"))
    with pytest.raises(ControlFailed, match="was not approved"):
        run.step(DELIVER)
    assert company.objects() == []


def test_repeated_approval_task_returns_the_stored_decision(company: UseCompany) -> None:
    run = checked(company)
    first = run.answer(APPROVE, "lead")
    again = run.ask(APPROVE)
    assert isinstance(again, UseApproval)
    assert again == result(first)


def test_second_approval_fails_without_an_active_second_approver(company: UseCompany) -> None:
    company.set_employee("officer", active=False)
    company.set_employee("deputy", active=False)
    run = checked(company, fields=["name", "id_number"], unmasked=["id_number"])
    run.answer(APPROVE, "lead")
    with pytest.raises(ControlFailed, match="Nobody may approve"):
        run.ask(APPROVE_SECOND)
