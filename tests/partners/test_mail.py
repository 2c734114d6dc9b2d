"""What a real mail server gets: both languages, one digest each, nothing that was mended since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from include.partners import reminders
from tests.notify.rig import MovingClock, Post
from tests.partners.rig import Rig
from tests.support.smtp import Smtp

NAME = "Süd\r\nBcc: all@evil.example\r\n\r\n配送"


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as made:
        yield made


def post(rig: Rig, server: Smtp) -> Post:
    confirm = {
        kind: partial(reminders.still_due, rig.context)
        for kind in ("partners.reminder", "partners.contact")
    }
    return Post(rig.state, server.port, MovingClock(rig.now), confirm=confirm)


def test_owner_and_partner_get_one_digest_each(rig: Rig, server: Smtp) -> None:
    """With all that ends; a name that tries to end a header or the mail stays a name."""
    rig.ally("1", company=NAME, secrecy_to="2026-06-20", deal_to="2026-05-30")
    rig.ally("2", contact="broken", seen_on="2025-06-20")
    rig.check()
    done = post(rig, server).deliver()
    by = {one.recipient: one for one in server.read}
    assert set(by) == {"compliance@courier.example", "privacy@1.example"}
    assert (done.sent, done.undeliverable) == (2, 0)  # the broken address was told when queued
    owner = by["compliance@courier.example"]
    assert owner.mail["Bcc"] is None
    assert [str(one.addresses[0].addr_spec) for one in (owner.mail["To"],)] == [
        "compliance@courier.example"
    ]
    for kind in ("plain", "html"):
        text = owner.text(kind)
        for words in ("2026-06-20", "2026-05-30", "security review is due on", "保密协议将于"):
            assert words in text, kind
    assert "Süd Bcc: all@evil.example 配送 (1)" in owner.text("plain")
    partner = by["privacy@1.example"].text("plain")
    assert "please renew it with us" in partner
    assert "请与我司续签" in partner
    assert "Company 2" not in partner


def test_what_is_mended_before_it_is_sent_is_not_sent(rig: Rig, server: Smtp) -> None:
    """Mail was down while somebody renewed the agreement: nobody hears of it."""
    rig.ally("1", secrecy_to="2026-06-20")
    rig.ally("2", secrecy_to="2026-06-20")
    rig.check()
    rig.change("1", secrecy_to="2028-06-20")
    post(rig, server).deliver()
    told = {one.recipient: one.text("plain") for one in server.read}
    assert set(told) == {"compliance@courier.example", "privacy@2.example"}
    assert "Company 1" not in told["compliance@courier.example"]


def test_a_week_of_lapse_is_one_mail(rig: Rig, server: Smtp) -> None:
    """However often it is run; the next week has the next one."""
    rig.ally("1", deal_to="2026-05-30", contact=None)
    for _week in range(3):
        for run in ("a", "b"):
            rig.check(f"{rig.today} {run}")
            post(rig, server).deliver()
        rig.today += timedelta(days=7)
    assert [one.recipient for one in server.read] == ["compliance@courier.example"] * 3


def test_a_review_that_failed_or_was_opened_again_has_no_due_day(rig: Rig, server: Smtp) -> None:
    """It does not hold at all: a day before it would be one that nobody ever set."""
    for code in ("1", "2"):
        rig.ally(code)
        rig.review(code, passed=code == "2")
    rig.reopen("2")
    rig.check()
    post(rig, server).deliver()
    assert {one.recipient for one in server.read} == {
        "compliance@courier.example", "privacy@1.example",
    }  # fmt: skip
    for one in server.read:
        text = one.text("plain")
        assert "review" in text
        assert "2026-05-31" not in text
        assert "[due" not in text
