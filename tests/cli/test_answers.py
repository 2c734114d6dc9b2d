"""Answers that `up --once` gives for the people of the sample company."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from include.cli.answers import REASON, Answering
from include.sampling.samples import STAND_IN
from include.sampling.seed_entry import SEED
from include.services.clock import SystemClock


def form_of(dag_id: str, task_id: str) -> dict[str, Any]:
    services: Any = SimpleNamespace(clock=SystemClock())
    airflow: Any = None
    return dict(Answering(services, airflow, airflow, dag_id)._form(task_id))


def test_declaration_fills_the_form_of_a_task_that_needs_more_than_a_reason() -> None:
    """The seed is one of dice, and the evidence names the command."""
    form = form_of("sample_audit", "seed")
    assert set(form) == {field.name for field in SEED.form}
    assert form["source"] == f"{STAND_IN} 20 dice thrown by this machine. {REASON}"


def test_other_tasks_get_a_reason() -> None:
    """Reviews and approvals have no other field."""
    assert form_of("review_intake", "review") == {"reason": REASON}
