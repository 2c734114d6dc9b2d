"""A seed whose task was killed after it was registered, and is repeated."""

from __future__ import annotations

from functools import partial

import pytest

from include.sampling import steps
from include.services.clock import FixedClock
from tests.sampling.rig import AUDITOR, DAG, SEED, Rig
from tests.support.airflow_task import in_task, killed_after, record_of

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


def test_seed_step_goes_on_with_a_registered_seed_after_its_task_was_killed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step skips the question and keeps the record that the killed task lost."""
    from include.approvals.answer import Answer
    from include.orchestration import sampling

    rig.begin()
    for name in ("openings", "branches"):
        rig.freeze(name)
    rig.commit()
    in_task(monkeypatch, KEY, rig.engine, FixedClock(rig.now))
    monkeypatch.setattr(sampling, "desk_of", lambda _place: rig.desk())
    question = sampling.ask("")
    assert question is not None
    rig.now = rig.now.replace(hour=rig.now.hour + 2)
    entered = {"seed": SEED, "source": "the exchange's page", "published_at": rig.published()}
    answer = Answer(
        steps.ENTER, "", AUDITOR, rig.now, given=entered, entered=entered, content=question.content
    )
    lost = killed_after(partial(sampling.take, "", answer), steps, "take_seed")
    assert lost.data["seed"] is True
    assert sampling.ask("") is None
    assert record_of(rig.engine, KEY, "seed") == lost
    assert sampling.ask_again("") is None
    assert record_of(rig.engine, KEY, "seed") == lost
