"""How much one message holds, and what becomes of the rest."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from include.notify.claims import MOST_NOTICES, Unsent
from include.services.fate import Fate, Reply
from tests.notify.rig import KIND, Post, notice
from tests.support.smtp import Smtp

NEW_YEAR = date(2027, 1, 1)


def test_a_digest_holds_what_is_due_first_and_says_that_more_follows(
    post: Post, server: Smtp
) -> None:
    """The rest goes on the next workdays, and is nothing that a try again would help."""
    many = MOST_NOTICES + 30
    days = {number: NEW_YEAR + timedelta(days=-number) for number in range(many - 1)}
    post.queue(*(notice(number, due_on=days.get(number)) for number in range(many)))
    post.queue(notice(1, "E2"))
    done = post.deliver()
    assert (done.sent, done.notices, done.deferred, done.waiting) == (2, MOST_NOTICES + 1, 0, 30)
    states = post.states()
    late = [f"E1/{number}" for number in (*range(29), many - 1)]
    assert {key for key, state in states.items() if state == "pending"} == set(late)
    texts = {one.recipient: one.text("plain") for one in server.taken}
    assert "And 30 more: they follow." in texts["e1@courier.example"]
    assert "follow" not in texts["e2@courier.example"]
    assert "And 30 more: they follow." in server.taken[0].text("html") + server.taken[1].text(
        "html"
    )
    post.clock.on(days=1)
    assert post.deliver().notices == 30
    assert "follow" not in server.taken[-1].text("plain")


def test_a_digest_that_was_put_off_grows_no_further(post: Post, server: Smtp) -> None:
    """What was queued meanwhile joins it while there is room."""
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(*(notice(number) for number in range(MOST_NOTICES - 10)))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.queue(*(notice(MOST_NOTICES + number) for number in range(30)))
    post.clock.on(minutes=1)
    done = post.deliver()
    assert (done.sent, done.notices, done.waiting) == (1, MOST_NOTICES, 20)


def at_most(server: Smtp, lines: int) -> None:
    """Let the server take no mail with more lines than that, in two languages."""

    def rule(phase: str, _address: str) -> str | None:
        said = server.read[-1].text("plain").count("Course n") // 2 if phase == "DATA" else 0
        return "552 5.3.4 message too big for e1@courier.example" if said > lines else None

    server.rule = rule


@pytest.mark.parametrize("urgent", [False, True])
def test_a_mail_that_is_too_large_goes_in_a_smaller_one(
    post: Post, server: Smtp, urgent: bool
) -> None:
    """At once, with what is due first; the rest follows, and nothing is lost."""
    at_most(server, 30)
    post.queue(*(notice(number, urgent=urgent) for number in range(100)), notice(1, "E2"))
    done = post.deliver()
    assert (done.sent, done.notices, done.undeliverable) == (2, 26, 0)
    texts = {one.recipient: one.text("plain") for one in server.taken}
    assert "And 75 more: they follow." in texts["e1@courier.example"]
    for _day in range(3):
        post.clock.on(days=1 if post.clock.moment.weekday() < 4 else 3)
        post.deliver()
    assert set(post.states().values()) == {"sent"}


def test_one_notice_that_is_too_large_is_reported(post: Post, server: Smtp) -> None:
    """With its cause; the others behind it are not."""
    at_most(server, 0)
    post.queue(notice(1), notice(2))
    done = post.deliver()
    assert done.recipients == [Unsent(KIND, "E1", "too_large 552 5.3.4")]
    assert post.states() == {"E1/1": "undeliverable", "E1/2": "pending"}
    assert (done.deferred, done.waiting) == (0, 1)


def test_a_full_mailbox_is_no_matter_of_size(post: Post, server: Smtp) -> None:
    """It is asked again; a smaller mail would fit as little."""
    server.rule = lambda phase, _: "552 5.2.2 full" if phase == "DATA" else None
    post.queue(notice(1), notice(2))
    done = post.deliver()
    assert (done.deferred, done.undeliverable, len(server.read)) == (2, 0, 1)


def test_what_says_that_a_message_is_too_large() -> None:
    """552 alone, or the second code beside any first one."""
    large = ["552", "552 5.3.4", "554 5.3.4", "552 5.2.3"]
    assert all(Reply(Fate.REFUSED, code).too_large for code in large)
    other = ["552 5.2.2", "550 5.1.1", "550", "", "no_robot"]
    assert not any(Reply(Fate.REFUSED, code).too_large for code in other)
