"""In a drill every message counts as sent, and no message is sent to a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from include.drill_sandbox.sandboxed_services import SandboxChannel, sandboxed_delivery
from include.notify.delivery import deliver
from include.policy.rules import NotificationRules
from tests.notify.notify_fixtures import KIND, THURSDAY, Post, notice_text, notification
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp


def test_delivery_in_a_drill_marks_messages_as_sent_at_night_without_contacting_a_server(
    post: Post, server: Smtp, robots: RobotServer
) -> None:

    def look_up(_keys: Sequence[str]) -> Mapping[str, str]:
        raise AssertionError("a drill reads no customer's address")

    post.robots, post.addresses = robots, {KIND: look_up}
    post.rules = NotificationRules(domains=("courier.example",))
    post.clock.moment = THURSDAY + timedelta(days=2, hours=15)  # Saturday, 01:00 in Shanghai
    text = post.keep(notice_text())
    post.queue(
        notification(1),
        notification(2, "E2", urgent=True),
        notification(3, "role:x", channel="robot", address="chat", urgent=True),
        notification(4, "subject:shop/4", name="", address="", text=text, looked_up=True),
    )
    config = sandboxed_delivery(post.office())
    delivery = deliver(config)
    assert set(post.states().values()) == {"sent"}
    assert (delivery.sent, delivery.unusable_channels, delivery.unavailable_kinds) == (4, {}, {})
    taken = [
        channel.message_count
        for channel in config.channels.values()
        if isinstance(channel, SandboxChannel)
    ]
    assert taken == [3, 1]
    assert (server.sessions, server.read) == (0, [])
    assert robots.texts == []


def test_delivery_in_a_drill_withdraws_notifications_that_are_no_longer_due(post: Post) -> None:
    post.queue(notification(1), notification(2, "E2"))
    config = replace(post.office(), still_due={KIND: lambda keys: {*keys} - {"E2/2"}})
    assert deliver(sandboxed_delivery(config)).sent == 1
    assert post.states() == {"E1/1": "sent", "E2/2": "withdrawn"}
