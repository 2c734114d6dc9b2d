"""Answers that `up --once` gives for the people of the sample company."""

from __future__ import annotations

from include.cli.answers import REASON, filled_form
from include.sampling.samples import STAND_IN
from include.sampling.seed_entry import SEED
from include.services.clock import SystemClock


def test_declaration_fills_the_form_of_a_task_that_needs_more_than_a_reason() -> None:
    """The seed is one of dice, and the evidence names the command."""
    form = filled_form("sample_audit", "seed", SystemClock().now())
    assert set(form) == {field.name for field in SEED.form}
    assert form["source"] == f"{STAND_IN} 20 dice thrown by this machine. {REASON}"


def test_other_tasks_get_a_reason() -> None:
    """Reviews and approvals have no other field."""
    form = filled_form("review_intake", "review", SystemClock().now())
    assert form == {"reason": REASON}
