"""Human steps: silence is no approval, and answers given in advance fit the steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
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
        "responded_by_user": {"id": "E00003", "name": "E00003"},
        "timedout": False,
    } | more


def test_an_answer_is_read_with_its_person_and_moment() -> None:
    """As Airflow hands it over when the task goes on."""
    from include.orchestration.human import answer_of

    found = answer_of(event())
    assert (found.option, found.reason, found.user, found.at) == ("Approve", "seen", "E00003", AT)


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
    subject, body, assigned = "s", "b", []  # type: ignore[var-annotated]


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
    assert found["one.sign"].reason == f"{REASON} too late: wait"
    assert found["one.review"].reason == REASON


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
