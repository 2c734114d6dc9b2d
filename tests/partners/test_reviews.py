"""A review goes out, comes back, is decided on by another person, and is history then."""

from __future__ import annotations

import threading
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from include.partners import history, reviews
from include.partners.history import Review
from include.partners.register import partner_of
from include.services.errors import UsageError
from include.workbooks.faults import WorkbookRefused
from tests.partners.books import OTHERS, answered
from tests.partners.rig import Rig, pack_at

LATER = timedelta(days=10)


def of(rig: Rig, code: str = "1") -> list[Review]:
    with rig.state.connect() as conn:
        return history.history(conn, code)


def test_a_review_passes(rig: Rig) -> None:
    """Issued, returned, decided by somebody else; the score is kept exactly."""
    rig.ally("1")
    issued = rig.issue("1")
    assert issued.is_open
    assert issued.issued is not None
    back = rig.hand_in(issued, inspected="N/A")
    assert back.score is not None
    assert (back.score.share, back.score.passes) == (Fraction(1), True)
    done = rig.decide("1", passed=True)
    assert (done.passed, done.share, done.decided_by, done.reason) == (
        True, Fraction(1), "E2", "as answered",
    )  # fmt: skip
    assert [one.id for one in of(rig)] == [issued.id]


def test_issued_again_it_is_the_same_one(rig: Rig, tmp_path: Any) -> None:
    """Whatever the pack asks by now; asked anew, what came back counts no more."""
    rig.ally("1")
    first = rig.issue("1")
    rig.hand_in(first)
    asked = [{"id": "other", "text": {"en": "?", "zh-CN": "？"}, "basis": "business"}]
    rig.pack = pack_at(tmp_path, questionnaire=asked)
    rig.today += LATER
    assert rig.issue("1").issued == first.issued
    anew = rig.issue("1", anew=True)
    assert anew.id == first.id
    assert anew.issued is not None
    assert [one.id for one in anew.issued.asked] == ["other"]
    assert (anew.returned_at, dict(anew.answers), len(anew.replaced)) == (None, {}, 1)
    with pytest.raises(WorkbookRefused, match="another than the one issued"):
        rig.hand_in(first)


def test_a_later_file_takes_the_place_of_an_earlier(rig: Rig) -> None:
    """Which file that was stays; the same file again changes nothing."""
    rig.ally("1")
    issued = rig.issue("1")
    assert issued.issued is not None
    content = answered(issued.issued, {"encryption": "No"}, on=rig.today)
    with rig.state.begin() as conn:
        first = reviews.hand_in(conn, content, "back.xlsx", by="E1", at=rig.now)
        assert reviews.hand_in(conn, content, "again.xlsx", by="E1", at=rig.now) == first
    assert first.score is not None
    assert first.score.share == Fraction(2, 3)
    second = rig.hand_in(issued, by="E9")
    assert second.score is not None
    assert second.score.share == 1
    assert [one["file_sha256"] for one in second.replaced] == [first.file_sha256]
    for who in ("E1", "E9", " ｅ９ "):
        with pytest.raises(UsageError, match="cannot decide"):
            rig.decide("1", passed=True, by=who)
    rig.decide("1", passed=True, by="E2")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (None, "is not back"),
        ({"purpose": "No"}, "Critical questions were answered with no: purpose"),
        ({"encryption": "No"}, "below the pass mark"),
    ],
)
def test_what_does_not_pass_cannot_be_passed(
    rig: Rig, answers: dict[str, str] | None, said: str
) -> None:
    """By nobody; that it failed can always be decided."""
    rig.ally("1")
    issued = rig.issue("1")
    if answers is not None:
        rig.hand_in(issued, **answers)
    with pytest.raises(UsageError, match=said):
        rig.decide("1", passed=True)
    assert rig.decide("1", passed=False).passed is False


def test_a_lower_tier_has_a_lower_mark(rig: Rig) -> None:
    """2/3 is enough there, and is exactly reached."""
    rig.ally("1", grade="2")
    rig.hand_in(rig.issue("1"), encryption="No")
    assert rig.decide("1", passed=True).share == Fraction(2, 3)


