"""The size of a message: its limit, and the delivery of notifications beyond the limit."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from include.notify.claims import MAX_NOTIFICATIONS, UnsentNotification
from include.services.delivery_status import DeliveryStatus, Reply
from tests.notify.notify_fixtures import KIND, Post, notification
from tests.support.smtp import Smtp

NEW_YEAR = date(2027, 1, 1)


def test_digest_has_limited_number_of_notifications_and_contains_number_of_the_remaining_ones(
    post: Post, server: Smtp
) -> None:
    many = MAX_NOTIFICATIONS + 30
    days = {number: NEW_YEAR + timedelta(days=-number) for number in range(many - 1)}
    post.queue(*(notification(number, due_on=days.get(number)) for number in range(many)))
    post.queue(notification(1, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.deferred, delivery.waiting) == (
        2,
        MAX_NOTIFICATIONS + 1,
        0,
        30,
    )
    states = post.states()
    late = [f"E1/{number}" for number in (*range(29), many - 1)]
    assert {key for key, state in states.items() if state == "pending"} == set(late)
    texts = {mail.recipient: mail.text("plain") for mail in server.taken}
    assert "30 more items follow in another message." in texts["e1@courier.example"]
    assert "follow" not in texts["e2@courier.example"]
    assert "30 more items follow in another message." in server.taken[0].text(
        "html"
    ) + server.taken[1].text("html")
    post.clock.on(days=1)
    assert post.deliver().notifications == 30
    assert "follow" not in server.taken[-1].text("plain")


def test_deferred_digest_stays_within_size_limit_if_notifications_are_added(
    post: Post, server: Smtp
) -> None:
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(*(notification(number) for number in range(MAX_NOTIFICATIONS - 10)))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.queue(*(notification(MAX_NOTIFICATIONS + number) for number in range(30)))
    post.clock.on(minutes=1)
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.waiting) == (1, MAX_NOTIFICATIONS, 20)


def at_most(server: Smtp, lines: int) -> None:
    """Let the server refuse mails with more than the given number of notifications."""

    def rule(phase: str, _address: str) -> str | None:
        lines_found = server.read[-1].text("plain").count("Course n") // 2 if phase == "DATA" else 0
        return "552 5.3.4 message too big for e1@courier.example" if lines_found > lines else None

    server.rule = rule


@pytest.mark.parametrize("urgent", [False, True])
def test_mail_is_split_into_smaller_mails_if_server_refuses_it_as_too_large(
    post: Post, server: Smtp, urgent: bool
) -> None:
    at_most(server, 30)
    post.queue(
        *(notification(number, urgent=urgent) for number in range(100)), notification(1, "E2")
    )
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.undeliverable) == (2, 26, 0)
    texts = {mail.recipient: mail.text("plain") for mail in server.taken}
    assert "75 more items follow in another message." in texts["e1@courier.example"]
    for _day in range(3):
        post.clock.on(days=1 if post.clock.moment.weekday() < 4 else 3)
        post.deliver()
    assert set(post.states().values()) == {"sent"}


def test_notification_is_undeliverable_if_server_refuses_mail_with_it_alone_as_too_large(
    post: Post, server: Smtp
) -> None:
    at_most(server, 0)
    post.queue(notification(1), notification(2))
    delivery = post.deliver()
    assert delivery.recipients == [UnsentNotification(KIND, "E1", "too_large 552 5.3.4")]
    assert post.states() == {"E1/1": "undeliverable", "E1/2": "pending"}
    assert (delivery.deferred, delivery.waiting) == (0, 1)


def test_mail_to_full_mailbox_is_deferred_and_not_split(post: Post, server: Smtp) -> None:
    server.rule = lambda phase, _: "552 5.2.2 full" if phase == "DATA" else None
    post.queue(notification(1), notification(2))
    delivery = post.deliver()
    assert (delivery.deferred, delivery.undeliverable, len(server.read)) == (2, 0, 1)


def test_reply_codes_for_too_large_messages_are_recognized() -> None:
    large = ["552", "552 5.3.4", "554 5.3.4", "552 5.2.3"]
    assert all(Reply(DeliveryStatus.REFUSED, code).too_large for code in large)
    other = ["552 5.2.2", "550 5.1.1", "550", "", "no_robot"]
    assert not any(Reply(DeliveryStatus.REFUSED, code).too_large for code in other)
