"""Tests of later decisions, after a text changed, people were found or a task was cleared."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.incident import incident_run, scope_assessment
from include.incident.communication import authority_report, notices
from include.incident.incident_ids import UPDATES, Kind
from include.incident.steps import decision
from include.notify.outbox import Run
from include.services.errors import ControlFailed
from tests.incident.decision_fixtures import (
    asked,
    given,
    later,
    left,
    notification_time_limit,
    texts,
    told,
    widened,
)
from tests.incident.incident_fixtures import OTHER_BOSS, Company


def test_queued_notices_are_not_due_until_changed_text_is_approved_and_queued_again(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    keys = [f"{case.number}/courier/{number}" for number in (1, 2)]
    old = texts(case)
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set(keys)
    case.answer("impact", harm_en="Something else", harm_zh="另外的")
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set()
    case.page("decide")
    case.answer("decide", OTHER_BOSS)
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set()
    case.settle()
    assert case.entries(Kind.TOLD) == []
    assert case.notify().again == 2
    assert texts(case) == [notices.plan_notices(case.context, case.record).text_sha256] * 2 != old
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set(keys)


def test_sent_notice_is_not_sent_again_after_text_changes(company: Company) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    with company.state.begin() as conn:
        conn.execute(
            text("UPDATE notification SET state = 'sent', settled_at = :at WHERE key = :key"),
            {"at": company.clock.now(), "key": f"{case.number}/courier/1"},
        )
    first, waits = texts(case)
    case.answer("impact")
    case.page("decide")
    case.answer("decide")
    case.notify()
    assert texts(case) == [first, notices.plan_notices(case.context, case.record).text_sha256]
    assert waits == first
    with company.state.connect() as conn:
        assert notices.count_by_state(conn, case.number) == {"sent": 1, "pending": 1}


def test_waiting_notices_are_not_due_after_data_categories_change(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    counted = incident_run.require_scope(case.context, case.record.incident.id).counted[0]
    more = {**counted.categories, "user.government_id": 2}
    scope = incident_run.require_scope(case.context, case.record.incident.id).model_copy(
        update={"counted": (counted.model_copy(update={"categories": more}),)}
    )
    scope_assessment.store_correction(case.context, case.record, scope)
    case.preserve()
    keys = [f"{case.number}/courier/{number}" for number in (1, 2)]
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set()
    case.page("decide")
    case.answer("decide")
    case.notify()
    assert set(texts(case)) == {notices.plan_notices(case.context, case.record).text_sha256}


def test_cleared_task_asks_again_after_decision_not_to_notify_people(company: Company) -> None:
    case = asked(company, 1, 2)
    case.answer("decide", option="Do not tell", reason="The wrong list of addresses")
    assert case.notify() is None
    body = case.page("decide").body
    assert (
        "It was decided not to notify affected people. Reason: The wrong list of addresses" in body
    )
    assert "Decide again whether to notify the affected people to whom no notice was sent" in body
    case.answer("decide", option="Do not tell", reason="Not right yet")
    assert "Not right yet" in case.page("decide").body
    case.answer("decide")
    assert case.notify().new == 2
    assert case.ask("decide") is None
    assert [entry.data["tell"] for entry in case.entries(Kind.DECIDED)] == [False, False, True]
    assert len({entry.data["request"] for entry in case.entries(Kind.DECIDED)}) == 3
    assert notification_time_limit(case).is_open


def test_only_the_update_run_that_adds_people_asks_for_a_new_decision(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide", option="Do not tell", reason="They know")
    assert decision.Decision(later(case), case.record).dry_run() is None
    run = widened(case, 1, 2, 3)
    assert decision.Decision(run, case.record).dry_run() is not None
    decision.Decision(run, case.record).record_answer(
        given(case, decision.DO_NOT_TELL, reason="This one too")
    )
    assert decision.Decision(run, case.record).dry_run() is not None
    another = company.context(Run(UPDATES, "another"), incident=case.number)
    assert decision.Decision(another, case.record).dry_run() is None


def test_decision_not_to_notify_people_added_later_does_not_revoke_decision_to_notify_others(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    run = widened(case, 1, 2, 4)
    page = decision.Decision(run, case.record).dry_run()
    assert page is not None
    assert "decide whether to notify 1 affected people" in page.subject
    assert (
        "Decide only on the 1 people who were added to the list after the decision above"
        in page.body
    )
    decision.Decision(run, case.record).record_answer(
        given(case, decision.DO_NOT_TELL, reason="It is our own man")
    )
    keys = [f"{case.number}/courier/{number}" for number in (1, 2)]
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set(keys)
    assert notices.queue_notices(run, case.record) is not None
    assert told(case) == ["courier/1", "courier/2"]
    assert notification_time_limit(case).is_open
    case.delivered()
    assert case.entries(Kind.TOLD)[-1].data["complete"]
    assert not notification_time_limit(case).is_open
    rest = str(authority_report._cause_section(run, case.record))
    assert "more affected people are not to be notified" in rest
    assert "{count} affected people are to be notified" in rest


def test_notices_are_queued_only_for_people_with_decision_to_notify_them(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    run = widened(case, 1, 2, 4)
    decision.Decision(run, case.record).dry_run()
    decision.Decision(run, case.record).record_answer(
        given(case, decision.DO_NOT_TELL, reason="It is our own man")
    )
    assert left(case) == "the notices to affected people are not queued for sending yet"
    case.notify()
    assert told(case) == ["courier/1", "courier/2"]
    run = widened(case, 1, 2, 4, 5)
    company.clock.on(minutes=1)
    decision.Decision(run, case.record).dry_run()
    decision.Decision(run, case.record).record_answer(given(case, reason="This one too"))
    case.notify()
    assert told(case) == ["courier/1", "courier/2", "courier/5"]


def test_people_added_to_list_during_queueing_get_no_notice(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")

    def insert(number: int, version: int) -> None:
        with company.state.begin() as conn:
            conn.execute(
                text("INSERT INTO incident_subject (incident_id, database, key, version)"
                     " VALUES (:id, 'courier', :key, :version)"),
                {"id": case.record.incident.id, "key": str(number), "version": version},
            )  # fmt: skip

    real = notices.lock_for_transaction
    version = incident_run.require_scope(case.context, case.record.incident.id).version
    additions = [(4, version), (3, version + 1)]

    def meanwhile(*arguments: object) -> object:
        insert(*additions.pop())
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(notices, "lock_for_transaction", meanwhile)
    case.notify()
    assert told(case) == ["courier/1", "courier/2"]
    with pytest.raises(ControlFailed, match="differs from the approved list") as refused:
        case.notify()
    assert "decide" in refused.value.action
    assert told(case) == ["courier/1", "courier/2"]


def test_waiting_notices_are_withdrawn_if_impact_texts_are_entered_again_unchanged(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    keys = [f"{case.number}/courier/{number}" for number in (1, 2)]
    case.answer("impact")
    assert notices.notices_still_due(case.context, {case.number: case.record}, keys) == set()
    case.page("decide")
    case.answer("decide", option="Do not tell", reason="The scanner was locked")
    run = widened(case, 1, 2, 4)
    company.clock.on(minutes=1)
    decision.Decision(run, case.record).dry_run()
    decision.Decision(run, case.record).record_answer(given(case, reason="This one saw it"))
    case.notify()
    with company.state.connect() as conn:
        assert notices.count_by_state(conn, case.number) == {"withdrawn": 2, "pending": 1}


def test_new_decision_covers_all_people_if_list_changed_after_decision_not_to_notify(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide", option="Do not tell", reason="The scanner was locked")
    version = incident_run.require_scope(case.context, case.record.incident.id).version
    with company.state.begin() as conn:
        conn.execute(
            text("INSERT INTO incident_subject (incident_id, database, key, version)"
                 " VALUES (:id, 'courier', '3', :version)"),
            {"id": case.record.incident.id, "version": version},
        )  # fmt: skip
    page = case.page("decide")
    assert "decide whether to notify 3 affected people" in page.subject
    assert "the affected people to whom no notice was sent" in page.body
    case.answer("decide")
    case.notify()
    assert told(case) == ["courier/1", "courier/2", "courier/3"]
