"""Servers in trouble: refusals, greylisting, cut lines, no server at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from include.notify import delivery, sending
from include.notify.claims import LEASE, Unsent
from include.policy.rules import InDoubt, NoticeRules
from include.reports.i18n import Translator
from include.services.errors import ServiceError
from tests.notify.rig import KIND, MovingClock, Post, notice
from tests.support.smtp import DROP, Rule, Smtp


def only(phase: str, person: str, answer: str) -> Rule:
    """Answer one command about one person so, all others as usual."""
    at = f"{person}@courier.example"
    return lambda one, address: answer if (one, address) == (phase, at) else None


def test_one_refused_recipient_of_many_is_reported_and_the_others_are_told(
    post: Post, server: Smtp
) -> None:
    """With the codes of the server, and none of its words, which quote the address."""
    server.rule = only("RCPT", "e2", "550 5.1.1 e2@courier.example unknown")
    post.queue(*(notice(1, f"E{number}") for number in range(1, 5)), notice(2, "E2"))
    done = post.deliver()
    assert (done.sent, done.undeliverable, done.deferred) == (3, 2, 0)
    assert done.recipients == [Unsent(KIND, "E2", "refused 550 5.1.1")] * 2
    assert post.states()["E2/1"] == "undeliverable"
    assert "@" not in " ".join(post.causes().values())
    post.queue(notice(1, "E2", address="e2.new@courier.example"))
    post.clock.on(days=1)
    assert post.deliver().sent == 1


def test_greylisting_is_tried_again_after_the_pause(post: Post, server: Smtp) -> None:
    """The pauses are the policy's; what was queued meanwhile goes with it."""
    server.rule = only("RCPT", "e1", "451 4.7.1 greylisted")
    post.queue(notice(1), notice(1, "E2"))
    done = post.deliver()
    assert (done.sent, done.deferred) == (1, 1)
    server.rule = lambda _phase, _address: None
    post.queue(notice(2))
    post.clock.on(seconds=59)
    assert (post.deliver().sent, len(server.read)) == (0, 1)
    post.clock.on(seconds=1)
    done = post.deliver()
    assert (done.sent, done.notices, done.deferred) == (1, 2, 0)
    assert "n2" in server.taken[-1].text("plain")


def test_what_was_put_off_waits_in_quiet_hours(post: Post, server: Smtp) -> None:
    """It is no failure, and no reason for another try before the morning."""
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notice(1), notice(2, "E2", urgent=True))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.clock.moment = datetime(2026, 11, 26, 15, tzinfo=UTC)  # 23:00
    done = sending.send(post.office(), post.clock.now(), "6.2")
    assert (done.again, done.record.findings) == ("", [])
    assert (done.record.data["waiting"], done.record.data["messages"]) == (1, 1)
    post.clock.moment = datetime(2026, 11, 27, 2, tzinfo=UTC)
    assert post.deliver().sent == 1


def test_pauses_grow_and_the_last_one_repeats(post: Post, server: Smtp) -> None:
    """A minute, five, fifteen, an hour, an hour; the same message all day."""
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notice(1))
    for minutes in (1, 5, 15, 60, 60):
        before = post.rows("SELECT tries FROM notice_message")
        post.deliver()
        (row,) = post.rows("SELECT tries, next_try_at, message_id FROM notice_message")
        assert row[0] == (before[0][0] if before else 0) + 1
        assert (row[1] - post.clock.now()).total_seconds() == minutes * 60
        post.clock.on(minutes=minutes)
    server.rule = lambda _phase, _address: None
    assert post.deliver().sent == 1
    assert server.taken[0].message_id == row[2]


def test_a_digest_that_no_server_took_joins_the_next_days(post: Post, server: Smtp) -> None:
    """One mail, with everything."""
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notice(1))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.clock.on(days=1)
    post.queue(notice(2))
    done = post.deliver()
    assert (done.sent, done.notices) == (1, 2)
    assert [(state, day) for _who, state, day in post.messages()] == [
        ("dissolved", date(2026, 11, 26)),
        ("sent", date(2026, 11, 27)),
    ]