@pytest.mark.parametrize(
    ("by", "reason", "said"),
    [
        ("", "fine", "Nobody is named"),
        ("13800138000", "fine", "holds a mobile"),
        ("E2", "2026-05-01", "says nothing"),
    ],
)
def test_who_decides_and_why_is_said(rig: Rig, by: str, reason: str, said: str) -> None:
    """By a name, and in words."""
    rig.ally("1")
    rig.hand_in(rig.issue("1"))
    with rig.state.begin() as conn, pytest.raises(UsageError, match=said):
        reviews.decide(conn, "1", passed=True, by=by, reason=reason, at=rig.now)


def test_customers_numbers_in_words_are_blotted_out(rig: Rig) -> None:
    """A reason is kept for years."""
    rig.ally("1")
    rig.hand_in(rig.issue("1"))
    with rig.state.begin() as conn:
        done = reviews.decide(
            conn, "1", passed=True, by="E2", reason="called 13800138000", at=rig.now
        )
    assert "138" not in done.reason


def test_an_answer_of_a_day_to_come_is_refused(rig: Rig) -> None:
    """Nobody has answered it yet."""
    rig.ally("1")
    review = rig.issue("1")
    assert review.issued is not None
    content = answered(review.issued, on=rig.today + timedelta(days=1))
    with rig.state.begin() as conn, pytest.raises(UsageError, match="which is to come"):
        reviews.hand_in(conn, content, "x.xlsx", by="E1", at=rig.now)
    assert of(rig)[0].returned_at is None


def test_answers_to_a_review_that_ended_are_refused(rig: Rig) -> None:
    """They would change what was decided."""
    rig.ally("1")
    issued = rig.issue("1")
    rig.hand_in(issued)
    rig.decide("1", passed=True)
    with pytest.raises(UsageError, match="which is not open"):
        rig.hand_in(issued, purpose="No")
    rig.issue("1")  # the next one
    with pytest.raises(UsageError, match="which is not open"):
        rig.hand_in(issued)
    with pytest.raises(UsageError, match="No review of partner 2 is open"):
        rig.decide("2", passed=False)


def test_an_incident_opens_the_review_again(rig: Rig) -> None:
    """As a new one, or in place of the open one; what was answered before counts no more."""
    rig.ally("1")
    done = rig.review("1")
    again = rig.reopen("1", "a leak")
    assert again.id != done.id
    assert (again.because, again.reopened_at) == ("a leak", rig.now)
    assert rig.reopen("1", "a leak") == again  # the incident's step is repeated
    back = rig.hand_in(rig.issue("1"))
    assert back.returned_at is not None
    worse = rig.reopen("1", "another one")
    assert (worse.id, worse.because, worse.returned_at, worse.issued) == (
        again.id, "a leak; another one", None, None,
    )  # fmt: skip
    with pytest.raises(UsageError, match="is not back"):
        rig.decide("1", passed=True)


def test_sub_processors_are_kept_with_the_review(rig: Rig) -> None:
    """In their order."""
    rig.ally("1")
    review = rig.issue("1")
    assert review.issued is not None
    others = [*OTHERS, ("Print KG", "DE", "labels")]
    content = answered(review.issued, others=others, on=rig.today)
    with rig.state.begin() as conn:
        back = reviews.hand_in(conn, content, "x.xlsx", by="E1", at=rig.now)
    assert [(one.name, one.country, one.what_for) for one in back.sub_processors] == others


CHANGES = (
    "UPDATE partner_review SET passed = false WHERE id = :id",
    "UPDATE partner_review SET decided_at = NULL, decided_by = NULL, passed = NULL, reason = NULL",
    "DELETE FROM partner_review",
    "UPDATE partner_answer SET answer = 'no' WHERE review_id = :id",
    "DELETE FROM partner_answer WHERE question = 'purpose'",
    "INSERT INTO partner_answer VALUES (:id, 'more', 'yes', '')",
    "UPDATE partner_answer SET review_id = :id WHERE review_id = :open AND question = 'purpose'",
    "UPDATE partner_answer SET review_id = :open WHERE review_id = :id AND question = 'purpose'",
    "INSERT INTO partner_sub_processor VALUES (:id, 9, 'x', 'x', 'x')",
    "DELETE FROM partner_sub_processor",
    "TRUNCATE partner_review CASCADE",
    "TRUNCATE partner_answer",
    "TRUNCATE partner_sub_processor",
)


