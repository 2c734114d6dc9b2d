"""Failing servers: refusals, greylisting, lost connections, unreachable servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from include.notify import delivery, sending
from include.notify.claims import LEASE, UnsentNotification
from include.policy.rules import InDoubt, NotificationRules
from include.reports.i18n import Translator
from include.services.errors import ServiceError
from tests.notify.notify_fixtures import KIND, MovingClock, Post, notification
from tests.support.smtp import DROP, Rule, Smtp


def reply_for(phase: str, person: str, reply: str) -> Rule:
    """Return a server rule that answers one command about one person with a reply."""
    at = f"{person}@courier.example"
    return lambda mail, address: reply if (mail, address) == (phase, at) else None


def test_other_recipients_get_their_mail_if_the_server_refuses_one_recipient(
    post: Post, server: Smtp
) -> None:
    server.rule = reply_for("RCPT", "e2", "550 5.1.1 e2@courier.example unknown")
    post.queue(*(notification(1, f"E{number}") for number in range(1, 5)), notification(2, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.undeliverable, delivery.deferred) == (3, 2, 0)
    assert delivery.recipients == [UnsentNotification(KIND, "E2", "refused 550 5.1.1")] * 2
    assert post.states()["E2/1"] == "undeliverable"
    assert "@" not in " ".join(post.causes().values())
    post.queue(notification(1, "E2", address="e2.new@courier.example"))
    post.clock.on(days=1)
    assert post.deliver().sent == 1


def test_mail_is_sent_again_a_minute_after_the_server_deferred_it_by_greylisting(
    post: Post, server: Smtp
) -> None:
    server.rule = reply_for("RCPT", "e1", "451 4.7.1 greylisted")
    post.queue(notification(1), notification(1, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.deferred) == (1, 1)
    server.rule = lambda _phase, _address: None
    post.queue(notification(2))
    post.clock.on(seconds=59)
    assert (post.deliver().sent, len(server.read)) == (0, 1)
    post.clock.on(seconds=1)
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.deferred) == (1, 2, 0)
    assert "n2" in server.taken[-1].text("plain")


def test_deferred_digest_waits_until_end_of_quiet_hours(post: Post, server: Smtp) -> None:
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notification(1), notification(2, "E2", urgent=True))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.clock.moment = datetime(2026, 11, 26, 15, tzinfo=UTC)  # 23:00
    delivery = sending.send(post.office(), post.clock.now(), "6.2")
    assert (delivery.retry_reason, delivery.record.findings) == ("", [])
    assert (delivery.record.data["waiting"], delivery.record.data["messages"]) == (1, 1)
    post.clock.moment = datetime(2026, 11, 27, 2, tzinfo=UTC)
    assert post.deliver().sent == 1


def test_pause_between_retries_grows_from_one_minute_to_at_most_one_hour(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notification(1))
    for minutes in (1, 5, 15, 60, 60):
        before = post.rows("SELECT tries FROM notification_message")
        post.deliver()
        (row,) = post.rows("SELECT tries, next_try_at, message_id FROM notification_message")
        assert row[0] == (before[0][0] if before else 0) + 1
        assert (row[1] - post.clock.now()).total_seconds() == minutes * 60
        post.clock.on(minutes=minutes)
    server.rule = lambda _phase, _address: None
    assert post.deliver().sent == 1
    assert server.taken[0].message_id == row[2]


def test_notifications_of_unsent_digest_are_sent_in_digest_of_next_day(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notification(1))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.clock.on(days=1)
    post.queue(notification(2))
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications) == (1, 2)
    assert [(state, day) for _who, state, day in post.messages()] == [
        ("dissolved", date(2026, 11, 26)),
        ("sent", date(2026, 11, 27)),
    ]


def test_notification_becomes_undeliverable_after_it_was_deferred_for_three_days(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.rules = NotificationRules(workdays_only=False)
    post.queue(notification(1))
    for _day in range(3):
        assert post.deliver().undeliverable == 0
        post.clock.on(days=1)
    post.queue(notification(2))
    delivery = post.deliver()
    assert delivery.recipients == [UnsentNotification(KIND, "E1", "gave_up")]
    assert post.states() == {"E1/1": "undeliverable", "E1/2": "pending"}
    assert post.queue(notification(1)).again == 1


def test_notification_that_waited_through_a_week_of_holidays_is_sent(
    post: Post, server: Smtp
) -> None:
    post.clock.moment = datetime(2026, 9, 30, 13, 30, tzinfo=UTC)
    post.queue(notification(1))
    post.deliver()
    post.clock.moment = datetime(2026, 10, 8, 2, tzinfo=UTC)
    assert post.deliver().sent == 1


def test_notification_queued_before_a_holiday_is_retried_if_server_defers_it_after_the_holiday(
    post: Post, server: Smtp
) -> None:
    """A notification is given up some time after its first deferral, not after it was queued.

    Otherwise greylisting after a week of holidays would end its delivery.
    """
    post.clock.moment = datetime(2026, 9, 30, 13, 30, tzinfo=UTC)
    post.queue(notification(1))
    post.clock.moment = datetime(2026, 10, 8, 2, tzinfo=UTC)
    server.rule = lambda phase, _: "450 greylisted" if phase == "RCPT" else None
    assert post.deliver().undeliverable == 0
    server.rule = lambda _phase, _address: None
    post.clock.on(minutes=10)
    assert post.deliver().sent == 1


def test_notification_queued_before_a_holiday_is_retried_if_server_is_unreachable_after_the_holiday(
    post: Post, server: Smtp
) -> None:
    """An unreachable server counts as a deferral, after which the time until giving up begins."""
    post.clock.moment = datetime(2026, 9, 30, 13, 30, tzinfo=UTC)
    post.queue(notification(1))
    post.clock.moment = datetime(2026, 10, 8, 2, tzinfo=UTC)
    server.stop()
    assert post.deliver().undeliverable == 0
    server.start()
    post.clock.on(minutes=10)
    assert post.deliver().sent == 1


def test_undeliverable_notification_that_is_queued_again_is_retried_for_another_three_days(
    post: Post, server: Smtp
) -> None:
    post.rules = NotificationRules(workdays_only=False)
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notification(1))
    post.deliver()
    post.clock.on(days=3)
    assert post.deliver().undeliverable == 1
    assert post.queue(notification(1)).again == 1
    assert post.deliver().undeliverable == 0
    post.clock.on(days=3)
    assert post.deliver().undeliverable == 1


def test_all_notifications_are_deferred_if_the_mail_server_is_unreachable(
    post: Post, server: Smtp
) -> None:
    server.stop()
    post.queue(notification(1), notification(1, "E2"), notification(1, "E3", urgent=True))
    delivery = post.deliver()
    assert (delivery.sent, delivery.deferred, delivery.unusable_channels) == (0, 3, {"mail": ""})
    assert post.messages() == []
    server.start()
    assert post.deliver().sent == 3


def test_notifications_become_undeliverable_after_the_mail_server_was_unreachable_for_days(
    post: Post, server: Smtp
) -> None:
    post.rules = NotificationRules(workdays_only=False)
    post.queue(notification(1, "E2"))
    assert post.deliver().sent == 1
    post.queue(notification(1), notification(2, "E2"))
    server.stop()
    post.clock.on(days=1)
    assert post.deliver().undeliverable == 0
    post.clock.on(days=3)
    delivery = post.deliver()
    assert delivery.undeliverable == 2
    assert {recipient.cause for recipient in delivery.recipients} == {"gave_up"}


def test_messages_not_yet_sent_are_deferred_if_the_server_closes_during_delivery(
    post: Post, server: Smtp
) -> None:

    def rule(phase: str, _address: str) -> str | None:
        return "421 4.3.2 closing" if phase == "MAIL" and len(server.taken) >= 10 else None

    server.rule = rule
    post.queue(*(notification(1, f"E{number:02}") for number in range(40)))
    delivery = post.deliver()
    taken = delivery.sent
    assert taken in (10, 11)  # two connections send in parallel
    assert (delivery.deferred, delivery.in_doubt) == (40 - taken, 0)
    assert delivery.unusable_channels == {"mail": "421 4.3.2"}
    states = Counter(state for _who, state, _day in post.messages())
    assert states == {"sent": taken, "dissolved": 40 - taken}
    server.rule = lambda _phase, _address: None
    assert post.deliver().sent == 40 - taken
    assert set(server.copies().values()) == {1}


def test_delivery_defers_all_messages_after_few_attempts_if_server_drops_each_connection(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: DROP if phase == "RCPT" else None
    post.queue(*(notification(1, f"E{number:02}") for number in range(40)))
    delivery = post.deliver()
    assert (delivery.sent, delivery.deferred) == (0, 40)
    assert "mail" in delivery.unusable_channels
    assert len(post.rows("SELECT 1 FROM notification_message WHERE state = 'deferred'")) <= 10


def test_delivery_stops_after_at_most_six_messages_if_server_confirms_no_receipt(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(*(notification(1, f"E{number:02}") for number in range(40)))
    delivery = post.deliver()
    assert delivery.unusable_channels == {"mail": ""}
    assert (delivery.deferred, delivery.in_doubt) == (40, 0)
    assert 5 <= len(server.read) <= 6  # two connections send in parallel
    for _try in range(9):
        post.clock.on(hours=1)
        post.deliver()
    assert max(server.copies().values()) == 3
    doubted = post.rows("SELECT count(*) FROM notification WHERE state = 'in_doubt'")[0][0]
    assert doubted >= 5
    assert post.rows("SELECT max(copies) FROM notification_message") == [(2,)]


def test_message_that_may_have_arrived_is_repeated_even_after_server_refused_several_retries(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notification(1))
    post.deliver()
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    for _try in range(4):
        post.clock.on(hours=1)
        assert (post.deliver().in_doubt, len(server.read)) == (0, 1)
    server.rule = lambda _phase, _address: None
    post.clock.on(hours=1)
    assert post.deliver().sent == 1


def test_message_is_sent_only_if_the_slow_server_answers_within_the_answer_timeout(
    post: Post, server: Smtp
) -> None:
    server.slow = 0.6
    post.extra = {"timeout": 0.3, "answer_timeout": 5}
    post.queue(notification(1), notification(2, "E2"))
    assert post.deliver().sent == 2
    server.slow, post.extra = 0.6, {"timeout": 5, "answer_timeout": 0.2}
    post.queue(notification(1, "E3"))
    assert (post.deliver().sent, post.states()["E3/1"]) == (0, "pending")


def test_second_process_sends_no_message_while_the_first_process_waits_for_a_slow_server(
    post: Post, server: Smtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LEASE_CHECK_SECONDS", 0.02)
    began = post.clock.moment
    others = []

    def rule(phase: str, _address: str) -> str | None:
        if phase == "DATA":
            for _minute in range(8):
                post.clock.on(minutes=1)
                post.rows("SELECT pg_sleep(0.08)")
            others.append(Post(post.state, post.port, MovingClock(post.clock.moment)).deliver())
        return None

    server.rule = rule
    post.queue(notification(1))
    assert post.deliver().sent == 1
    assert post.clock.moment - began > LEASE
    assert [mail.sent for mail in others] == [0]
    assert list(server.copies().values()) == [1]


def test_message_is_sent_again_if_connection_was_lost_after_content_was_sent(
    post: Post, server: Smtp
) -> None:
    server.rule = reply_for("DATA", "e1", DROP)
    post.queue(notification(1), notification(1, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.deferred, delivery.in_doubt) == (1, 1, 0)
    server.rule = lambda _phase, _address: None
    post.queue(notification(2))
    assert post.deliver().sent == 0
    post.clock.on(minutes=1)
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.waiting) == (1, 1, 1)
    assert max(server.copies().values()) == 2
    assert "n2" not in server.taken[-1].text("plain")


def test_repeated_message_omits_notifications_that_are_no_longer_due(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notification(1), notification(2), notification(1, "E2"))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.confirm = {KIND: lambda keys: {key for key in keys if key == "E1/1"}}
    post.clock.on(minutes=1)
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.withdrawn) == (1, 1, 2)
    assert {recipient: state for recipient, state, _day in post.messages()} == {
        "E1": "sent",
        "E2": "in_doubt",
    }
    assert post.states() == {"E1/1": "sent", "E1/2": "in_doubt", "E2/1": "in_doubt"}
    # Queued again, these notifications would have another id, although they may have arrived.
    assert post.untold(["E1/2", "E2/1"]) == set()


def test_repetition_of_message_is_deferred_if_workflow_raises_an_error_when_asked_to_confirm_it(
    post: Post, server: Smtp
) -> None:

    def unsure(_keys: Sequence[str]) -> set[str]:
        raise ServiceError("The database of courses cannot be reached.")

    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notification(1), notification(2, kind="partners.review"))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.confirm = {KIND: unsure}
    post.clock.on(minutes=1)
    delivery = post.deliver()
    assert (delivery.sent, delivery.deferred, delivery.unavailable_kinds) == (
        0,
        2,
        {KIND: "ServiceError"},
    )
    post.confirm = {}
    post.clock.on(seconds=LEASE.total_seconds())
    assert post.deliver().notifications == 2


def test_error_in_workflow_delays_only_the_notifications_of_that_workflow(
    post: Post, server: Smtp
) -> None:

    def broken(keys: Sequence[str]) -> set[str]:
        raise ValueError(f"not enough values to unpack: {keys[0]}")

    post.confirm = {KIND: broken}
    post.queue(notification(1), notification(2, "E2", kind="partners.review"))
    delivery = sending.send(post.office(), post.clock.now(), "6.2")
    assert [mail.recipient for mail in server.taken] == ["e2@courier.example"]
    (finding,) = delivery.record.findings[:1]
    assert Translator("en").text(finding.message) == (
        "Notifications of this type are delayed: training.reminder. "
        "ParcelSeal could not confirm that they "
        "are still required, or could not look up the addresses of their recipients."
    )
    assert finding.for_engineers is not None
    assert (
        Translator("en").text(finding.for_engineers)
        == f"Error for the notification type `{KIND}`: `ValueError`."
    )
    assert "E1/1" not in delivery.record.model_dump_json()
    assert delivery.retry_reason
    assert post.states()["E1/1"] == "pending"


@pytest.mark.parametrize("answer", ["550 5.1.1 unknown", "450 busy"])
def test_message_that_may_have_arrived_is_reported_if_its_repetition_is_refused(
    post: Post, server: Smtp, answer: str
) -> None:
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.rules = NotificationRules(workdays_only=False)
    post.queue(notification(1))
    post.deliver()
    server.rule = lambda phase, _: answer if phase == "RCPT" else None
    post.clock.on(minutes=1)
    delivery = post.deliver()
    if answer.startswith("450"):
        assert (delivery.deferred, delivery.in_doubt) == (1, 0)
        post.clock.on(days=3)
        delivery = post.deliver()
    assert delivery.recipients == [UnsentNotification(KIND, "E1", "in_doubt")]
    assert post.states() == {"E1/1": "in_doubt"}


def test_message_that_may_have_arrived_is_not_repeated_if_the_setting_in_doubt_is_report(
    post: Post, server: Smtp
) -> None:
    post.rules = NotificationRules(in_doubt=InDoubt(mail="report"))
    server.rule = reply_for("DATA", "e1", DROP)
    post.queue(notification(1), notification(1, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.in_doubt) == (1, 1)
    server.rule = lambda _phase, _address: None
    post.clock.on(days=1)
    assert post.deliver().sent == 0
    assert set(server.copies().values()) == {1}
