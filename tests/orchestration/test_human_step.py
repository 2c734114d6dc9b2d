"""Human steps: a timeout is never an approval, and command answers must fit the step."""

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


def test_answer_read_from_airflow_event_contains_option_reason_person_and_time() -> None:
    from include.orchestration.human_step import answer_of

    answer = answer_of(event())
    assert (answer.option, answer.reason, answer.user, answer.at) == (
        "Approve",
        "seen",
        "E00003",
        AT,
    )
    assert answer.name == "ana"


def test_hidden_content_field_is_not_among_the_entered_values_of_an_answer() -> None:
    """The content is empty if a REST request omits it or sends a value of another type."""
    from include.orchestration.human_step import answer_of

    answer = answer_of(event(params_input={"reason": "seen", "content": "7:ab"}))
    entered = {"reason": "seen"}
    assert (answer.content, answer.entered, answer.texts) == ("7:ab", entered, entered)
    assert answer_of(event()).content == ""
    assert answer_of(event(params_input={"content": ["7:ab"]})).content == ""


@pytest.mark.parametrize("form", [(), ("words",)], ids=["the step's form", "its own form"])
def test_form_of_required_action_has_a_hidden_field_with_the_content_to_decide_on(
    form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow hides a field with a constant value, and sends the value with the answer."""
    from airflow.sdk.exceptions import TaskAwaitingInput

    from include.approvals.form import Field
    from include.approvals.required_action import RequiredAction
    from include.messages import verbatim
    from include.orchestration.human_step import HumanStep

    fields = tuple(Field(name, verbatim(name)) for name in form)
    action = RequiredAction("s", "b", ["E1"], "7:ab", fields)
    step = HumanStep(
        task_id="ask", about={"part": "p"}, ask=lambda _: action, store_answer=lambda _p, _a: {}
    )
    monkeypatch.setattr(step, "_show", lambda _context: None)
    with pytest.raises(TaskAwaitingInput):
        step.execute({})  # type: ignore[arg-type]
    params = step.serialized_params
    assert set(params) == {*(form or ("reason",)), "content"}
    assert (params["content"]["value"], params["content"]["schema"]["const"]) == ("7:ab", "7:ab")


@pytest.mark.parametrize(
    "timeout_event",
    [
        event(responded_by_user=None),
        event(timedout=True),
        event(chosen_options=[]),
        {"error": "no answer", "error_type": "timeout"},
    ],
    ids=["nobody", "default on timeout", "nothing chosen", "timeout"],
)
def test_answer_after_timeout_has_no_person_and_no_option(timeout_event: dict[str, Any]) -> None:
    from include.orchestration.human_step import answer_of

    answer = answer_of(timeout_event)
    assert (answer.option, answer.user) == ("", None)


def test_task_fails_if_the_airflow_event_contains_an_error_in_place_of_an_answer() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human_step import answer_of

    with pytest.raises(AirflowFailException):
        answer_of({"error": "x", "error_type": "validation"})


class UnassignedAction:
    subject, body, assigned, content = "s", "b", [], "c"  # type: ignore[var-annotated]


def test_task_fails_if_its_required_action_has_no_assigned_people() -> None:
    """In Airflow, an empty list of assigned people would let every user answer."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human_step import HumanStep

    step = HumanStep(
        task_id="ask",
        about={"part": "p"},
        ask=lambda _: UnassignedAction(),
        store_answer=lambda _part, _answer: {},
        response_timeout=timedelta(hours=1),
    )
    with pytest.raises(AirflowFailException, match="has no person who may answer"):
        step.execute({})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dag() -> Any:
    """Return a DAG with human steps in task groups, two of which have the same short name."""
    from airflow.sdk import DAG, TaskGroup, task

    from include.orchestration.human_step import HumanStep

    def step(name: str) -> None:
        HumanStep(
            task_id=name, about={}, ask=lambda _: UnassignedAction(), store_answer=lambda _p, _a: {}
        )

    with DAG("asks", schedule=None) as dag_:
        with TaskGroup("one"):
            step("review")
            step("sign")
        with TaskGroup("two"):
            step("sign")

        @task
        def plain() -> None:
            """Ask nobody."""

        plain()
    return dag_


ALL = ["review=approve", "one.sign=Reject:too late: wait", "two.sign=Approve"]


def test_read_answers_accepts_short_task_names_and_options_in_any_case(dag: Any) -> None:
    """A reason may contain a colon."""
    from include.orchestration.auto_answer import REASON, read_answers

    answers = read_answers(dag, ALL)
    assert {name: answer.option for name, answer in answers.items()} == {
        "one.review": "Approve",
        "one.sign": "Reject",
        "two.sign": "Approve",
    }
    forms = {name: answer.fill(answer.text, AT) for name, answer in answers.items()}
    assert forms["one.sign"] == {"reason": f"{REASON} too late: wait"}
    assert forms["one.review"] == {"reason": REASON}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "required actions without an answer: one.review, one.sign, two.sign"),
        (ALL[:2], "required actions without an answer: two.sign"),
        (["sign=Approve"], "names no task sign"),
        (["plain=Approve"], "is not a human step"),
        (["review="], "has no option"),
        (["=Approve"], "names no task"),
        ([*ALL, "one.review=Reject"], "twice"),
    ],
)
def test_read_answers_raises_usage_error_for_missing_unknown_or_duplicate_answers(
    dag: Any, answers: list[str], message: str
) -> None:
    from include.orchestration.auto_answer import read_answers

    with pytest.raises(UsageError, match=message) as caught:
        read_answers(dag, answers)
    assert caught.value.action