def test_what_is_put_off_for_too_long_is_given_up_and_reported(post: Post, server: Smtp) -> None:
    """Never lost: it is undeliverable, and says why; what is younger goes on."""
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.rules = NoticeRules(workdays_only=False)
    post.queue(notice(1))
    for _day in range(3):
        assert post.deliver().undeliverable == 0
        post.clock.on(days=1)
    post.queue(notice(2))
    done = post.deliver()
    assert done.recipients == [Unsent(KIND, "E1", "gave_up")]
    assert post.states() == {"E1/1": "undeliverable", "E1/2": "pending"}
    assert post.queue(notice(1)).again == 1


def test_waiting_for_a_workday_is_no_failure(post: Post, server: Smtp) -> None:
    """A holiday longer than `give_up_after` gives nothing up: nobody refused anything."""
    post.clock.moment = datetime(2026, 9, 30, 13, 30, tzinfo=UTC)
    post.queue(notice(1))
    post.deliver()
    post.clock.moment = datetime(2026, 10, 8, 2, tzinfo=UTC)
    assert post.deliver().sent == 1


def test_notice_deferred_first_after_a_holiday_is_tried_again(post: Post, server: Smtp) -> None:
    """Greylisting after a week off: the age counts from the first deferral, not the queueing."""
    post.clock.moment = datetime(2026, 9, 30, 13, 30, tzinfo=UTC)
    post.queue(notice(1))
    post.clock.moment = datetime(2026, 10, 8, 2, tzinfo=UTC)
    server.rule = lambda phase, _: "450 greylisted" if phase == "RCPT" else None
    assert post.deliver().undeliverable == 0
    server.rule = lambda _phase, _address: None
    post.clock.on(minutes=10)
    assert post.deliver().sent == 1


def test_notice_whose_server_is_down_after_a_holiday_is_tried_again(
    post: Post, server: Smtp
) -> None:
    """A server that cannot be reached is a deferral too: its time counts from there."""
    post.clock.moment = datetime(2026, 9, 30, 13, 30, tzinfo=UTC)
    post.queue(notice(1))
    post.clock.moment = datetime(2026, 10, 8, 2, tzinfo=UTC)
    server.stop()
    assert post.deliver().undeliverable == 0
    server.start()
    post.clock.on(minutes=10)
    assert post.deliver().sent == 1


def test_notice_that_is_queued_again_counts_its_deferrals_anew(post: Post, server: Smtp) -> None:
    """Given up once, and still wanted: it has the whole time again."""
    post.rules = NoticeRules(workdays_only=False)
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    post.queue(notice(1))
    post.deliver()
    post.clock.on(days=3)
    assert post.deliver().undeliverable == 1
    assert post.queue(notice(1)).again == 1
    assert post.deliver().undeliverable == 0
    post.clock.on(days=3)
    assert post.deliver().undeliverable == 1


def test_mail_that_is_down_holds_everything_and_loses_nothing(post: Post, server: Smtp) -> None:
    """Nothing is claimed; with the server everything goes, once."""
    server.stop()
    post.queue(notice(1), notice(1, "E2"), notice(1, "E3", urgent=True))
    done = post.deliver()
    assert (done.sent, done.deferred, done.down) == (0, 3, {"mail": ""})
    assert post.messages() == []
    server.start()
    assert post.deliver().sent == 3


def test_mail_that_is_down_for_days_is_reported(post: Post, server: Smtp) -> None:
    """At the age at which a refusal would be; what waits for its time is not."""
    post.rules = NoticeRules(workdays_only=False)
    post.queue(notice(1, "E2"))
    assert post.deliver().sent == 1
    post.queue(notice(1), notice(2, "E2"))
    server.stop()
    post.clock.on(days=1)
    assert post.deliver().undeliverable == 0
    post.clock.on(days=3)
    done = post.deliver()
    assert done.undeliverable == 2
    assert {one.cause for one in done.recipients} == {"gave_up"}


