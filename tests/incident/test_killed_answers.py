"""Tests of human steps whose task was killed after the answer was recorded."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from include.approvals.required_action import Answer, InvalidAnswer
from include.evidence.model import Outcome
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.steps import decision, report, task
from include.incident.workflow import RESPOND_TO_INCIDENT
from tests.incident.incident_fixtures import BOSS, LEAD, USUAL, Case, Company
from tests.incident.test_steps import HUMAN, before
from tests.support.airflow_task import in_task, killed_after, record_of

pytestmark = pytest.mark.airflow


def key_of(case: Case) -> tuple[str, str]:
    """Return DAG id and run id of an incident's run."""
    return case.run.dag_id, case.run.run_id


def tasks_of(case: Case, monkeypatch: pytest.MonkeyPatch, step: str) -> tuple[Any, Any, str]:
    """Return the functions of the Airflow tasks that ask for and record the answer of a step.

    Returns:
        The function that asks, the function that records, and the argument of both: the id of the
        authority for a report, otherwise an empty text.
    """
    from include.orchestration import tasks

    in_task(monkeypatch, key_of(case), case.company.state, case.company.clock)
    monkeypatch.setattr(tasks, "_context", lambda _workflow, _services: case.context)
    for module in (decision, report):
        monkeypatch.setattr(module, "sealed_document", lambda *_: "PATH")
    human: Any = RESPOND_TO_INCIDENT.step(step)
    part = "cac" if step.startswith("report") else ""
    ask = partial(tasks.ask_people, RESPOND_TO_INCIDENT, human)
    return ask, partial(tasks.store_answer, RESPOND_TO_INCIDENT, human), part


def answer_of(case: Case, step: str, **more: Any) -> Answer:
    """Return the usual answer to the current form of a step, by a person who may answer it.

    Args:
        case: incident.
        step: name of the step.
        more: values of form fields that differ from the usual values.
    """
    user, option, entered = USUAL[step]
    values = {"option": option, "user": user, "entered": entered | more}
    at, content = case.company.clock.now(), case.content(step)
    case.company.clock.on(seconds=1)
    return Answer(reason="", at=at, content=content, **values)


@pytest.mark.parametrize("step", HUMAN)
def test_repeated_task_does_not_ask_again_if_killed_task_had_recorded_the_answer(
    company: Company, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The step does not ask again, and stores the step record that the killed task lost."""
    from include.orchestration import run

    case = before(company, step)
    ask, take, part = tasks_of(case, monkeypatch, step)
    assert ask(part) is not None
    answer = answer_of(case, step)
    records: list[Any] = []
    real = run.record_step

    def killed(conn: Any, dag_id: str, run_id: str, record: Any, clock: Any) -> None:
        if records:
            records.append(record)
            raise SystemExit
        records.append(record)
        real(conn, dag_id, run_id, record, clock)

    with monkeypatch.context() as patched:
        patched.setattr(run, "record_step", killed)
        with pytest.raises(SystemExit):
            take(part, answer)
    entries = len(case.entries())
    assert ask(part) is None
    assert record_of(company.state, key_of(case), step, part) == records[1]
    assert len(case.entries()) == entries


def test_step_asks_again_after_its_task_was_cleared_although_answer_was_recorded(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who clears the task of a step wants a new answer.

    Only an interrupted task uses the answer that was recorded before.
    """
    case = before(company, "contain")
    ask, take, part = tasks_of(case, monkeypatch, "contain")
    take(part, answer_of(case, "contain"))
    assert ask(part) is not None


def test_step_asks_again_after_its_recorded_answer_was_corrected(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The correction declares the recorded answer to be a mistake, so the step cannot use it."""
    case = before(company, "contain")
    ask, take, part = tasks_of(case, monkeypatch, "contain")
    answer = answer_of(case, "contain")
    killed_after(partial(take, part, answer), task.StepAnswer, "record")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.CONTAINED)[0].place)
    assert ask(part) is not None


def test_finding_of_refused_answer_is_removed_if_incident_is_cancelled(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was refused, and the incident was cancelled before the step asked again."""
    case = before(company, "contain")
    ask, take, part = tasks_of(case, monkeypatch, "contain")
    with pytest.raises(InvalidAnswer, match="no reason is given"):
        take(part, answer_of(case, "contain", lock_device=False, notes=""))
    (finding,) = record_of(company.state, key_of(case), "contain").findings
    assert finding.code == "contain.unanswered"
    assert "no reason is given" in str(finding.message)
    case.update(Action.CANCEL, by=BOSS, words="it was found in the office")
    assert ask(part) is None
    record = record_of(company.state, key_of(case), "contain")
    assert (record.outcome, record.data) == (Outcome.PASS, {"asked": False})