def optional_step(action: Any, answers_taken: list[Any]) -> Any:
    from include.orchestration.human_step import HumanStep

    def store_answer(part: str, answer: Any) -> dict[str, Any]:
        answers_taken.append((part, answer))
        return {"part": part}

    return HumanStep(
        task_id="rarely",
        about={"part": "p"},
        ask=lambda _: action,
        optional=True,
        store_answer=store_answer,
        response_timeout=timedelta(hours=1),
    )


def test_human_step_ends_at_once_if_no_required_action_is_necessary() -> None:
    answers_taken: list[Any] = []
    step = optional_step(None, answers_taken)
    assert step.execute({}) == {"part": "p", "asked": False}
    assert answers_taken == []


def test_optional_human_step_stores_an_empty_answer_in_an_unattended_run() -> None:
    from include.approvals.required_action import Answer

    answers_taken: list[Any] = []
    step = optional_step(UnassignedAction(), answers_taken)
    step.is_unattended = True
    assert step.execute({}) == {"part": "p"}
    assert answers_taken == [("p", Answer("", "", None, None))]


@pytest.mark.parametrize(
    ("user", "is_asked"), [("dag_test", False), ("E00003", True), (None, True)]
)
def test_human_step_does_not_wait_for_an_answer_in_a_run_of_the_command_airflow_dags_test(
    user: str | None, *, is_asked: bool
) -> None:
    """In a run of Airflow's scheduler, the step waits for people."""
    from airflow.sdk.exceptions import AirflowFailException

    answers_taken: list[Any] = []
    context: Any = {"dag_run": SimpleNamespace(triggering_user_name=user)}
    step = optional_step(UnassignedAction(), answers_taken)
    if is_asked:
        with pytest.raises(AirflowFailException, match="has no person who may answer"):
            step.execute(context)
    else:
        assert step.execute(context) == {"part": "p"}
    assert bool(answers_taken) != is_asked


def test_optional_human_step_fails_in_an_attended_run_if_nobody_may_answer() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="has no person who may answer"):
        optional_step(UnassignedAction(), []).execute({})


@pytest.fixture(scope="module")
def optional_dag() -> Any:
    """Return a DAG whose only human step asks in few runs."""
    from airflow.sdk import DAG

    with DAG("rarely_asks", schedule=None) as dag_:
        optional_step(None, [])
    return dag_


def test_read_answers_accepts_optional_step_with_or_without_answer(optional_dag: Any) -> None:
    from include.orchestration.auto_answer import read_answers

    assert read_answers(optional_dag, []) == {}
    assert read_answers(optional_dag, ["rarely=approve"])["rarely"].option == "Approve"
    with pytest.raises(UsageError, match="has no option Maybe"):
        read_answers(optional_dag, ["rarely=Maybe"])


DAG_FILE = """
from airflow.sdk import DAG
from include.orchestration.human_step import HumanStep

with DAG("rarely_asks", schedule=None):
    for name in ("first", "second"):
        HumanStep(
            task_id=name,
            about={"part": name},
            ask=lambda _: None,
            optional=True,
            store_answer=lambda _part, _answer: {},
        )
"""


def test_prepare_marks_only_human_steps_without_a_given_answer_as_unattended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.in_process_run import prepare

    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "rarely_asks.py").write_text(DAG_FILE)
    prepared = prepare(tmp_path, "rarely_asks", {}, ["first=Approve"])
    steps = prepared.dag.task_dict
    assert {name: step.is_unattended for name, step in steps.items()} == {
        "first": False,
        "second": True,
    }
