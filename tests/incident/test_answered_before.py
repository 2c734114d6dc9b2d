"""Human steps of incidents whose task was killed after the answer was entered."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from include.approvals.question import Answer, AskAgain
from include.evidence.model import Outcome
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.steps import decide, report, task
from include.incident.workflow import RESPOND_TO_INCIDENT
from tests.incident.desk_rig import BOSS, LEAD, USUAL, Case, Company
from tests.incident.test_steps import HUMAN, before
from tests.support.airflow_task import in_task, killed_after, record_of

pytestmark = pytest.mark.airflow


def key_of(case: Case) -> tuple[str, str]:
    """Return dag id and run id of a case's run."""
    return case.run.dag_id, case.run.run_id


def tasks_of(case: Case, monkeypatch: pytest.MonkeyPatch, step: str) -> tuple[Any, Any, str]:
    """Return how a step of a case asks and takes its answer in Airflow, and its part."""
    from include.orchestration import tasks

    in_task(monkeypatch, key_of(case), case.company.state, case.company.clock)
    monkeypatch.setattr(tasks, "_context", lambda _workflow, _services: case.context)
    for module in (decide, report):
        monkeypatch.setattr(module, "sealed_document", lambda *_: "PATH")
    human: Any = RESPOND_TO_INCIDENT.step(step)
    part = "cac" if step.startswith("report") else ""
    ask = partial(tasks.ask_people, RESPOND_TO_INCIDENT, human)
    return ask, partial(tasks.take_answer, RESPOND_TO_INCIDENT, human), part


def answer_of(case: Case, step: str, **more: Any) -> Answer:
    """Return the answer that the right person gives to the present form."""
    who, option, entered = USUAL[step]
    given = {"option": option, "user": who, "entered": entered | more}
    at, content = case.company.clock.now(), case.content(step)
    case.company.clock.on(seconds=1)
    return Answer(reason="", at=at, content=content, **given)


@pytest.mark.parametrize("step", HUMAN)
def test_step_goes_on_with_an_entered_answer_after_its_task_was_killed(
    company: Company, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The step skips the question and keeps the record that the killed task lost."""
    from include.orchestration import run

    case = before(company, step)
    ask, take, part = tasks_of(case, monkeypatch, step)
    assert ask(part) is not None
    given = answer_of(case, step)
    kept: list[Any] = []
    real = run.record_step

    def killed(conn: Any, dag_id: str, run_id: str, record: Any, clock: Any) -> None:
        if kept:
            kept.append(record)
            raise SystemExit
        kept.append(record)
        real(conn, dag_id, run_id, record, clock)

    with monkeypatch.context() as patched:
        patched.setattr(run, "record_step", killed)
        with pytest.raises(SystemExit):
            take(part, given)
    entries = len(case.entries())
    assert ask(part) is None
    assert record_of(company.state, key_of(case), step, part) == kept[1]
    assert len(case.entries()) == entries


def test_cleared_step_asks_again_after_its_answer_was_recorded(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an interrupted task goes on with the answer; a person who clears a step means it."""
    case = before(company, "contain")
    ask, take, part = tasks_of(case, monkeypatch, "contain")
    take(part, answer_of(case, "contain"))
    assert ask(part) is not None


def test_step_asks_again_after_the_entered_answer_was_corrected(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry of the killed task counts no more."""
    case = before(company, "contain")
    ask, take, part = tasks_of(case, monkeypatch, "contain")
    given = answer_of(case, "contain")
    killed_after(partial(take, part, given), task.StepAnswer, "enter")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.CONTAINED)[0].place)
    assert ask(part) is not None


def test_step_that_asks_nobody_again_leaves_no_failure(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer did not count, and the incident was cancelled before the question came again."""
    case = before(company, "contain")
    ask, take, part = tasks_of(case, monkeypatch, "contain")
    with pytest.raises(AskAgain, match="nothing says why"):
        take(part, answer_of(case, "contain", lock_device=False, notes=""))
    (finding,) = record_of(company.state, key_of(case), "contain").findings
    assert finding.code == "contain.unanswered"
    assert "nothing says why" in str(finding.message)
    case.update(Action.CANCEL, by=BOSS, words="it was found in the office")
    assert ask(part) is None
    record = record_of(company.state, key_of(case), "contain")
    assert (record.outcome, record.data) == (Outcome.PASS, {"asked": False})
