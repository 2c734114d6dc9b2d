"""Answers that `up --once` enters on behalf of the people of the sample company."""

from __future__ import annotations

from include.cli.answers import AUTOMATIC, filled_form
from include.sampling.samples import STAND_IN
from include.sampling.seed_entry import SEED
from include.services.clock import SystemClock


def test_automatic_answer_to_a_seed_request_fills_every_field_of_the_form() -> None:
    """The answer has a random seed that looks like the result of dice, and names its source."""
    form = filled_form("sample_audit", "seed", SystemClock().now())
    assert set(form) == {field.name for field in SEED.form}
    assert form["source"] == f"{STAND_IN} 20 dice thrown by this machine. {AUTOMATIC}"


def test_automatic_answer_to_a_review_request_fills_only_the_reason() -> None:
    form = filled_form("review_intake", "review", SystemClock().now())
    assert form == {"reason": AUTOMATIC}
