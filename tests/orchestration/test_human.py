"""Human steps: silence is no approval, and answers given in advance fit the steps."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.services.errors import UsageError

pytestmark = pytest.mark.airflow
AT = datetime(2026, 3, 2, 1, tzinfo=UTC)


def event(**more: Any) -> dict[str, Any]:
    return {
        "chosen_options": ["Approve"],
        "params_input": {"reason": "seen"},
        "responded_at": AT,
        "responded_by_user": {"id": "E00003", "name": "ana"},
        "timedout": False,
    } | more


def test_an_answer_is_read_with_its_person_and_moment() -> None:
    """As Airflow hands it over when the task goes on."""
    from include.orchestration.human import answer_of

    found = answer_of(event())
    assert (found.option, found.reason, found.user, found.at) == ("Approve", "seen", "E00003", AT)
    assert found.name == "ana"


def test_an_answer_carries_the_content_of_its_form_apart_from_what_was_entered() -> None:
    """Of an answer over REST that leaves it out, or sends something else there, it is empty."""
    from include.orchestration.human import answer_of

    found = answer_of(event(params_input={"reason": "seen", "content": "7:ab"}))
    entered = {"reason": "seen"}
    assert (found.content, found.entered, found.given) == ("7:ab", entered, entered)
    assert answer_of(event()).content == ""
    assert answer_of(event(params_input={"content": ["7:ab"]})).content == ""


@pytest.mark.parametrize("form", [(), ("words",)], ids=["the step's form", "its own form"])
def test_every_form_carries_its_content_in_a_hidden_field(
    form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's page hides a field that has a constant, and sends it with the answer."""
    from airflow.sdk.exceptions import TaskAwaitingInput

    from include.approvals.form import Field
    from include.approvals.question import Question
    from include.messages import verbatim
    from include.orchestration.human import HumanStep

    fields = tuple(Field(name, verbatim(name)) for name in form)
    asked = Question("s", "b", ["E1"], "7:ab", fields)
    step = HumanStep(
        task_id="ask", about={"part": "p"}, ask=lambda _: asked, take=lambda _p, _a: {}
    )
    monkeypatch.setattr(step, "_show", lambda _context: None)
    with pytest.raises(TaskAwaitingInput):
        step.execute({})  # type: ignore[arg-type]
    params = step.serialized_params
    assert set(params) == {*(form or ("reason",)), "content"}
    assert (params["content"]["value"], params["content"]["schema"]["const"]) == ("7:ab", "7:ab")


@pytest.mark.parametrize(
    "given",
    [
        event(responded_by_user=None),
        event(timedout=True),
        event(chosen_options=[]),
        {"error": "no answer", "error_type": "timeout"},
    ],
    ids=["nobody", "default on timeout", "nothing chosen", "timeout"],
)
def test_silence_is_nobodys_answer(given: dict[str, Any]) -> None:
    """Whatever option stands in the event."""
    from include.orchestration.human import answer_of

    found = answer_of(given)
    assert (found.option, found.user) == ("", None)


def test_airflows_own_failure_fails_the_task() -> None:
    """It is not taken for silence, either."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human import answer_of

    with pytest.raises(AirflowFailException):
        answer_of({"error": "x", "error_type": "validation"})


class Nobody:
    subject, body, assigned, content = "s", "b", [], "c"  # type: ignore[var-annotated]


def test_a_question_to_nobody_is_never_asked() -> None:
    """To Airflow an empty list of people means everybody."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human import HumanStep

    step = HumanStep(
        task_id="ask",
        about={"part": "p"},
        ask=lambda _: Nobody(),
        take=lambda _part, _answer: {},
        response_timeout=timedelta(hours=1),
    )
    with pytest.raises(AirflowFailException, match="Nobody may answer"):
        step.execute({})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dag() -> Any:
    """A DAG with one human step in a group and two that carry one name."""
    from airflow.sdk import DAG, TaskGroup, task

    from include.orchestration.human import HumanStep

    def step(name: str) -> None:
        HumanStep(task_id=name, about={}, ask=lambda _: Nobody(), take=lambda _p, _a: {})

    with DAG("asks", schedule=None) as made:
        with TaskGroup("one"):
            step("review")
            step("sign")
        with TaskGroup("two"):
            step("sign")

        @task
        def plain() -> None:
            """Ask nobody."""

        plain()
    return made


ALL = ["review=approve", "one.sign=Reject:too late: wait", "two.sign=Approve"]