def test_history_is_locked_even_against_plain_sql(rig: Rig) -> None:
    """By the owner of the tables, with no code of ours between; an open review can still change."""
    rig.ally("1")
    rig.ally("2")
    review = rig.issue("1")
    assert review.issued is not None
    content = answered(review.issued, others=OTHERS, on=rig.today)
    with rig.state.begin() as conn:
        reviews.hand_in(conn, content, "x.xlsx", by="E1", at=rig.now)
    rig.decide("1", passed=True)
    going = rig.hand_in(rig.issue("2"))
    before = of(rig)
    named = {"id": review.id, "open": going.id}
    for change in CHANGES:
        values = {name: at for name, at in named.items() if f":{name}" in change}
        with rig.state.connect() as plain, pytest.raises(DBAPIError, match="history"):
            plain.execute(text(change), values)
    assert of(rig) == before
    rig.hand_in(going, encryption="No")


def test_a_decision_and_an_answer_at_once_leave_no_answer_behind(rig: Rig) -> None:
    """An answer that is entered while somebody decides waits, and is refused then."""
    rig.ally("1")
    review = rig.hand_in(rig.issue("1"))
    refused: list[str] = []

    def enter() -> None:
        try:
            with rig.state.begin() as conn:
                conn.execute(
                    text("INSERT INTO partner_answer VALUES (:id, 'late', 'yes', '')"),
                    {"id": review.id},
                )
        except DBAPIError as error:
            refused.append(str(error))

    with rig.state.begin() as conn:
        reviews.decide(conn, "1", passed=True, by="E2", reason="as answered", at=rig.now)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # it waits for the decision
    thread.join(10)
    assert "history" in refused[0]
    assert set(of(rig)[0].answers) == {"purpose", "encryption", "inspected"}


def test_two_who_issue_at_once_open_one_review(rig: Rig) -> None:
    """The second one waits and finds the first one's."""
    rig.ally("1")
    found: list[int] = []
    with rig.state.begin() as conn:
        run = rig.context
        first = reviews.issue(
            conn, partner_of(run, "1"), run.rules, by="E1", at=rig.now, timezone="Asia/Shanghai"
        )
        thread = threading.Thread(target=lambda: found.append(rig.issue("1", by="E5").id))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(10)
    assert found == [first.id]
    assert len(of(rig)) == 1


@pytest.mark.parametrize("second", ["incident 2026-07", "incident 2026-11", "incident 2026"])
def test_a_second_incident_blocks_whatever_its_words(rig: Rig, second: str) -> None:
    """What was issued and answered after the first one is no answer to the second."""
    rig.ally("1")
    rig.review("1")
    rig.reopen("1", "incident 2026-07")
    first = rig.hand_in(rig.issue("1"))
    assert first.score is not None
    assert first.score.passes
    rig.today += LATER
    again = rig.reopen("1", second)
    assert (again.issued, again.returned_at, dict(again.answers)) == (None, None, {})
    assert again.reopened_at == rig.now
    assert len(again.because.split("; ")) == 2
    with pytest.raises(UsageError, match="is not back"):
        rig.decide("1", passed=True)
    assert not rig.standing("1").allowed
    with pytest.raises(UsageError, match="not open"):
        rig.hand_in(first)  # the answers of before
    rig.hand_in(rig.issue("1"))
    rig.decide("1", passed=True)
    assert rig.standing("1").allowed


def test_an_incident_while_the_questionnaire_is_out_asks_anew(rig: Rig) -> None:
    """Said again before anything was issued, it changes nothing."""
    rig.ally("1")
    rig.reopen("1")
    issued = rig.issue("1")
    rig.today += LATER
    again = rig.reopen("1")
    assert again.issued is None
    rig.today += LATER
    assert rig.reopen("1") == again
    with pytest.raises(UsageError, match="not open"):
        rig.hand_in(issued)
