"""Tests of the time from which the notification of affected people is complete.

All affected people have to be known and covered by a decision. Each of them must have been
notified, unless the decision says otherwise.
"""

from __future__ import annotations

from sqlalchemy import text

from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.steps import decision
from include.incident.time_limits.time_limit import time_limits_of
from tests.incident.decision_fixtures import (
    asked,
    given,
    left,
    notification_time_limit,
    widened,
)
from tests.incident.incident_fixtures import SERVICE, Company, assess


def test_notification_time_limit_is_open_while_some_affected_people_have_no_decision(
    company: Company,
) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1", "archive/2"])
    assess(case.context)
    case.preserve(last=True)
    case.answer("impact")
    case.page("decide")
    case.answer("decide")
    case.notify()
    case.delivered()
    assert case.said(Kind.TOLD) == [
        "1 notices were sent, 0 could not be sent. The people who received no notice "
        "have to be notified in another way. Further affected people are not identified yet, or "
        "it is not decided yet whether to notify them."
    ]
    assert notification_time_limit(case).is_open
    company.broken = set()
    company.clock.on(hours=1)
    assess(case.context)
    case.preserve()
    case.settle()
    assert notification_time_limit(case).is_open
    case.page("decide")
    company.clock.on(hours=1)
    case.answer("decide")
    case.notify()
    assert notification_time_limit(case).is_open
    company.clock.on(hours=1)
    case.delivered()
    assert notification_time_limit(case).done_at == company.clock.now()


def test_notification_is_complete_if_later_count_of_unreadable_database_adds_no_people(
    company: Company,
) -> None:
    for option in (decision.TELL, decision.DO_NOT_TELL):
        company.broken = {"archive"}
        case = company.open(databases=["courier", "archive"], keys=["courier/1"])
        assess(case.context)
        case.preserve(last=True)
        case.answer("impact")
        case.page("decide")
        case.answer("decide", option=option)
        case.notify()
        case.delivered()
        assert notification_time_limit(case).is_open
        company.broken = set()
        company.clock.on(hours=1)
        assess(case.context)
        case.preserve()
        at = company.clock.now()
        company.clock.on(hours=90)
        case.settle()
        assert notification_time_limit(case).done_at == at, option


def test_notification_stays_complete_if_scope_is_widened_after_notices_were_sent(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    at = company.clock.now()
    with company.state.begin() as conn:
        conn.execute(
            text("UPDATE notification SET state = 'sent', settled_at = :at WHERE key LIKE :mine"),
            {"at": at, "mine": f"{case.number}/%"},
        )
    company.clock.on(hours=90)
    widened(case, 1, 2, 3)
    case.settle()
    assert notification_time_limit(case).done_at == at


def test_notification_is_complete_when_failed_notices_are_sent_by_retry(company: Company) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered("undeliverable")
    assert notification_time_limit(case).is_open
    company.clock.on(hours=2)
    case.delivered()
    case.settle()
    assert notification_time_limit(case).done_at == company.clock.now()
    assert [entry.data["complete"] for entry in case.entries(Kind.TOLD)] == [False, True]


def test_notification_is_incomplete_if_notices_fail_after_people_were_recorded_as_called(
    company: Company,
) -> None:
    case = asked(company, 1, 11)
    case.answer("decide")
    case.notify()
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="we called them")
    case.delivered("undeliverable")
    assert left(case).startswith("2 people could not be notified by mail")
    assert notification_time_limit(case).is_open
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="we called them now")
    assert not notification_time_limit(case).is_open
    assert "by mail" not in left(case)
    company.clock.on(hours=1)
    case.delivered("undeliverable")  # a retry failed too
    assert left(case).startswith("2 people could not be notified by mail")


def test_notification_is_complete_if_people_without_notice_were_notified_in_another_way(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.settle()
    assert case.entries(Kind.TOLD) == []
    case.delivered("undeliverable")
    assert case.said(Kind.TOLD) == [
        "0 notices were sent, 2 could not be sent. The people who received no notice "
        "have to be notified in another way."
    ]
    time_limits = {
        time_limit.id: time_limit for time_limit in time_limits_of(case.context, case.record)
    }
    assert time_limits["individuals"].is_open
    company.clock.on(hours=1)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="called, and wrote letters on paper")
    time_limits = {
        time_limit.id: time_limit for time_limit in time_limits_of(case.context, case.record)
    }
    assert time_limits["individuals"].done_at == company.clock.now()


def test_notification_is_incomplete_until_people_added_to_the_list_have_a_decision(
    company: Company,
) -> None:
    case = asked(company, 1, 2)
    case.answer("decide")
    case.notify()
    case.delivered("undeliverable")
    run = widened(case, 1, 2, 3)
    case.update(Action.TOLD_OTHERWISE, by=SERVICE, words="we called them")
    case.settle()
    assert notification_time_limit(case).is_open
    company.clock.on(hours=1)
    decision.Decision(run, case.record).dry_run()
    decision.Decision(run, case.record).record_answer(
        given(case, decision.DO_NOT_TELL, reason="It is our own man")
    )
    case.settle()
    assert notification_time_limit(case).done_at == company.clock.now()
