"""The queue: one notification per kind and key. Unusable addresses are reported at once."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from include.messages import _
from include.notify import outbox
from include.notify.notification import Notification
from include.notify.outbox import QueueCounts
from include.policy.rules import NotificationRules
from include.services.errors import UsageError
from tests.notify.notify_fixtures import KIND, RUN, THURSDAY, Post, notification

WEEKLY = "training.department"
OPTIONAL = NotificationRules(may_opt_out=(WEEKLY,))


def test_notification_with_the_same_kind_and_key_is_queued_only_once(post: Post) -> None:
    first = notification(1)
    assert post.queue(first, notification(2), replace(first, name="Other")) == QueueCounts(new=2)
    assert post.queue(replace(first, address="other@courier.example")) == QueueCounts()
    assert post.states() == {"E1/1": "pending", "E1/2": "pending"}
    assert post.rows("SELECT name FROM notification WHERE key = 'E1/1'") == [("Name of E1",)]
    assert post.queue(replace(first, kind="partners.review")) == QueueCounts(new=1)


def test_queue_with_no_notifications_returns_zero_counts(post: Post) -> None:
    assert post.queue() == QueueCounts()
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
def test_notification_is_queued_as_undeliverable_if_its_address_is_missing_or_malformed(
    post: Post, address: str, cause: str
) -> None:
    rules = NotificationRules(domains=("courier.example",))
    queued = post.queue(notification(1, address=address), rules=rules)
    assert queued == QueueCounts(new=1, undeliverable=bool(cause))
    assert post.states() == {"E1/1": "undeliverable" if cause else "pending"}
    assert post.causes() == {"E1/1": cause}


def test_undeliverable_notification_becomes_pending_if_it_is_queued_with_another_address(
    post: Post,
) -> None:
    bad = notification(1, address="nobody")
    post.queue(bad)
    assert post.untold(["E1/1", "E1/2"]) == {"E1/1", "E1/2"}
    assert post.queue(bad) == QueueCounts()
    assert post.queue(replace(bad, address="other")) == QueueCounts(again=1, undeliverable=1)
    assert post.queue(replace(bad, address="e1@courier.example")) == QueueCounts(again=1)
    assert post.states() == {"E1/1": "pending"}
    assert post.untold(["E1/1"]) == set()
    assert post.queue(bad) == QueueCounts()


def test_undeliverable_notification_with_cause_gave_up_becomes_pending_if_queued_again(
    post: Post,
) -> None:
    post.queue(notification(1))
    post.rows("UPDATE notification SET state = 'undeliverable', cause = 'gave_up' RETURNING 1")
    assert post.untold(["E1/1"]) == {"E1/1"}
    assert post.queue(notification(1)) == QueueCounts(again=1)
    assert post.states() == {"E1/1": "pending"}


def test_withdraw_changes_only_pending_notifications_with_the_given_kind_and_keys(
    post: Post,
) -> None:
    post.queue(notification(1), notification(2), notification(1, kind="partners.review"))
    with post.state.begin() as conn:
        assert outbox.pending(conn, KIND) == ["E1/1", "E1/2"]
        keys = ["E1/1", "E1/9"]
        assert outbox.withdraw(conn, KIND, keys, "left the company", THURSDAY) == 1
        assert outbox.withdraw(conn, KIND, keys, "left the company", THURSDAY) == 0
        assert outbox.withdraw(conn, KIND, [], "nothing", THURSDAY) == 0
        assert outbox.pending(conn, KIND) == ["E1/2"]
    assert post.rows("SELECT state, cause FROM notification WHERE id = 1") == [
        ("withdrawn", "left the company")
    ]


def test_withdraw_accepts_70000_keys_in_one_call(post: Post) -> None:
    post.queue(*(notification(number) for number in range(500)))
    with post.state.begin() as conn:
        keys = [f"E1/{number}" for number in range(70_000)]
        assert outbox.withdraw(conn, KIND, keys, "left", THURSDAY) == 500
        assert outbox.pending(conn, KIND) == []


def test_withdrawn_notification_becomes_pending_if_it_is_queued_again(post: Post) -> None:
    post.queue(notification(1), notification(2))
    with post.state.begin() as conn:
        outbox.withdraw(conn, KIND, ["E1/1"], "not_wanted", THURSDAY)
    assert post.untold(["E1/1", "E1/2"]) == {"E1/1"}
    assert post.queue(notification(1), notification(2)) == QueueCounts(again=1)
    assert set(post.states().values()) == {"pending"}


def test_opt_out_withdraws_pending_notifications(post: Post) -> None:
    mine, other = notification(1, kind=WEEKLY), notification(1, "E2", kind=WEEKLY)
    post.queue(mine, other, notification(2))
    with post.state.begin() as conn:
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by="hr", at=THURSDAY)
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by="hr", at=THURSDAY)
    post.queue(notification(3, kind=WEEKLY), rules=OPTIONAL)
    assert post.states() == {
        "E1/1": "withdrawn",
        "E2/1": "pending",
        "E1/2": "pending",
        "E1/3": "withdrawn",
    }
    with post.state.begin() as conn:
        outbox.opt_in(conn, "E1", WEEKLY)
    post.queue(notification(4, kind=WEEKLY), rules=OPTIONAL)
    assert post.states()["E1/4"] == "pending"


def test_opt_out_of_mandatory_kind_of_notification_raises_usage_error(post: Post) -> None:
    with (
        post.state.begin() as conn,
        pytest.raises(UsageError, match="policy requires it") as caught,
    ):
        outbox.opt_out(conn, "E1", KIND, rules=OPTIONAL, by="hr", at=THURSDAY)
    assert WEEKLY in caught.value.action
    with post.state.begin() as conn, pytest.raises(UsageError, match="recipient is missing"):
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by=" ", at=THURSDAY)


def test_notification_is_pending_despite_opt_out_if_its_kind_has_become_mandatory(
    post: Post,
) -> None:
    with post.state.begin() as conn:
        outbox.opt_out(conn, "E1", WEEKLY, rules=OPTIONAL, by="hr", at=THURSDAY)
    post.queue(notification(1, kind=WEEKLY), rules=NotificationRules())
    assert post.states() == {"E1/1": "pending"}


def test_retry_makes_the_undeliverable_notification_with_the_given_number_pending(
    post: Post,
) -> None:
    post.queue(notification(1, address="nobody"), notification(2))
    with post.state.begin() as conn:
        assert outbox.retry(conn, 1) == KIND
        assert outbox.pending(conn, KIND) == ["E1/1", "E1/2"]
        for number, why in ((2, "is pending"), (77, "does not exist"), (2**70, "does not exist")):
            with pytest.raises(UsageError, match=why):
                outbox.retry(conn, number)


def test_nul_surrogate_and_direction_characters_in_notification_are_stored_escaped(
    post: Post,
) -> None:
    hostile = "a\x00b\ud800c\u202e"
    odd = Notification(
        kind=KIND,
        key=hostile,
        recipient=hostile,
        heading=_("{name}", name=hostile),
        line=_("Course {number}", number=hostile),
        name=hostile,
        address="e1@courier.example",
    )
    assert post.queue(odd, notification(2)) == QueueCounts(new=2)
    (key,) = post.rows("SELECT key, line->'values'->>'number' FROM notification WHERE id = 1")
    assert set(key) == {"a\\u0000b\\ud800c\\u202e"}


def test_20000_notifications_are_queued_within_ten_seconds(post: Post) -> None:
    begun = time.monotonic()
    many = (notification(number % 2, f"E{number // 2}") for number in range(20_000))
    assert post.queue(*many).new == 20_000
    queued = time.monotonic()
    keys = [f"E{number // 2}/{number % 2}" for number in range(100_000)]
    assert len(post.untold(keys)) == 80_000
    assert queued - begun < 10
    assert time.monotonic() - queued < 3


def test_notifications_can_be_queued_several_times_in_one_transaction(post: Post) -> None:
    with post.state.begin() as conn:
        assert outbox.queue_notifications(conn, [notification(1)], RUN, THURSDAY) == QueueCounts(
            new=1
        )
        assert outbox.unqueued_keys(conn, KIND, ["E1/1", "E1/2"]) == {"E1/2"}
        assert outbox.queue_notifications(
            conn, [notification(2)], RUN, THURSDAY + timedelta(1)
        ) == QueueCounts(new=1)
        assert outbox.unqueued_keys(conn, KIND, ["E1/1", "E1/2"]) == set()
