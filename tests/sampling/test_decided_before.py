"""The task `seed`: it asks again after a refused seed, and goes on after it was killed."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from include.approvals.question import Answer, AskAgain, Question
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.sampling.seed_entry import ENTER
from include.sampling.seed_entry import SEED as SEED_STEP
from include.sampling.workflow import SAMPLE_AUDIT
from include.services.clock import FixedClock
from tests.sampling.rig import AUDITOR, DAG, SEED, Rig
from tests.support.airflow_task import in_task, killed_after, record_of

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


@pytest.fixture
def committed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A run whose commitment is sealed, in a task of Airflow."""
    from include.orchestration import run

    rig.committed()
    in_task(monkeypatch, KEY, rig.engine, FixedClock(rig.now))
    monkeypatch.setattr(run, "workplace", lambda: rig.context().services)
    return rig


def asked() -> Question | None:
    from include.orchestration.tasks import ask_people

    return ask_people(SAMPLE_AUDIT, SEED_STEP, "")


def answered(rig: Rig, question: Question, seed: str) -> Answer:
    rig.now += timedelta(hours=2)
    entered = {"seed": seed, "source": "the exchange's page", "published_at": rig.published()}
    return Answer(
        ENTER, "", AUDITOR, rig.now, given=entered, entered=entered, content=question.content
    )


def test_seed_step_goes_on_with_a_registered_seed_after_its_task_was_killed(committed: Rig) -> None:
    """The step skips the question and keeps the record that the killed task lost."""
    from include.orchestration.tasks import take_answer

    rig = committed
    question = asked()
    assert question is not None
    take = partial(take_answer, SAMPLE_AUDIT, SEED_STEP, "", answered(rig, question, SEED))
    lost = killed_after(take, StepFindings, "record")
    assert lost.data["seed"] is True
    assert asked() is None
    assert record_of(rig.engine, KEY, "seed") == lost
    assert asked() is None
    assert record_of(rig.engine, KEY, "seed") == lost


def test_seed_step_asks_again_after_a_refused_seed_and_gives_the_reason(committed: Rig) -> None:
    """Until another answer the record says that none counted; the refusal stays in the evidence."""
    from include.orchestration.tasks import take_answer

    rig = committed
    first = asked()
    assert first is not None
    with pytest.raises(AskAgain, match="The seed was refused: the seed is empty or has fewer"):
        take_answer(SAMPLE_AUDIT, SEED_STEP, "", answered(rig, first, "12"))
    (finding,) = record_of(rig.engine, KEY, "seed").findings
    assert (finding.code, finding.severity) == ("seed.unanswered", Outcome.FAIL)
    second = asked()
    assert second is not None
    assert "was refused" not in first.body
    assert "The seed entered last was refused: the seed is empty or has fewer" in second.body
    assert record_of(rig.engine, KEY, "seed").findings == []
    done = take_answer(SAMPLE_AUDIT, SEED_STEP, "", answered(rig, second, SEED))
    assert done == {"step": "seed", "part": "", "outcome": "pass"}
    assert [one.code for one in rig.draw().findings] == ["sampling.seeds_refused"]


def test_a_refused_seed_that_was_given_with_the_command_fails_the_run(committed: Rig) -> None:
    """It would be the same again; the error gives the reason."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human import CONTENT, attend
    from include.orchestration.tasks import HumanTaskMaker

    question = asked()
    assert question is not None
    step = HumanTaskMaker(SAMPLE_AUDIT, SEED_STEP)({"part": ""})
    attend(step, lambda _task: {})
    answer = answered(committed, question, "12")
    event = {
        "chosen_options": [ENTER],
        "params_input": {**answer.given, CONTENT: question.content},
        "responded_at": committed.now,
        "responded_by_user": {"id": AUDITOR, "name": AUDITOR},
        "timedout": False,
    }
    with pytest.raises(AirflowFailException, match=r"asked again here\. The seed was refused"):
        step.execute_complete({}, event)
    assert record_of(committed.engine, KEY, "seed").outcome is Outcome.FAIL
    assert committed.conclude().outcome is Outcome.FAIL
