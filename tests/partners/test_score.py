"""Tests that the score of a questionnaire is exact, and equals a separate sum of the weights."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.messages import verbatim
from include.partners.rules import Answer, IssuedQuestion, compute_score, format_score

TEXT = verbatim("?")
QUESTION = st.tuples(st.integers(1, 1000), st.booleans(), st.sampled_from(list(Answer)))


def question(number: int, weight: int, critical: bool) -> IssuedQuestion:
    return IssuedQuestion(f"q{number}", TEXT, TEXT, weight, critical, not critical)


@given(st.lists(QUESTION, max_size=12), st.fractions(0, 1))
def test_score_is_weight_of_yes_answers_divided_by_weight_of_applicable_questions(
    submitted: list[tuple[int, bool, Answer]], mark: Fraction
) -> None:
    questions = [
        question(n, weight, critical) for n, (weight, critical, _a) in enumerate(submitted)
    ]
    answers = {f"q{n}": answer for n, (_w, _c, answer) in enumerate(submitted)}
    score = compute_score(questions, answers, mark)
    yes = sum(weight for weight, _c, answer in submitted if answer is Answer.YES)
    no = sum(weight for weight, _c, answer in submitted if answer is Answer.NO)
    assert score.share == (Fraction(yes, yes + no) if yes + no else None)
    failed = [f"q{n}" for n, (_w, c, a) in enumerate(submitted) if c and a is not Answer.YES]
    assert list(score.failed) == failed
    reached = bool(yes + no) and yes >= mark * (yes + no)
    assert score.passes == (reached and not failed)


def test_score_equal_to_pass_mark_passes() -> None:
    questions = [question(1, 2, False), question(2, 1, False)]
    answers = {"q1": Answer.YES, "q2": Answer.NO}
    assert compute_score(questions, answers, Fraction(2, 3)).passes
    assert not compute_score(questions, answers, Fraction(2, 3) + Fraction(1, 10**12)).passes


def test_missing_answer_counts_as_no() -> None:
    assert compute_score([question(1, 1, False)], {}, Fraction(0)).share == 0


def test_score_without_applicable_question_does_not_pass() -> None:
    score = compute_score([question(1, 1, False)], {"q1": Answer.NOT_APPLICABLE}, Fraction(0))
    assert (score.share, score.passes) == (None, False)


@pytest.mark.parametrize(
    ("share", "text"),
    [(Fraction(2, 3), "66.66%"), (Fraction(1), "100%"), (Fraction(0), "0%"),
     (Fraction(17, 20), "85%"), (Fraction(99_999, 100_000), "99.99%")],
)  # fmt: skip
def test_format_score_rounds_down(share: Fraction, text: str) -> None:
    assert format_score(share) == text
