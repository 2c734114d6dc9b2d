"""Tests of the task `seed`: it asks again after a refused seed, and continues after a kill."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from include.approvals.required_action import Answer, InvalidAnswer, RequiredAction
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.sampling.seed_entry import ENTER
from include.sampling.seed_entry import SEED as SEED_STEP
from include.sampling.workflow import SAMPLE_AUDIT
from include.services.clock import FixedClock
from tests.sampling.company import AUDITOR, DAG, SEED, Company
from tests.support.airflow_task import in_task, killed_after, record_of

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


@pytest.fixture
def committed(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """Provide a run in an Airflow task, after its commitment was sealed."""
    from include.orchestration import run

    company.run_to_commitment()
    in_task(monkeypatch, KEY, company.engine, FixedClock(company.now))
    monkeypatch.setattr(run, "task_services", lambda: company.context().services)
    return company


def ask_for_seed() -> RequiredAction | None:
    from include.orchestration.tasks import ask_people

    return ask_people(SAMPLE_AUDIT, SEED_STEP, "")


def answer_with(company: Company, action: RequiredAction, seed: str) -> Answer:
    company.now += timedelta(hours=2)
    entered = {
        "seed": seed,
        "source": "the exchange's page",
        "published_at": company.published_at(),
    }
    return Answer(
        ENTER, "", AUDITOR, company.now, texts=entered, entered=entered, content=action.content
    )


def test_seed_step_whose_task_was_killed_uses_recorded_seed_and_shows_no_second_form(
    committed: Company,
) -> None:
    """The step shows no form again, and it stores the step record that the killed task lost."""
    from include.orchestration.tasks import store_answer

    company = committed
    action = ask_for_seed()
    assert action is not None
    take = partial(store_answer, SAMPLE_AUDIT, SEED_STEP, "", answer_with(company, action, SEED))
    lost = killed_after(take, StepFindings, "record")
    assert lost.data["seed"] is True
    assert ask_for_seed() is None
    assert record_of(company.engine, KEY, "seed") == lost
    assert ask_for_seed() is None
    assert record_of(company.engine, KEY, "seed") == lost


def test_seed_step_asks_again_after_refused_seed_and_shows_reason(committed: Company) -> None:
    """The step record fails until the next answer. The refusal is kept as evidence."""
    from include.orchestration.tasks import store_answer

    company = committed
    first = ask_for_seed()
    assert first is not None
    with pytest.raises(
        InvalidAnswer, match="The random seed was refused: the seed is empty or has fewer"
    ):
        store_answer(SAMPLE_AUDIT, SEED_STEP, "", answer_with(company, first, "12"))
    (finding,) = record_of(company.engine, KEY, "seed").findings
    assert (finding.code, finding.severity) == ("seed.unanswered", Outcome.FAIL)
    second = ask_for_seed()
    assert second is not None
    assert "was refused" not in first.body
    assert "The last random seed was refused: the seed is empty or has fewer" in second.body
    assert record_of(company.engine, KEY, "seed").findings == []
    result = store_answer(SAMPLE_AUDIT, SEED_STEP, "", answer_with(company, second, SEED))
    assert result == {"step": "seed", "part": "", "outcome": "pass"}
    assert [finding.code for finding in company.draw().findings] == ["sampling.seeds_refused"]


def test_run_fails_if_seed_from_command_line_is_refused(committed: Company) -> None:
    """The command would repeat the same answer.

    Therefore the run fails, and the error has the reason.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human_step import CONTENT, answer_in_process
    from include.orchestration.tasks import HumanTaskMaker

    action = ask_for_seed()
    assert action is not None
    step = HumanTaskMaker(SAMPLE_AUDIT, SEED_STEP)({"part": ""})
    answer_in_process(step, lambda _task: {})
    answer = answer_with(committed, action, "12")
    event = {
        "chosen_options": [ENTER],
        "params_input": {**answer.texts, CONTENT: action.content},
        "responded_at": committed.now,
        "responded_by_user": {"id": AUDITOR, "name": AUDITOR},
        "timedout": False,
    }
    with pytest.raises(
        AirflowFailException, match=r"cannot ask again\. The random seed was refused"
    ):
        step.execute_complete({}, event)
    assert record_of(committed.engine, KEY, "seed").outcome is Outcome.FAIL
    assert committed.conclude().outcome is Outcome.FAIL
