"""Tests that each notice and team call is sent once, and that its delivery is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from include.incident import incident_opening
from include.incident.communication import notices
from include.incident.communication.addresses import AddressBook
from include.incident.form import Action
from include.incident.incident_ids import ALERT, INDIVIDUAL, Kind
from include.incident.time_limits import escalation
from include.incident.time_limits.time_limit import TimeLimitState, time_limits_of
from include.incident.watch import settle_notifications, watch_once
from tests.incident.incident_fixtures import BOSS, PACK, Case, Company, english
from tests.notify.notify_fixtures import Post
from tests.support.smtp import Smtp

TOLD = "@customer.example"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as smtp:
        yield smtp


@pytest.fixture
def post(company: Company, server: Smtp) -> Post:
    """Provide the sender of mails, with an empty queue."""
    with company.state.begin() as conn:
        conn.execute(
            text("TRUNCATE notification, notification_message, notification_text RESTART IDENTITY")
        )
    return Post(company.state, server.port, clock=company.clock)


def decided(company: Company, *keys: int) -> Case:
    case = company.open(*keys).until("impact")
    case.page("decide")
    case.answer("decide")
    return case


def send_and_record(post: Post, case: Case) -> None:
    """Send the waiting mails and record their delivery, as the tasks of a run do."""
    send_only(post, case)
    settle_notifications(case.context)


def send_only(post: Post, case: Case) -> None:
    """Send the waiting mails without recording their delivery, as if the process was killed."""

    def still_due_notices(keys: Sequence[str]) -> set[str]:
        return notices.notices_still_due(case.context, {case.number: case.record}, keys)

    def alerts(keys: Sequence[str]) -> set[str]:
        return escalation.still_due(
            keys, case.number, time_limits_of(case.context, case.record), case.context.zone
        )

    post.confirm = {INDIVIDUAL: still_due_notices, ALERT: alerts}
    post.addresses = {INDIVIDUAL: partial(AddressBook.look_up, AddressBook(case.context))}
    post.deliver()


def boxes(server: Smtp) -> list[str]:
    """Return the recipients' addresses of the notices that the mail server received.

    Mails to the incident team are left out.
    """
    return sorted(mail.recipient for mail in server.taken if mail.recipient.endswith(TOLD))


def test_notice_is_sent_once_to_each_person_with_address(
    company: Company, post: Post, server: Smtp
) -> None:
    case = decided(company, 1, 2, 11, 12)
    case.notify()
    case.notify()
    send_and_record(post, case)
    send_and_record(post, case)
    assert boxes(server) == [f"c{number}{TOLD}" for number in (1, 2)]
    [notice] = [number for number in server.taken if number.recipient == f"c1{TOLD}"]
    body = notice.text("plain")
    for words in ("harm, said in zh", "harm, said in en", "privacy@courier.example", "姓名"):
        assert words in body
    assert case.said(Kind.TOLD) == [
        "2 notices were sent, 2 could not be sent. The people who received no notice "
        "have to be notified in another way."
    ]
    with company.state.connect() as conn:
        assert notices.count_by_state(conn, case.number) == {
            "sent": 2,
            "undeliverable": 2,
        }


def test_notices_stay_pending_while_mail_server_is_down_and_are_sent_afterwards(
    company: Company, post: Post, server: Smtp
) -> None:
    case = decided(company, 1, 2)
    case.notify()
    server.rule = lambda phase, _address: "421 4.3.2 down" if phase == "MAIL" else None
    send_and_record(post, case)
    assert case.entries(Kind.TOLD) == []
    with company.state.connect() as conn:
        assert notices.count_by_state(conn, case.number) == {"pending": 2}
    server.rule = lambda *_: None
    company.clock.on(hours=1)
    send_and_record(post, case)
    assert boxes(server) == [f"c{number}{TOLD}" for number in (1, 2)]
    assert case.entries(Kind.TOLD)[0].happened_at == company.clock.now()


def test_cancellation_of_incident_withdraws_waiting_notices(
    company: Company, post: Post, server: Smtp
) -> None:
    case = decided(company, 1, 2)
    case.notify()
    case.update(Action.CANCEL, by=BOSS, words="a test of the alarm")
    send_and_record(post, case)
    assert boxes(server) == []
    with company.state.connect() as conn:
        assert notices.count_by_state(conn, case.number) == {"withdrawn": 2}


def test_decision_not_to_notify_withdraws_waiting_notices(
    company: Company, post: Post, server: Smtp
) -> None:
    case = decided(company, 1, 2)
    case.notify()
    case.answer("impact")
    case.page("decide")
    case.answer("decide", option="Do not tell", reason="The scanner was found, locked")
    send_and_record(post, case)
    assert boxes(server) == []


def test_waiting_notices_are_sent_with_changed_text_only_after_new_decision(
    company: Company, post: Post, server: Smtp
) -> None:
    case = decided(company, 1, 2)
    case.notify()
    server.rule = lambda phase, _address: "421 4.3.2 down" if phase == "MAIL" else None
    send_and_record(post, case)
    case.answer("impact", harm_en="Far less than we thought")
    server.rule = lambda *_: None
    company.clock.on(hours=1)
    send_and_record(post, case)
    assert boxes(server) == []
    case.page("decide")
    case.answer("decide")
    case.notify()
    send_and_record(post, case)
    assert boxes(server) == [f"c{number}{TOLD}" for number in (1, 2)]
    for notice in (number for number in server.taken if number.recipient.endswith(TOLD)):
        assert "Far less than we thought" in notice.text("plain")
        assert "harm, said in en" not in notice.text("plain")
    assert case.entries(Kind.TOLD)[-1].data["complete"]


def test_timeline_entry_for_call_of_incident_team_is_added_after_all_mails_are_sent(
    company: Company, post: Post, server: Smtp
) -> None:
    case = company.open(1)
    with company.state.begin() as conn:
        assert not incident_opening.record_team_call(conn, case.context, case.record.incident)
    company.clock.on(minutes=2)
    send_and_record(post, case)
    assert case.said(Kind.TEAM_CALLED) == [
        "The incident team was called. Number of duties whose people were notified: 5."
    ]
    assert case.entries(Kind.TEAM_CALLED)[0].happened_at == company.clock.now()
    assert all(
        case.number in str(mail.mail["Subject"]) + mail.text("plain") for mail in server.taken
    )
    assert server.taken
    send_and_record(post, case)
    assert len(case.entries(Kind.TEAM_CALLED)) == 1


def test_incident_team_counts_as_called_at_time_of_mail_even_if_watch_checks_hours_later(
    company: Company, post: Post
) -> None:
    case = company.open(1)
    company.clock.on(minutes=1)
    at = company.clock.now()
    send_only(post, case)
    company.clock.on(hours=6)
    assert case.entries(Kind.TEAM_CALLED) == []
    watch_once(case.context)
    (entry,) = case.entries(Kind.TEAM_CALLED)
    assert (entry.happened_at, entry.recorded_at) == (at, company.clock.now())
    team_time_limit = {
        time_limit.id: time_limit for time_limit in time_limits_of(case.context, case.record)
    }["team_called"]
    assert (team_time_limit.state, team_time_limit.done_at) == (TimeLimitState.MET, at)


def test_incident_team_counts_as_called_at_time_of_last_mail_if_one_mail_was_delayed(
    company: Company, post: Post, server: Smtp
) -> None:
    case = company.open(1)
    company.clock.on(minutes=1)
    far = PACK.roles["management"].mail[0]
    server.rule = lambda phase, to: "421 4.3.2 down" if phase == "RCPT" and far in to else None
    send_only(post, case)
    server.rule = lambda *_: None
    company.clock.on(hours=1)
    send_only(post, case)
    last = company.clock.now()
    company.clock.on(hours=1)
    settle_notifications(case.context)
    assert case.entries(Kind.TEAM_CALLED)[0].happened_at == last


def test_timeline_entry_for_notification_has_time_of_last_sent_notice(
    company: Company, post: Post
) -> None:
    case = decided(company, 1, 2)
    case.notify()
    at = case.record.incident.aware_at + timedelta(hours=70)
    company.clock.moment = at
    send_only(post, case)
    company.clock.on(hours=10)
    watch_once(case.context)
    (entry,) = case.entries(Kind.TOLD)
    assert (entry.happened_at, entry.recorded_at) == (at, company.clock.now())
    notification_time_limit = {
        time_limit.id: time_limit for time_limit in time_limits_of(case.context, case.record)
    }["individuals"]
    assert notification_time_limit.state is TimeLimitState.MET


def test_incident_team_counts_as_called_at_current_time_if_mail_has_future_time(
    company: Company, post: Post
) -> None:
    case = company.open(1)
    company.clock.on(seconds=5)
    send_only(post, case)
    company.clock.on(seconds=-5)
    settle_notifications(case.context)
    assert case.entries(Kind.TEAM_CALLED)[0].happened_at == company.clock.now()


def test_incident_drill_sends_no_notice_to_people(company: Company) -> None:
    case = company.open(scenario="scanner_lost", keys=[], databases=[]).counted()
    for step in ("contain", "grade", "impact"):
        case.answer(step)
    case.page("decide")
    case.answer("decide")
    at = company.clock.now()
    case.notify()
    company.clock.on(hours=5)
    case.settle()
    (entry,) = case.entries(Kind.TOLD)
    assert english(entry.words) == "DRILL: no notice was sent."
    assert entry.happened_at == at
    with company.state.connect() as conn:
        assert notices.count_by_state(conn, case.number) == {}


def test_watch_checks_again_in_one_minute_if_a_mail_is_unsent_and_otherwise_in_five_minutes(
    company: Company, post: Post, server: Smtp
) -> None:
    case = company.open(1)
    now = company.clock.now()
    look = watch_once(case.context)
    assert (look.has_unsent, look.next_check_at) == (True, now + timedelta(minutes=1))
    send_and_record(post, case)
    look = watch_once(case.context)
    assert (look.has_unsent, look.next_check_at) == (False, now + timedelta(minutes=5))