def test_a_server_that_goes_down_half_way_is_asked_again_later(post: Post, server: Smtp) -> None:
    """What it took is sent; what nobody tried is no message and in no doubt."""

    def rule(phase: str, _address: str) -> str | None:
        return "421 4.3.2 closing" if phase == "MAIL" and len(server.taken) >= 10 else None

    server.rule = rule
    post.queue(*(notice(1, f"E{number:02}") for number in range(40)))
    done = post.deliver()
    taken = done.sent
    assert taken in (10, 11)  # two lines
    assert (done.deferred, done.in_doubt) == (40 - taken, 0)
    assert done.down == {"mail": "421 4.3.2"}
    states = Counter(state for _who, state, _day in post.messages())
    assert states == {"sent": taken, "dissolved": 40 - taken}
    server.rule = lambda _phase, _address: None
    assert post.deliver().sent == 40 - taken
    assert set(server.copies().values()) == {1}


def test_a_server_that_never_answers_is_left_alone_after_a_few(post: Post, server: Smtp) -> None:
    """So that 20,000 recipients do not take their timeouts one after the other."""
    server.rule = lambda phase, _: DROP if phase == "RCPT" else None
    post.queue(*(notice(1, f"E{number:02}") for number in range(40)))
    done = post.deliver()
    assert (done.sent, done.deferred) == (0, 40)
    assert "mail" in done.down
    assert len(post.rows("SELECT 1 FROM notice_message WHERE state = 'deferred'")) <= 10


def test_a_server_that_takes_mail_and_never_says_so_is_left_alone(post: Post, server: Smtp) -> None:
    """Nobody gets a copy a minute: three mails at most, then it is reported, and that ends."""
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(*(notice(1, f"E{number:02}") for number in range(40)))
    done = post.deliver()
    assert done.down == {"mail": ""}
    assert (done.deferred, done.in_doubt) == (40, 0)
    assert 5 <= len(server.read) <= 6  # two lines
    for _try in range(9):
        post.clock.on(hours=1)
        post.deliver()
    assert max(server.copies().values()) == 3
    doubted = post.rows("SELECT count(*) FROM notice WHERE state = 'in_doubt'")[0][0]
    assert doubted >= 5
    assert post.rows("SELECT max(copies) FROM notice_message") == [(2,)]


def test_a_copy_that_did_not_go_out_is_not_counted(post: Post, server: Smtp) -> None:
    """A server that is busy afterwards is asked for as long as for any other mail."""
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notice(1))
    post.deliver()
    server.rule = lambda phase, _: "450 busy" if phase == "RCPT" else None
    for _try in range(4):
        post.clock.on(hours=1)
        assert (post.deliver().in_doubt, len(server.read)) == (0, 1)
    server.rule = lambda _phase, _address: None
    post.clock.on(hours=1)
    assert post.deliver().sent == 1


def test_a_server_that_looks_at_a_mail_for_long_is_waited_for(post: Post, server: Smtp) -> None:
    """Its other answers have to come sooner."""
    server.slow = 0.6
    post.extra = {"timeout": 0.3, "answer_timeout": 5}
    post.queue(notice(1), notice(2, "E2"))
    assert post.deliver().sent == 2
    server.slow, post.extra = 0.6, {"timeout": 5, "answer_timeout": 0.2}
    post.queue(notice(1, "E3"))
    assert (post.deliver().sent, post.states()["E3/1"]) == (0, "pending")


