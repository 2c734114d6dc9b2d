"""Delivery: one digest per recipient and day, urgent messages at once, and robots of chats."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from include.messages import verbatim
from include.notify import outbox
from include.notify.claims import UnsentNotification
from include.notify.notification import to_role
from include.notify.outbox import QueueCounts
from include.policy.rules import NotificationRules, Role
from include.services.errors import ServiceError, UsageError
from tests.notify.notify_fixtures import HEADING, KIND, THURSDAY, Post, notification
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp

WEEKLY = "training.department"
TITLES = {"en": "On call", "zh-CN": "值班"}


def test_recipient_gets_one_digest_per_day(post: Post, server: Smtp) -> None:
    post.queue(notification(1), notification(2, kind="partners.review"), notification(1, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.waiting, delivery.deferred) == (
        2,
        3,
        0,
        0,
    )
    recipients = post.rows("SELECT kind, recipient FROM notification WHERE state = 'sent'")
    assert sorted(recipients) == sorted([(KIND, "E1"), (KIND, "E2"), ("partners.review", "E1")])
    post.queue(notification(3), notification(1, "E3"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.waiting) == (1, 1, 1)
    post.clock.on(days=1)
    assert (post.deliver().sent, post.deliver().sent) == (1, 0)
    assert sorted(mail.recipient for mail in server.taken) == [
        f"{name}@courier.example" for name in ("e1", "e1", "e2", "e3")
    ]
    assert set(post.states().values()) == {"sent"}
    assert {state for _who, state, _day in post.messages()} == {"sent"}


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (datetime(2026, 11, 26, 13, 30, tzinfo=UTC), "21:30 in Shanghai"),
        (datetime(2026, 11, 25, 23, 0, tzinfo=UTC), "07:00 in Shanghai"),
        (datetime(2026, 11, 28, 2, tzinfo=UTC), "a Saturday"),
        (datetime(2026, 10, 1, 2, tzinfo=UTC), "the National Day"),
    ],
)
def test_daily_digest_is_sent_only_on_workdays_outside_of_quiet_hours(
    post: Post, server: Smtp, moment: datetime, why: str
) -> None:
    post.clock.moment = moment
    post.queue(notification(1), notification(2, urgent=True))
    delivery = post.deliver()
    assert (delivery.sent, delivery.waiting, delivery.deferred, delivery.undeliverable) == (
        1,
        1,
        0,
        0,
    ), why
    assert post.states() == {"E1/1": "pending", "E1/2": "sent"}
    assert len(server.taken) == 1
    assert "紧急" in str(server.taken[0].mail["Subject"])
    post.clock.moment = datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert post.deliver().sent == 1


def test_digest_is_sent_on_a_saturday_that_is_a_make_up_workday(post: Post) -> None:
    post.clock.moment = datetime(2026, 10, 10, 2, tzinfo=UTC)  # the Saturday after the holiday
    post.queue(notification(1), notification(1, "E2"))
    assert post.deliver().sent == 2
    post.clock.moment = datetime(2026, 10, 11, 2, tzinfo=UTC)
    post.queue(notification(2))
    assert post.deliver().waiting == 1
    post.rules = NotificationRules(workdays_only=False)
    assert post.deliver().sent == 1


def test_urgent_notifications_are_combined_in_one_message_separate_from_the_digest(
    post: Post, server: Smtp
) -> None:
    post.queue(notification(1, urgent=True), notification(2, urgent=True), notification(3))
    assert post.deliver().sent == 2
    post.queue(notification(4, urgent=True))
    assert post.deliver().sent == 1
    assert len(server.taken) == 3


def test_delivery_does_not_connect_to_the_mail_server_if_no_message_is_due(
    post: Post, server: Smtp
) -> None:
    post.deliver()
    assert server.sessions == 0
    post.queue(notification(1))
    assert post.deliver().sent == 1
    post.queue(notification(2))
    server.stop()
    delivery = post.deliver()
    assert (delivery.waiting, delivery.unusable_channels) == (1, {})
    post.clock.moment = datetime(2026, 11, 27, 14, tzinfo=UTC)  # quiet hours
    assert post.deliver().unusable_channels == {}


def test_notification_is_withdrawn_if_its_workflow_does_not_confirm_that_it_is_still_due(
    post: Post, server: Smtp
) -> None:
    confirmed_keys: list[Sequence[str]] = []

    def confirm(keys: Sequence[str]) -> set[str]:
        confirmed_keys.append(keys)
        return {key for key in keys if key.endswith("/1")}

    post.confirm = {KIND: confirm}
    post.queue(notification(1), notification(2), notification(2, "E2"))
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.withdrawn) == (1, 1, 2)
    assert confirmed_keys == [["E1/1", "E1/2", "E2/2"]]
    assert post.causes()["E1/2"] == "not_wanted"
    assert "n2" not in server.taken[0].text("plain")
    post.queue(notification(1, "E2"))
    assert post.deliver().sent == 1


def test_notifications_stay_pending_if_workflow_cannot_determine_whether_they_are_still_due(
    post: Post, server: Smtp
) -> None:

    def confirm(_keys: Sequence[str]) -> set[str]:
        raise ServiceError("The database of courses cannot be reached.")

    post.confirm = {KIND: confirm}
    post.queue(notification(1), notification(2, kind="partners.review"), notification(1, "E2"))
    post.queue(notification(9, "E9", urgent=True))
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications, delivery.unavailable_kinds) == (
        1,
        1,
        {KIND: "ServiceError"},
    )
    assert delivery.deferred == 2  # the notification to E1 waits for tomorrow's digest
    assert post.states() == {
        "E1/1": "pending",
        "E1/2": "sent",
        "E2/1": "pending",
        "E9/9": "pending",
    }
    post.confirm = {}
    assert post.deliver().sent == 2


def test_notification_is_withdrawn_at_sending_if_recipient_opted_out(
    post: Post, server: Smtp
) -> None:
    post.rules = NotificationRules(may_opt_out=(WEEKLY,))
    post.queue(notification(1, kind=WEEKLY), notification(2))
    with post.state.begin() as conn:
        outbox.opt_out(conn, "E1", WEEKLY, rules=post.rules, by="hr", at=THURSDAY)
    post.queue(notification(3, kind=WEEKLY))
    assert post.deliver().withdrawn == 1
    assert post.states() == {"E1/1": "withdrawn", "E1/2": "sent", "E1/3": "withdrawn"}


def test_address_outside_allowed_domains_is_undeliverable(post: Post, server: Smtp) -> None:
    post.queue(notification(1, address="e1@example.com"), notification(1, "E2"))
    post.rules = NotificationRules(domains=("courier.example",))
    delivery = post.deliver()
    assert (delivery.sent, delivery.undeliverable) == (1, 1)
    assert delivery.recipients == [UnsentNotification(KIND, "E1", "domain")]


def test_chat_message_is_not_sent_again_if_the_robot_drops_the_connection(
    post: Post, robots: RobotServer
) -> None:
    post.robots = robots
    chat = {"channel": "robot", "address": "chat"}
    post.queue(
        notification(1, "role:compliance", **chat),
        notification(2, "role:compliance", **chat),
        notification(1, "role:none", channel="robot", address="nowhere"),
    )
    delivery = post.deliver()
    assert (delivery.sent, delivery.notifications) == (1, 2)
    assert delivery.recipients == [UnsentNotification(KIND, "role:none", "no_robot")]
    assert len(robots.texts) == 1
    post.queue(notification(3, "role:compliance", urgent=True, **chat))
    robots.answer = "drop"
    delivery = post.deliver()
    assert delivery.recipients == [UnsentNotification(KIND, "role:compliance", "in_doubt")]
    robots.answer = None
    post.clock.on(days=1)
    assert post.deliver().sent == 0
    assert len(robots.texts) == 2


def test_chat_message_is_retried_after_the_robot_was_busy(post: Post, robots: RobotServer) -> None:
    post.robots = robots
    post.queue(notification(1, channel="robot", address="chat"))
    robots.answer = (200, '{"errcode": 130101}')
    assert post.deliver().deferred == 1
    robots.answer = None
    post.clock.on(minutes=1)
    assert post.deliver().sent == 1


def test_delivery_raises_usage_error_and_claims_no_message_if_sender_address_is_missing(
    post: Post,
) -> None:
    post.extra = {"from_email": ""}
    assert post.deliver().sent == 0
    post.queue(notification(1))
    with pytest.raises(UsageError, match="from_email"):
        post.deliver()
    assert post.messages() == []


def test_chat_messages_are_sent_before_mails_even_if_mail_delivery_then_fails(
    post: Post, server: Smtp, robots: RobotServer
) -> None:
    post.robots = robots
    post.clock.moment = datetime(2026, 10, 3, 19, tzinfo=UTC)  # a holiday, 03:00 in Shanghai
    alert = {"kind": "incident.alert", "urgent": True}
    role = Role(id="on_call", title=TITLES, mail=("duty@courier.example",), robot="chat")
    words = {"heading": HEADING, "line": verbatim("One hour is left.")}
    post.queue(*to_role(role, key="INC-1/report/PT1H", **alert, **words))
    phases = []
    server.rule = lambda phase, _: phases.append((phase, len(robots.texts)))
    post.extra = {"from_email": ""}
    with pytest.raises(UsageError, match="from_email"):
        post.deliver()
    assert len(robots.texts) == 1
    post.extra = {}
    post.queue(*to_role(role, key="INC-1/report/PT15M", **alert, **words))
    assert post.deliver().sent == 2
    assert {count for _phase, count in phases} == {2}
    assert post.queue(*to_role(role, key="INC-1/report/PT15M", **alert, **words)) == QueueCounts()
    assert len(server.taken) == 1
