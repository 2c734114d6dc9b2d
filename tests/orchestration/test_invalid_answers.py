"""Human steps ask again if an answer is not valid, and mapped human steps do so too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.approvals.required_action import InvalidAnswer
from include.messages import verbatim

pytestmark = pytest.mark.airflow
EVENT = {
    "chosen_options": ["Reject"],
    "params_input": {"told": True, "done": ["a"], "people": 3, "words": "x", "empty": None},
    "responded_at": datetime(2026, 3, 2, 1, tzinfo=UTC),
    "responded_by_user": {"id": "E00003", "name": "ana"},
    "timedout": False,
}
SILENCE = {"error": "no answer", "error_type": "timeout"}


def refuse(_part: str, answer: Any) -> dict[str, Any]:
    raise InvalidAnswer(verbatim("nobody" if answer.user is None else "incomplete"))


def refusing() -> Any:
    from include.orchestration.human_step import HumanStep

    return HumanStep(task_id="ask", about={"part": "p"}, ask=lambda _: None, store_answer=refuse)


@pytest.mark.parametrize("event", [EVENT, SILENCE], ids=["refused", "silence"])
def test_human_task_is_rescheduled_after_an_invalid_answer(event: dict[str, Any]) -> None:
    """The task does not fail and uses no retry."""
    from airflow.sdk.exceptions import AirflowRescheduleException

    from include.orchestration.human_step import RESCHEDULE_DELAY
    from include.services.clock import SystemClock

    before = SystemClock().now()
    with pytest.raises(AirflowRescheduleException) as caught:
        refusing().execute_complete({}, event)
    assert timedelta(0) <= caught.value.reschedule_date - before - RESCHEDULE_DELAY < timedelta(5)


def test_human_step_fails_if_the_answer_on_the_command_line_is_invalid() -> None:
    """The command would give the same answer again and again."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human_step import answer_in_process

    step = refusing()
    answer_in_process(step, lambda _task: EVENT)
    with pytest.raises(AirflowFailException, match="incomplete"):
        step.execute_complete({}, EVENT)


def test_answer_contains_form_values_in_their_original_type_and_as_text() -> None:
    from include.orchestration.human_step import answer_of

    answer = answer_of(EVENT)
    assert answer.entered == EVENT["params_input"]
    assert answer.texts == {"told": "true", "done": '["a"]', "people": "3", "words": "x"}


DAG_FILE = """
from airflow.sdk import DAG
from include.orchestration.human_step import HumanStep

def command_form(words, at):
    return {"reason": words}

with DAG("asks_each", schedule=None):
    HumanStep.partial(
        task_id="each",
        ask=lambda _: None,
        store_answer=lambda _part, _answer: {},
        choices=("Sent", "Not yet"),
        command_form=command_form,
    ).expand(about=[{"part": "a"}, {"part": "b"}])
    HumanStep.partial(
        task_id="rarely", ask=lambda _: None, store_answer=lambda _part, _answer: {}, optional=True
    ).expand(about=[{"part": "a"}])
"""


def test_prepare_assigns_answers_on_the_command_line_to_mapped_human_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.in_process_run import prepare
    from include.services.errors import UsageError

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "asks_each.py").write_text(DAG_FILE)
    with pytest.raises(UsageError, match="required actions without an answer: each") as caught:
        prepare(tmp_path, "asks_each", {}, [])
    assert "--answer each=Sent" in caught.value.action
    with pytest.raises(UsageError, match="each has no option Approve"):
        prepare(tmp_path, "asks_each", {}, ["each=Approve"])
    prepared = prepare(tmp_path, "asks_each", {}, ["each=not yet:w"])
    each, rarely = (prepared.dag.task_dict[name].partial_kwargs for name in ("each", "rarely"))
    (answer,) = each["auto_answer"].args
    assert (answer.option, answer.fill("w", EVENT["responded_at"])) == ("Not yet", {"reason": "w"})
    assert (each["is_unattended"], each["can_ask_again"]) == (False, False)
    settings = (rarely["is_unattended"], rarely["auto_answer"], rarely["can_ask_again"])
    assert settings == (True, None, False)
