"""A drill's office delivers everything, and nothing leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from include.drill_sandbox.workplace import SandboxChannel, sandbox_office
from include.notify.delivery import deliver
from include.policy.rules import NoticeRules
from tests.notify.rig import KIND, THURSDAY, Post, letter, notice
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp


def test_everything_is_sent_at_any_hour_and_nobody_gets_it(
    post: Post, server: Smtp, robots: RobotServer
) -> None:
    """Digests, urgent ones, robots, and letters to any domain whose address nobody looks up."""

    def look_up(_keys: Sequence[str]) -> Mapping[str, str]:
        raise AssertionError("a drill reads no customer's address")

    post.robots, post.addresses = robots, {KIND: look_up}
    post.rules = NoticeRules(domains=("courier.example",))
    post.clock.moment = THURSDAY + timedelta(days=2, hours=15)  # Saturday, 01:00 in Shanghai
    text = post.keep(letter())
    post.queue(
        notice(1),
        notice(2, "E2", urgent=True),
        notice(3, "role:x", channel="robot", address="chat", urgent=True),
        notice(4, "subject:shop/4", name="", address="", text=text, looked_up=True),
    )
    office = sandbox_office(post.office())
    done = deliver(office)
    assert set(post.states().values()) == {"sent"}
    assert (done.sent, done.down, done.unsure) == (4, {}, {})
    taken = [one.taken for one in office.channels.values() if isinstance(one, SandboxChannel)]
    assert taken == [3, 1]
    assert (server.sessions, server.read) == (0, [])
    assert robots.texts == []


def test_what_nobody_wants_any_more_is_not_played_through(post: Post) -> None:
    """A drill asks the workflow of a kind as every delivery does."""
    post.queue(notice(1), notice(2, "E2"))
    office = replace(post.office(), confirm={KIND: lambda keys: {*keys} - {"E2/2"}})
    assert deliver(sandbox_office(office)).sent == 1
    assert post.states() == {"E1/1": "sent", "E2/2": "withdrawn"}
