"""An answer that does not count is asked for again; mapped steps are steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.approvals.question import AskAgain
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
    raise AskAgain(verbatim("nobody" if answer.user is None else "incomplete"))


def refusing() -> Any:
    from include.orchestration.human import HumanStep

    return HumanStep(task_id="ask", about={"part": "p"}, ask=lambda _: None, take=refuse)


@pytest.mark.parametrize("event", [EVENT, SILENCE], ids=["refused", "silence"])
def test_who_takes_an_answer_may_have_it_asked_for_again(event: dict[str, Any]) -> None:
    """It is no failure and costs no retry; the task is on again after a moment."""
    from airflow.sdk.exceptions import AirflowRescheduleException

    from include.orchestration.human import AGAIN_AFTER
    from include.services.clock import SystemClock

    before = SystemClock().now()
    with pytest.raises(AirflowRescheduleException) as caught:
        refusing().execute_complete({}, event)
    assert timedelta(0) <= caught.value.reschedule_date - before - AGAIN_AFTER < timedelta(5)


def test_an_answer_given_with_the_command_is_not_asked_for_again() -> None:
    """It would be the same again, for ever; the run fails and says why."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.human import attend

    step = refusing()
    attend(step, lambda _task: EVENT)
    with pytest.raises(AirflowFailException, match="incomplete"):
        step.execute_complete({}, EVENT)


def test_an_answer_is_handed_on_as_text_and_as_it_came() -> None:
    """Nothing that was left empty stands among the texts."""
    from include.orchestration.human import answer_of

    found = answer_of(EVENT)
    assert found.entered == EVENT["params_input"]
    assert found.given == {"told": "true", "done": '["a"]', "people": "3", "words": "x"}


DAG_FILE = """
from airflow.sdk import DAG
from include.orchestration.human import HumanStep

def in_advance(words, at):
    return {"reason": words}

with DAG("asks_each", schedule=None):
    HumanStep.partial(
        task_id="each",
        ask=lambda _: None,
        take=lambda _part, _answer: {},
        choices=("Sent", "Not yet"),
        in_advance=in_advance,
    ).expand(about=[{"part": "a"}, {"part": "b"}])
    HumanStep.partial(
        task_id="rarely", ask=lambda _: None, take=lambda _part, _answer: {}, optional=True
    ).expand(about=[{"part": "a"}])
"""


def test_a_mapped_step_is_prepared_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs an answer, has its own choices, and each of its instances knows who attends."""
    from include.orchestration.inprocess import prepare
    from include.services.errors import UsageError

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "asks_each.py").write_text(DAG_FILE)
    with pytest.raises(UsageError, match=r"asks people \(each\)") as caught:
        prepare(tmp_path, "asks_each", {}, [])
    assert "--answer each=Sent" in caught.value.action
    with pytest.raises(UsageError, match="each has no option Approve"):
        prepare(tmp_path, "asks_each", {}, ["each=Approve"])
    prepared = prepare(tmp_path, "asks_each", {}, ["each=not yet:w"])
    each, rarely = (prepared.dag.task_dict[name].partial_kwargs for name in ("each", "rarely"))
    (answer,) = each["answer_ahead"].args
    assert (answer.option, answer.fill("w", EVENT["responded_at"])) == ("Not yet", {"reason": "w"})
    assert (each["unattended"], each["asks_again"]) == (False, False)
    settings = (rarely["unattended"], rarely["answer_ahead"], rarely["asks_again"])
    assert settings == (True, None, False)
