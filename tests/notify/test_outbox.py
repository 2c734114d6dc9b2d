"""The outbox: once per kind and key, whatever is repeated; what cannot be sent is told at once."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from include.messages import _
from include.notify import outbox
from include.notify.notice import Notice
from include.notify.outbox import Queued
from include.policy.rules import NoticeRules
from include.services.errors import UsageError
from tests.notify.rig import KIND, RUN, THURSDAY, Post, notice

WEEKLY = "training.department"
OPTIONAL = NoticeRules(may_opt_out=(WEEKLY,))


def test_the_same_notice_again_is_the_one_that_is_there(post: Post) -> None:
    """Whatever it says now, and within one call too."""
    first = notice(1)
    assert post.queue(first, notice(2), replace(first, name="Other")) == Queued(new=2)
    assert post.queue(replace(first, address="other@courier.example")) == Queued()
    assert post.states() == {"E1/1": "pending", "E1/2": "pending"}
    assert post.rows("SELECT name FROM notice WHERE key = 'E1/1'") == [("Name of E1",)]
    assert post.queue(replace(first, kind="partners.review")) == Queued(new=1)


def test_nothing_queued_is_nothing_done(post: Post) -> None:
    """No temporary table's emptiness is anybody's business."""
    assert post.queue() == Queued()
    assert post.untold([]) == set()


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("", "no_address"),
        ("  ", "no_address"),
        ("nobody", "malformed"),
        ("a@b", "malformed"),
        ("a b@courier.example", "malformed"),
        ("a@courier.example\r\nBcc: b@courier.example", "malformed"),
        ("a@courier.example, b@courier.example", "malformed"),
        ("<a@courier.example>", "malformed"),
        (".a@courier.example", "malformed"),
        ("a..b@courier.example", "malformed"),
        ("a@-courier.example", "malformed"),
        ("a@courier..example", "malformed"),
        ("a@[127.0.0.1]", "malformed"),
        ('"a b"@courier.example', "malformed"),
        ("a\x00@courier.example", "malformed"),
        (f"{'a' * 65}@courier.example", "malformed"),
        (f"a@{'b' * 64}.example", "malformed"),
        (f"a@{'b.' * 130}example", "malformed"),
        ("a@example.com", "domain"),
        ("a@evilcourier.example", "domain"),
        ("a@mail.courier.example", ""),
        ("A+b@COURIER.example", ""),
    ],
)
def test_an_address_that_cannot_be_used_is_told_at_once(
    post: Post, address: str, cause: str
) -> None:
    """The notice is there and says why; nothing is ever sent to it."""
    rules = NoticeRules(domains=("courier.example",))
    queued = post.queue(notice(1, address=address), rules=rules)
    assert queued == Queued(new=1, undeliverable=bool(cause))
    assert post.states() == {"E1/1": "undeliverable" if cause else "pending"}
    assert post.causes() == {"E1/1": cause}


def test_one_that_could_not_be_sent_is_tried_with_another_address(post: Post) -> None:
    """With the same it stays; once it is pending, nothing changes it any more."""
    bad = notice(1, address="nobody")
    post.queue(bad)
    assert post.untold(["E1/1", "E1/2"]) == {"E1/1", "E1/2"}
    assert post.queue(bad) == Queued()
    assert post.queue(replace(bad, address="other")) == Queued(again=1, undeliverable=1)
    assert post.queue(replace(bad, address="e1@courier.example")) == Queued(again=1)
    assert post.states() == {"E1/1": "pending"}
    assert post.untold(["E1/1"]) == set()
    assert post.queue(bad) == Queued()


def test_one_that_was_given_up_is_tried_again_when_it_is_still_wanted(post: Post) -> None:
    """Nothing was wrong with its address: a server was down for too long."""
    post.queue(notice(1))
    post.rows("UPDATE notice SET state = 'undeliverable', cause = 'gave_up' RETURNING 1")
    assert post.untold(["E1/1"]) == {"E1/1"}
    assert post.queue(notice(1)) == Queued(again=1)
    assert post.states() == {"E1/1": "pending"}


def test_withdrawing_takes_back_what_was_not_sent(post: Post) -> None:
    """Of the named kind and keys only."""
    post.queue(notice(1), notice(2), notice(1, kind="partners.review"))
    with post.state.begin() as conn:
        assert outbox.pending(conn, KIND) == ["E1/1", "E1/2"]
        keys = ["E1/1", "E1/9"]
        assert outbox.withdraw(conn, KIND, keys, "left the company", THURSDAY) == 1
        assert outbox.withdraw(conn, KIND, keys, "left the company", THURSDAY) == 0
        assert outbox.withdraw(conn, KIND, [], "nothing", THURSDAY) == 0
        assert outbox.pending(conn, KIND) == ["E1/2"]
    assert post.rows("SELECT state, cause FROM notice WHERE id = 1") == [
        ("withdrawn", "left the company")
    ]


def test_a_great_many_are_withdrawn_at_once(post: Post) -> None:
    """More than a statement has room for one by one."""
    post.queue(*(notice(number) for number in range(500)))
    with post.state.begin() as conn:
        keys = [f"E1/{number}" for number in range(70_000)]
        assert outbox.withdraw(conn, KIND, keys, "left", THURSDAY) == 500
        assert outbox.pending(conn, KIND) == []


def test_what_was_taken_back_and_is_wanted_again_is_told(post: Post) -> None:
    """A completion was entered by mistake, somebody came back: nobody is forgotten."""
    post.queue(notice(1), notice(2))
    with post.state.begin() as conn:
        outbox.withdraw(conn, KIND, ["E1/1"], "not_wanted", THURSDAY)
    assert post.untold(["E1/1", "E1/2"]) == {"E1/1"}
    assert post.queue(notice(1), notice(2)) == Queued(again=1)
    assert set(post.states().values()) == {"pending"}


def test_what_a_recipient_may_refuse_is_withdrawn(post: Post) -> None:
    """What waits, and what is queued afterwards; nobody else's, and nothing that is a duty."""
    mine, other = notice(1, kind=WEEKLY), notice(1, "E2", kind=WEEKLY)
    post.queue(mine, other, notice(2))
    with post.state.begin() as conn:
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by="hr", at=THURSDAY)
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by="hr", at=THURSDAY)
    post.queue(notice(3, kind=WEEKLY), rules=OPTIONAL)
    assert post.states() == {
        "E1/1": "withdrawn",
        "E2/1": "pending",
        "E1/2": "pending",
        "E1/3": "withdrawn",
    }
    with post.state.begin() as conn:
        outbox.opt_in(conn, "E1", WEEKLY)
    post.queue(notice(4, kind=WEEKLY), rules=OPTIONAL)
    assert post.states()["E1/4"] == "pending"