def test_answers_find_their_steps(dag: Any) -> None:
    """By the short name where it is clear; options in any case; a reason may have a colon."""
    from include.orchestration.answering import REASON, read_answers

    found = read_answers(dag, ALL)
    assert {name: one.option for name, one in found.items()} == {
        "one.review": "Approve",
        "one.sign": "Reject",
        "two.sign": "Approve",
    }
    given = {name: one.fill(one.words, AT) for name, one in found.items()}
    assert given["one.sign"] == {"reason": f"{REASON} too late: wait"}
    assert given["one.review"] == {"reason": REASON}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], r"asks people \(one.review, one.sign, two.sign\)"),
        (ALL[:2], r"asks people \(two.sign\)"),
        (["sign=Approve"], "names no task sign"),
        (["plain=Approve"], "is no human step"),
        (["review="], "has no option"),
        (["=Approve"], "names no task"),
        ([*ALL, "one.review=Reject"], "twice"),
    ],
)
def test_answers_that_do_not_fit_are_refused(dag: Any, answers: list[str], message: str) -> None:
    """Each with what to write instead."""
    from include.orchestration.answering import read_answers

    with pytest.raises(UsageError, match=message) as caught:
        read_answers(dag, answers)
    assert caught.value.action


def rarely(asked: Any, taken: list[Any]) -> Any:
    from include.orchestration.human import HumanStep

    def take(part: str, answer: Any) -> dict[str, Any]:
        taken.append((part, answer))
        return {"part": part}

    return HumanStep(
        task_id="rarely",
        about={"part": "p"},
        ask=lambda _: asked,
        optional=True,
        take=take,
        response_timeout=timedelta(hours=1),
    )


def test_a_step_that_asks_nobody_takes_no_answer() -> None:
    """As a rule there is nothing to ask; the step ends at once, in Airflow too."""
    taken: list[Any] = []
    step = rarely(None, taken)
    assert step.execute({}) == {"part": "p", "asked": False}
    assert taken == []


def test_where_nobody_can_answer_an_optional_question_is_unanswered() -> None:
    """It never waits, and is taken as silence: by nobody, no option, no moment."""
    from include.approvals.question import Answer

    taken: list[Any] = []
    step = rarely(Nobody(), taken)
    step.unattended = True
    assert step.execute({}) == {"part": "p"}
    assert taken == [("p", Answer("", "", None, None))]


@pytest.mark.parametrize(
    ("user", "is_asked"), [("dag_test", False), ("E00003", True), (None, True)]
)
def test_airflow_dags_test_asks_nobody(user: str | None, *, is_asked: bool) -> None:
    """Its question counts as unanswered at once; a run of Airflow waits for people."""
    from airflow.sdk.exceptions import AirflowFailException

    taken: list[Any] = []
    context: Any = {"dag_run": SimpleNamespace(triggering_user_name=user)}
    step = rarely(Nobody(), taken)
    if is_asked:
        with pytest.raises(AirflowFailException, match="Nobody may answer"):
            step.execute(context)
    else:
        assert step.execute(context) == {"part": "p"}
    assert bool(taken) != is_asked


def test_a_question_of_an_optional_step_is_asked_where_people_are() -> None:
    """Optional means that no answer is needed in advance, not that the question is dropped."""
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="Nobody may answer"):
        rarely(Nobody(), []).execute({})


@pytest.fixture(scope="module")
def optional_dag() -> Any:
    """A DAG whose only human step rarely asks."""
    from airflow.sdk import DAG

    with DAG("rarely_asks", schedule=None) as made:
        rarely(None, [])
    return made


def test_an_optional_step_needs_no_answer_and_takes_one(optional_dag: Any) -> None:
    """A wrong one is refused as of any other step."""
    from include.orchestration.answering import read_answers

    assert read_answers(optional_dag, []) == {}
    assert read_answers(optional_dag, ["rarely=approve"])["rarely"].option == "Approve"
    with pytest.raises(UsageError, match="has no option Maybe"):
        read_answers(optional_dag, ["rarely=Maybe"])


DAG_FILE = """
from airflow.sdk import DAG
from include.orchestration.human import HumanStep

with DAG("rarely_asks", schedule=None):
    for name in ("first", "second"):
        HumanStep(
            task_id=name,
            about={"part": name},
            ask=lambda _: None,
            optional=True,
            take=lambda _part, _answer: {},
        )
"""


def test_only_steps_without_an_answer_are_unattended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `run` prepares them: one is answered, of the other nobody is waited for."""
    from include.orchestration.inprocess import prepare

    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "rarely_asks.py").write_text(DAG_FILE)
    prepared = prepare(tmp_path, "rarely_asks", {}, ["first=Approve"])
    steps = prepared.dag.task_dict
    assert {name: one.unattended for name, one in steps.items()} == {
        "first": False,
        "second": True,
    }