def test_a_batch_stays_in_hand_while_a_server_is_slow(
    post: Post, server: Smtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes nothing of it for cut off, however long one answer takes."""
    monkeypatch.setattr(delivery, "_WATCH", 0.02)
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
    post.queue(notice(1))
    assert post.deliver().sent == 1
    assert post.clock.moment - began > LEASE
    assert [one.sent for one in others] == [0]
    assert list(server.copies().values()) == [1]


def test_a_cut_line_after_the_mail_was_handed_over_sends_a_copy(post: Post, server: Smtp) -> None:
    """With the same Message-ID, after the pause; nothing that came since is put into it."""
    server.rule = only("DATA", "e1", DROP)
    post.queue(notice(1), notice(1, "E2"))
    done = post.deliver()
    assert (done.sent, done.deferred, done.in_doubt) == (1, 1, 0)
    server.rule = lambda _phase, _address: None
    post.queue(notice(2))
    assert post.deliver().sent == 0
    post.clock.on(minutes=1)
    done = post.deliver()
    assert (done.sent, done.notices, done.waiting) == (1, 1, 1)
    assert max(server.copies().values()) == 2
    assert "n2" not in server.taken[-1].text("plain")


def test_a_copy_leaves_out_what_was_done_since(post: Post, server: Smtp) -> None:
    """And is none where nothing is left; the day's digest stays the one that may have arrived."""
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notice(1), notice(2), notice(1, "E2"))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.confirm = {KIND: lambda keys: {key for key in keys if key == "E1/1"}}
    post.clock.on(minutes=1)
    done = post.deliver()
    assert (done.sent, done.notices, done.withdrawn) == (1, 1, 2)
    assert {who: state for who, state, _day in post.messages()} == {"E1": "sent", "E2": "in_doubt"}
    assert post.states() == {"E1/1": "sent", "E1/2": "in_doubt", "E2/1": "in_doubt"}
    # wanted again, they would be told under a second id: they may have been told already
    assert post.untold(["E1/2", "E2/1"]) == set()


def test_a_copy_that_cannot_be_confirmed_waits_as_it_is(post: Post, server: Smtp) -> None:
    """Torn apart it would be another message under the same id."""

    def unsure(_keys: Sequence[str]) -> set[str]:
        raise ServiceError("The database of courses cannot be reached.")

    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.queue(notice(1), notice(2, kind="partners.review"))
    post.deliver()
    server.rule = lambda _phase, _address: None
    post.confirm = {KIND: unsure}
    post.clock.on(minutes=1)
    done = post.deliver()
    assert (done.sent, done.deferred, done.unsure) == (0, 2, {KIND: "ServiceError"})
    post.confirm = {}
    post.clock.on(seconds=LEASE.total_seconds())
    assert post.deliver().notices == 2


def test_a_kind_whose_confirmer_breaks_holds_up_no_other(post: Post, server: Smtp) -> None:
    """Whatever the error is; its words, which may quote a key, are kept out."""

    def broken(keys: Sequence[str]) -> set[str]:
        raise ValueError(f"not enough values to unpack: {keys[0]}")

    post.confirm = {KIND: broken}
    post.queue(notice(1), notice(2, "E2", kind="partners.review"))
    done = sending.send(post.office(), post.clock.now(), "6.2")
    assert [one.recipient for one in server.taken] == ["e2@courier.example"]
    said = Translator("en").text(done.record.findings[0].message)
    assert said == (
        f"Nobody could say which notices of {KIND} are still wanted, or where they go (ValueError);"
        " they wait."
    )
    assert "E1/1" not in done.record.model_dump_json()
    assert done.again
    assert post.states()["E1/1"] == "pending"


@pytest.mark.parametrize("answer", ["550 5.1.1 unknown", "450 busy"])
def test_a_refused_copy_says_nothing_of_the_first(post: Post, server: Smtp, answer: str) -> None:
    """Refused: in doubt, and reported. Put off: tried again until it is too old, then reported."""
    server.rule = lambda phase, _: DROP if phase == "DATA" else None
    post.rules = NoticeRules(workdays_only=False)
    post.queue(notice(1))
    post.deliver()
    server.rule = lambda phase, _: answer if phase == "RCPT" else None
    post.clock.on(minutes=1)
    done = post.deliver()
    if answer.startswith("450"):
        assert (done.deferred, done.in_doubt) == (1, 0)
        post.clock.on(days=3)
        done = post.deliver()
    assert done.recipients == [Unsent(KIND, "E1", "in_doubt")]
    assert post.states() == {"E1/1": "in_doubt"}


def test_a_policy_may_report_instead_of_sending_a_copy(post: Post, server: Smtp) -> None:
    """Then at most one mail arrives."""
    post.rules = NoticeRules(in_doubt=InDoubt(mail="report"))
    server.rule = only("DATA", "e1", DROP)
    post.queue(notice(1), notice(1, "E2"))
    done = post.deliver()
    assert (done.sent, done.in_doubt) == (1, 1)
    server.rule = lambda _phase, _address: None
    post.clock.on(days=1)
    assert post.deliver().sent == 0
    assert set(server.copies().values()) == {1}