def test_duties_cannot_be_refused(post: Post) -> None:
    """With the kinds that can."""
    with post.state.begin() as conn, pytest.raises(UsageError, match="duty") as caught:
        outbox.opt_out(conn, "E1", KIND, rules=OPTIONAL, by="hr", at=THURSDAY)
    assert WEEKLY in caught.value.action
    with post.state.begin() as conn, pytest.raises(UsageError, match="Nobody"):
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by=" ", at=THURSDAY)


def test_a_refusal_ends_where_the_policy_makes_it_a_duty(post: Post) -> None:
    """notices.yaml of today counts, not that of the day on which it was refused."""
    with post.state.begin() as conn:
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by="hr", at=THURSDAY)
    post.queue(notice(1, kind=WEEKLY), rules=NoticeRules())
    assert post.states() == {"E1/1": "pending"}


def test_a_person_may_try_again_by_number(post: Post) -> None:
    """What could not be sent or is in doubt; nothing else."""
    post.queue(notice(1, address="nobody"), notice(2))
    with post.state.begin() as conn:
        assert outbox.retry(conn, 1) == KIND
        assert outbox.pending(conn, KIND) == ["E1/1", "E1/2"]
        for number, why in ((2, "is pending"), (77, "no notice"), (2**70, "no notice")):
            with pytest.raises(UsageError, match=why):
                outbox.retry(conn, number)


def test_hostile_words_are_stored_as_what_can_be_seen(post: Post) -> None:
    """Zeros and half characters, which the database would refuse, cost nobody else a notice."""
    hostile = "a\x00b\ud800c\u202e"
    odd = Notice(
        kind=KIND,
        key=hostile,
        recipient=hostile,
        heading=_("{name}", name=hostile),
        line=_("Course {number}", number=hostile),
        name=hostile,
        address="e1@courier.example",
    )
    assert post.queue(odd, notice(2)) == Queued(new=2)
    (key,) = post.rows("SELECT key, line->'values'->>'number' FROM notice WHERE id = 1")
    assert set(key) == {"a\\u0000b\\ud800c\\u202e"}


def test_many_are_queued_and_asked_about_in_seconds(post: Post) -> None:
    """20,000 notices, 100,000 keys; on a machine that is busy with other tests too."""
    begun = time.monotonic()
    many = (notice(number % 2, f"E{number // 2}") for number in range(20_000))
    assert post.queue(*many).new == 20_000
    queued = time.monotonic()
    keys = [f"E{number // 2}/{number % 2}" for number in range(100_000)]
    assert len(post.untold(keys)) == 80_000
    assert queued - begun < 10
    assert time.monotonic() - queued < 3


def test_two_calls_share_a_transaction(post: Post) -> None:
    """Their temporary tables do not meet."""
    with post.state.begin() as conn:
        assert outbox.queue(conn, [notice(1)], RUN, THURSDAY) == Queued(new=1)
        assert outbox.untold(conn, KIND, ["E1/1", "E1/2"]) == {"E1/2"}
        assert outbox.queue(conn, [notice(2)], RUN, THURSDAY + timedelta(1)) == Queued(new=1)
        assert outbox.untold(conn, KIND, ["E1/1", "E1/2"]) == set()
