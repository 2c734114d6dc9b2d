"""Tests of the step that decides whether affected people are notified.

A person who did not write the impact texts decides. The decision is valid only for the notice text
and the list of people that the form showed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from include.approvals import registry
from include.approvals.required_action import InvalidAnswer
from include.incident import register
from include.incident.communication import notices
from include.incident.form import Action
from include.incident.incident_ids import INDIVIDUAL, Kind, State
from include.incident.steps import decision
from include.incident.time_limits.time_limit import TimeLimitState, time_limits_of
from include.notify.status import statuses
from include.services.errors import ControlFailed
from tests.incident.decision_fixtures import (
    asked,
    given,
    later,
    told,
    widened,
)
from tests.incident.incident_fixtures import BOSS, OTHER_BOSS, Company, assess


def test_decision_form_shows_notice_and_number_of_recipients(company: Company) -> None:
    case = asked(company, 1, 2, 11)
    body = case.page("decide").body
    assert "3 people are affected; 3 of them have received no notice before" in body
    assert "2 people have an e-mail address of their own, 1 have none" in body
    assert "harm, said in en" in body
    assert "harm, said in zh" in body
    assert notices.plan_notices(case.context, case.record).sha256 in body
    assert told(case) == []


def test_author_of_impact_texts_is_excluded_from_decision_whether_to_notify_people(
    company: Company,
) -> None:
    case = company.open(1, 2).until("grade")
    case.update(Action.ASSIGN, account=BOSS, duty="customer_service", words="nobody else is there")
    case.answer("impact", BOSS)
    page = case.page("decide")
    assert page.assigned == [OTHER_BOSS]
    assert (
        "These people are not allowed to answer, because they wrote the content of the notice: B1"
        in page.body
    )
    assert "taken off" not in page.body  # no person is a suspect
    with pytest.raises(InvalidAnswer, match="has no right to answer this step"):
        case.answer("decide", BOSS)
    case.answer("decide", OTHER_BOSS)
    assert case.entries(Kind.DECIDED)[0].by == OTHER_BOSS


def test_person_assigned_by_leader_may_decide_if_all_other_approvers_are_excluded(
    company: Company,
) -> None:
    case = company.open(accounts=[OTHER_BOSS]).until("grade")
    case.update(Action.ASSIGN, account=BOSS, duty="customer_service", words="nobody else is there")
    case.answer("impact", BOSS)
    case.update(Action.ASSIGN, account="X7", duty="management", words="the parent company")
    assert case.page("decide").assigned == ["X7"]


def test_decision_to_notify_is_required_again_after_notice_text_changes(company: Company) -> None:
    case = asked(company)
    case.answer("impact", harm_en="Something else")
    with pytest.raises(InvalidAnswer, match="the notice or the list of affected people changed"):
        case.answer("decide")
    assert case.ask("decide") is not None
    case.answer("decide")
    case.notify()
    case.answer("impact")
    with pytest.raises(ControlFailed, match="changed after its approval"):
        case.notify()
    case.page("decide")
    case.answer("decide", OTHER_BOSS, option="Do not tell", reason="It was nothing")
    assert case.notify() is None
    assert len(case.entries(Kind.DECIDED)) == 2


def test_decision_to_notify_raises_invalid_answer_if_list_of_people_grew_after_form_was_shown(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    run = widened(case, 1, 2, 3)
    assert decision.Decision(run, case.record).dry_run() is None
    with pytest.raises(InvalidAnswer, match="the notice or the list of affected people changed"):
        case.answer("decide")
    assert "3 people are affected" in case.page("decide").body
    case.answer("decide")
    case.notify()
    assert told(case) == ["courier/1", "courier/2", "courier/3"]


def test_people_added_to_list_later_are_notified_only_after_additional_decision(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered()
    run = widened(case, 1, 2, 4, 5)
    page = decision.Decision(run, case.record).dry_run()
    assert page is not None
    assert "4 people are affected; 2 of them have received no notice before" in page.body
    notices.queue_notices(run, case.record)
    assert told(case) == ["courier/1", "courier/2"]
    decision.Decision(run, case.record).record_answer(given(case, reason="They too"))
    queued = notices.queue_notices(run, case.record)
    assert queued is not None
    assert queued.new == 2
    assert told(case) == [f"courier/{number}" for number in (1, 2, 4, 5)]
    assert case.ask("decide") is None


def test_second_decision_to_notify_same_people_raises_invalid_answer(company: Company) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    run = widened(case, 1, 2, 4)
    assert decision.Decision(run, case.record).dry_run() is not None
    assert case.ask("decide") is not None
    case.answer("decide")
    with pytest.raises(InvalidAnswer, match="another decision was recorded"):
        decision.Decision(run, case.record).record_answer(given(case, reason="They too"))
    assert decision.Decision(run, case.record).dry_run() is None


@pytest.mark.parametrize("looked", [True, False])
def test_decision_to_notify_requires_confirmation_of_list_if_many_people_have_no_address(
    company: Company, looked: bool
) -> None:
    case = asked(company, 1, 2, 11, 12)
    assert "UNUSUALLY MANY" in case.page("decide").body
    if looked:
        case.answer("decide", list_looked_at=True)
        return
    with pytest.raises(InvalidAnswer, match="too many people have no usable address"):
        case.answer("decide", list_looked_at=False)
    case.answer("decide", option="Do not tell", list_looked_at=False)


def test_no_decision_to_notify_is_requested_if_nobody_is_affected(company: Company) -> None:
    case = company.open(since="2026-11-20T00:00").until("impact")
    assert case.ask("decide") is None
    assert case.ask("decide") is None
    assert case.said(Kind.DECIDED) == [
        "The count found no affected people. No notification is required."
    ]
    assert case.notify() is None
    time_limit = {item.id: item for item in time_limits_of(case.context, case.record)}[
        "individuals"
    ]
    assert time_limit.state is TimeLimitState.MET
    for authority in ("cac", "postal"):
        case.answer("report", authority=authority)
        case.answer("report_rest", authority=authority)
    case.answer("close")
    assert case.record.incident.state is State.CLOSED


def test_decision_to_notify_is_requested_if_people_are_affected_after_a_first_count_of_zero(
    company: Company,
) -> None:
    case = company.open(since="2026-11-20T00:00").until("impact")
    assert case.ask("decide") is None
    run = widened(case, 1)
    assert decision.Decision(run, case.record).dry_run() is not None
    decision.Decision(run, case.record).record_answer(given(case, reason="One person"))
    time_limit = {item.id: item for item in time_limits_of(case.context, case.record)}[
        "individuals"
    ]
    assert time_limit.is_open


def test_decision_to_notify_raises_control_failed_if_no_list_of_people_exists(
    company: Company,
) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["archive"], keys=[]).counted()
    case.answer("impact")
    with pytest.raises(ControlFailed, match=r"no list of affected people yet.*archive") as blocked:
        case.ask("decide")
    assert "assess" in blocked.value.action
    assert case.entries(Kind.DECIDED) == []


def test_decision_form_contains_name_of_database_that_could_not_be_read(company: Company) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=[]).counted()
    case.answer("impact")
    body = case.page("decide").body
    assert "NOT ON THE LIST: affected people in archive" in body
    assert "12 people are affected" in body
    case.answer("decide")
    company.broken = set()
    assess(case.context)
    case.preserve()
    assert "24 people are affected; 24 of them" in case.page("decide").body


def test_decision_to_notify_raises_control_failed_if_list_of_people_was_not_stored(
    company: Company,
) -> None:
    case = company.open(databases=["archive"], keys=[])
    assess(case.context)
    company.broken = {"archive"}
    record = case.preserve()
    assert {finding.code for finding in record.findings} == {
        "incident.list_not_frozen", "incident.no_access_log",
    }  # fmt: skip
    case.answer("impact")
    with pytest.raises(ControlFailed, match=r"no list of affected people yet.*archive"):
        case.ask("decide")


def test_decision_to_notify_raises_control_failed_while_notice_text_is_incomplete(
    company: Company,
) -> None:
    case = company.open(1).counted()
    with pytest.raises(
        ControlFailed, match="lacks: What happened, What this may mean for you"
    ) as blocked:
        case.ask("decide")
    assert "impact" in blocked.value.action
    assert (
        notices.notices_still_due(
            case.context, {case.number: case.record}, [f"{case.number}/courier/1"]
        )
        == set()
    )


def test_notices_still_due_returns_no_notice_of_cancelled_incident(company: Company) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    keys = [f"{case.number}/courier/{number}" for number in (1, 2)]
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set(keys)
    case.update(Action.CANCEL, by=BOSS, words="a test of the alarm")
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set()
    with company.state.begin() as conn:
        register.end_incident(conn, case.record.incident.id, State.CANCELLED, company.clock.now())
        assert sum(statuses(conn, INDIVIDUAL, f"{case.number}/").values()) == 2


def test_next_answer_adds_timeline_entry_of_recorded_decision_if_the_entry_is_missing(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = asked(company, 1, 2)

    def killed(*_given: object, **_more: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(decision, "append_answer", killed)
        with pytest.raises(MemoryError):
            case.answer("decide")
    with company.state.begin() as conn:
        request = registry.latest_request(
            conn, case.run.dag_id, case.run.run_id, notices.APPROVAL, case.number
        )
        assert request is not None
        assert registry.decision_on(conn, request.id) is None
        registry.decide(
            conn, request, decision=registry.APPROVE, reason="The risk is high", decided_by=BOSS,
            decided_at=company.clock.now(), may_decide=[BOSS], content=request.content,
        )  # fmt: skip
    company.clock.on(minutes=5)
    with pytest.raises(InvalidAnswer, match="B1 made the decision earlier: Tell people"):
        case.answer("decide", OTHER_BOSS, option="Do not tell", reason="No")
    assert [(entry.by, entry.data["tell"]) for entry in case.entries(Kind.DECIDED)] == [
        (BOSS, True)
    ]
    assert case.ask("decide") is None
    assert case.notify().new == 2


def test_decision_answer_that_is_recorded_twice_creates_one_timeline_entry(
    company: Company,
) -> None:
    for option in (decision.TELL, decision.DO_NOT_TELL):
        case = asked(company, 1)
        answer = given(case, option, reason="As said")
        company.clock.on(seconds=1)
        first = case.record_answer("decide", answer)
        assert case.record_answer("decide", answer) == first
        assert len(case.entries(Kind.DECIDED)) == 1


def test_second_of_two_concurrent_decisions_raises_invalid_answer(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.answer("impact", harm_en="other")
    run = later(case)
    case.page("decide")
    content = case.content("decide")
    action = decision.Decision(run, case.record).dry_run()
    assert action is not None
    here = Barrier(2, timeout=300)
    real = decision.Decision._decide
    monkeypatch.setattr(decision.Decision, "_decide", lambda *some: (here.wait(), real(*some))[1])

    decision_answers = [replace(given(case, decision.TELL, reason="because so"), content=content)]
    company.clock.on(seconds=1)
    other = given(case, decision.DO_NOT_TELL, reason="because so")
    decision_answers.append(replace(other, content=action.content))
    with ThreadPoolExecutor(2) as pool:
        answers_by_run = zip((case.context, run), decision_answers, strict=True)
        answers = [
            pool.submit(decision.Decision(context, case.record).record_answer, answer_)
            for context, answer_ in answers_by_run
        ]
    (refused,) = [str(answer.exception()) for answer in answers if answer.exception() is not None]
    assert "another decision was recorded" in refused
    assert len(case.entries(Kind.DECIDED)) == 2


def test_answer_to_outdated_decision_form_raises_invalid_answer(company: Company) -> None:
    case = asked(company, 1, 2)
    outdated_answer = given(case, reason="The risk is high")
    case.answer("impact", cause_en="Another cause")
    case.page("decide")
    with pytest.raises(InvalidAnswer, match="the notice or the list of affected people changed"):
        case.record_answer("decide", outdated_answer)
    assert not case.entries(Kind.DECIDED)
    case.record_answer("decide", given(case, reason="The risk is high"))
    assert len(case.entries(Kind.DECIDED)) == 1
