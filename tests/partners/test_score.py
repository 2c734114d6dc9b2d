"""What a questionnaire comes to: exact, and held against counting weights one by one."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.messages import verbatim
from include.partners.rules import Answer, Asked, score, shown

WORDS = verbatim("?")
QUESTION = st.tuples(st.integers(1, 1000), st.booleans(), st.sampled_from(list(Answer)))


def asked(number: int, weight: int, critical: bool) -> Asked:
    return Asked(f"q{number}", WORDS, WORDS, weight, critical, not critical)


@given(st.lists(QUESTION, max_size=12), st.fractions(0, 1))
def test_a_score_is_the_share_of_the_weight_that_applies(
    given_: list[tuple[int, bool, Answer]], mark: Fraction
) -> None:
    """What does not apply counts nothing; a critical no fails whatever the score."""
    questions = [asked(n, weight, critical) for n, (weight, critical, _a) in enumerate(given_)]
    answers = {f"q{n}": answer for n, (_w, _c, answer) in enumerate(given_)}
    found = score(questions, answers, mark)
    yes = sum(weight for weight, _c, answer in given_ if answer is Answer.YES)
    no = sum(weight for weight, _c, answer in given_ if answer is Answer.NO)
    assert found.share == (Fraction(yes, yes + no) if yes + no else None)
    failed = [f"q{n}" for n, (_w, c, a) in enumerate(given_) if c and a is not Answer.YES]
    assert list(found.failed) == failed
    reached = bool(yes + no) and yes >= mark * (yes + no)
    assert found.passes == (reached and not failed)


def test_a_mark_that_is_just_reached_passes() -> None:
    """2/3 of the weight is 2/3, and no rounding stands between."""
    questions = [asked(1, 2, False), asked(2, 1, False)]
    answers = {"q1": Answer.YES, "q2": Answer.NO}
    assert score(questions, answers, Fraction(2, 3)).passes
    assert not score(questions, answers, Fraction(2, 3) + Fraction(1, 10**12)).passes


def test_what_was_not_answered_counts_as_no() -> None:
    """Silence shows nothing."""
    assert score([asked(1, 1, False)], {}, Fraction(0)).share == 0


def test_a_questionnaire_to_which_nothing_applies_does_not_pass() -> None:
    """Even where the mark is nothing."""
    found = score([asked(1, 1, False)], {"q1": Answer.NOT_APPLICABLE}, Fraction(0))
    assert (found.share, found.passes) == (None, False)


@pytest.mark.parametrize(
    ("share", "said"),
    [(Fraction(2, 3), "66.66%"), (Fraction(1), "100%"), (Fraction(0), "0%"),
     (Fraction(17, 20), "85%"), (Fraction(99_999, 100_000), "99.99%")],
)  # fmt: skip
def test_a_score_is_never_told_too_high(share: Fraction, said: str) -> None:
    """What is short of the mark does not look like it."""
    assert shown(share) == said
