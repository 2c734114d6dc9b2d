"""Delivery: one digest per recipient and day, urgent ones at once; each server's whims."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from include.messages import verbatim
from include.notify import outbox
from include.notify.claims import Unsent
from include.notify.notice import to_role
from include.notify.outbox import Queued
from include.policy.rules import NoticeRules, Role
from include.services.errors import ServiceError, UsageError
from tests.notify.rig import HEADING, KIND, THURSDAY, Post, notice
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp

WEEKLY = "training.department"
TITLES = {"en": "On call", "zh-CN": "值班"}


def test_everything_for_a_recipient_goes_into_one_digest_a_day(post: Post, server: Smtp) -> None:
    """Whoever queued it; what comes later that day waits for the next workday."""
    post.queue(notice(1), notice(2, kind="partners.review"), notice(1, "E2"))
    done = post.deliver()
    assert (done.sent, done.notices, done.waiting, done.deferred) == (2, 3, 0, 0)
    told = post.rows("SELECT kind, recipient FROM notice WHERE state = 'sent'")
    assert sorted(told) == sorted([(KIND, "E1"), (KIND, "E2"), ("partners.review", "E1")])
    post.queue(notice(3), notice(1, "E3"))
    done = post.deliver()
    assert (done.sent, done.notices, done.waiting) == (1, 1, 1)
    post.clock.on(days=1)
    assert (post.deliver().sent, post.deliver().sent) == (1, 0)
    assert sorted(one.recipient for one in server.taken) == [
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
def test_nothing_that_can_wait_is_sent_at_another_time(
    post: Post, server: Smtp, moment: datetime, why: str
) -> None:
    """It waits and nothing fails; what is urgent goes at once."""
    post.clock.moment = moment
    post.queue(notice(1), notice(2, urgent=True))
    done = post.deliver()
    assert (done.sent, done.waiting, done.deferred, done.undeliverable) == (1, 1, 0, 0), why
    assert post.states() == {"E1/1": "pending", "E1/2": "sent"}
    assert len(server.taken) == 1
    assert "紧急" in str(server.taken[0].mail["Subject"])
    post.clock.moment = datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert post.deliver().sent == 1


def test_a_weekend_that_is_worked_is_a_workday(post: Post) -> None:
    """And the policy may say that every day is one."""
    post.clock.moment = datetime(2026, 10, 10, 2, tzinfo=UTC)  # the Saturday after the holiday
    post.queue(notice(1), notice(1, "E2"))
    assert post.deliver().sent == 2
    post.clock.moment = datetime(2026, 10, 11, 2, tzinfo=UTC)
    post.queue(notice(2))
    assert post.deliver().waiting == 1
    post.rules = NoticeRules(workdays_only=False)
    assert post.deliver().sent == 1


def test_urgent_notices_of_a_delivery_share_a_message_beside_the_digest(
    post: Post, server: Smtp
) -> None:
    """Each delivery sends its own: nobody waits for tomorrow."""
    post.queue(notice(1, urgent=True), notice(2, urgent=True), notice(3))
    assert post.deliver().sent == 2
    post.queue(notice(4, urgent=True))
    assert post.deliver().sent == 1
    assert len(server.taken) == 3


def test_the_server_is_not_asked_where_nothing_is_due(post: Post, server: Smtp) -> None:
    """A second run of the day connects to nothing."""
    post.deliver()
    assert server.sessions == 0
    post.queue(notice(1))
    assert post.deliver().sent == 1
    post.queue(notice(2))
    server.stop()
    done = post.deliver()
    assert (done.waiting, done.down) == (1, {})
    post.clock.moment = datetime(2026, 11, 27, 14, tzinfo=UTC)  # quiet hours
    assert post.deliver().down == {}


def test_what_is_done_is_not_told_any_more(post: Post, server: Smtp) -> None:
    """It is asked just before it is sent; an empty message is none, and leaves the day free."""
    asked: list[Sequence[str]] = []

    def confirm(keys: Sequence[str]) -> set[str]:
        asked.append(keys)
        return {key for key in keys if key.endswith("/1")}

    post.confirm = {KIND: confirm}
    post.queue(notice(1), notice(2), notice(2, "E2"))
    done = post.deliver()
    assert (done.sent, done.notices, done.withdrawn) == (1, 1, 2)
    assert asked == [["E1/1", "E1/2", "E2/2"]]
    assert post.causes()["E1/2"] == "not_wanted"
    assert "n2" not in server.taken[0].text("plain")
    post.queue(notice(1, "E2"))
    assert post.deliver().sent == 1


def test_a_kind_that_nobody_can_confirm_waits_alone(post: Post, server: Smtp) -> None:
    """The others go; it is named, and goes once somebody can say."""

    def confirm(_keys: Sequence[str]) -> set[str]:
        raise ServiceError("The database of courses cannot be reached.")

    post.confirm = {KIND: confirm}
    post.queue(notice(1), notice(2, kind="partners.review"), notice(1, "E2"))
    post.queue(notice(9, "E9", urgent=True))
    done = post.deliver()
    assert (done.sent, done.notices, done.unsure) == (1, 1, {KIND: "ServiceError"})
    assert done.deferred == 2  # E1's own waits for tomorrow's digest
    assert post.states() == {
        "E1/1": "pending",
        "E1/2": "sent",
        "E2/1": "pending",
        "E9/9": "pending",
    }
    post.confirm = {}
    assert post.deliver().sent == 2


def test_a_refusal_by_its_recipient_holds_when_it_is_sent(post: Post, server: Smtp) -> None:
    """Where it was queued without looking, too."""
    post.rules = NoticeRules(may_opt_out=(WEEKLY,))
    post.queue(notice(1, kind=WEEKLY), notice(2))
    with post.state.begin() as conn:
        outbox.opt_out(conn, "E1", WEEKLY, rules=post.rules, by="hr", at=THURSDAY)
    post.queue(notice(3, kind=WEEKLY))
    assert post.deliver().withdrawn == 1
    assert post.states() == {"E1/1": "withdrawn", "E1/2": "sent", "E1/3": "withdrawn"}


def test_addresses_outside_of_the_policys_domains_are_reported(post: Post, server: Smtp) -> None:
    """At the moment of sending, where notices.yaml said something else when it was queued."""
    post.queue(notice(1, address="e1@example.com"), notice(1, "E2"))
    post.rules = NoticeRules(domains=("courier.example",))
    done = post.deliver()
    assert (done.sent, done.undeliverable) == (1, 1)
    assert done.recipients == [Unsent(KIND, "E1", "domain")]


def test_robots_are_told_too_each_message_once(post: Post, robots: RobotServer) -> None:
    """One that nobody configured is reported; a doubt is, too, and never sent again."""
    post.robots = robots
    chat = {"channel": "robot", "address": "chat"}
    post.queue(
        notice(1, "role:compliance", **chat),
        notice(2, "role:compliance", **chat),
        notice(1, "role:none", channel="robot", address="nowhere"),
    )
    done = post.deliver()
    assert (done.sent, done.notices) == (1, 2)
    assert done.recipients == [Unsent(KIND, "role:none", "no_robot")]
    assert len(robots.texts) == 1
    post.queue(notice(3, "role:compliance", urgent=True, **chat))
    robots.answer = "drop"
    done = post.deliver()
    assert done.recipients == [Unsent(KIND, "role:compliance", "in_doubt")]
    robots.answer = None
    post.clock.on(days=1)
    assert post.deliver().sent == 0
    assert len(robots.texts) == 2


def test_a_robot_that_is_too_busy_is_asked_again(post: Post, robots: RobotServer) -> None:
    """Its limit of messages a minute is no refusal."""
    post.robots = robots
    post.queue(notice(1, channel="robot", address="chat"))
    robots.answer = (200, '{"errcode": 130101}')
    assert post.deliver().deferred == 1
    robots.answer = None
    post.clock.on(minutes=1)
    assert post.deliver().sent == 1


def test_without_a_mail_server_nothing_is_claimed(post: Post) -> None:
    """The error says what to configure; without anything to send there is none."""
    post.extra = {"from_email": ""}
    assert post.deliver().sent == 0
    post.queue(notice(1))
    with pytest.raises(UsageError, match="from_email"):
        post.deliver()
    assert post.messages() == []


def test_a_chat_is_woken_whatever_is_wrong_with_mail(
    post: Post, server: Smtp, robots: RobotServer
) -> None:
    """At night, on a day off, before any mail; a wrong connection is told afterwards."""
    post.robots = robots
    post.clock.moment = datetime(2026, 10, 3, 19, tzinfo=UTC)  # a holiday, 03:00 in Shanghai
    alert = {"kind": "incident.alert", "urgent": True}
    role = Role(id="on_call", title=TITLES, mail=("duty@courier.example",), robot="chat")
    words = {"heading": HEADING, "line": verbatim("One hour is left.")}
    post.queue(*to_role(role, key="INC-1/report/PT1H", **alert, **words))
    seen = []
    server.rule = lambda phase, _: seen.append((phase, len(robots.texts)))
    post.extra = {"from_email": ""}
    with pytest.raises(UsageError, match="from_email"):
        post.deliver()
    assert len(robots.texts) == 1
    post.extra = {}
    post.queue(*to_role(role, key="INC-1/report/PT15M", **alert, **words))
    assert post.deliver().sent == 2
    assert {count for _phase, count in seen} == {2}
    assert post.queue(*to_role(role, key="INC-1/report/PT15M", **alert, **words)) == Queued()
    assert len(server.taken) == 1
