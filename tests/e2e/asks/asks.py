"""A DAG with a human step that repeats its request, a mapped human step, and a polling task."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

from include.approvals.form import Field, read_form
from include.approvals.required_action import InvalidAnswer, RequiredAction
from include.messages import verbatim
from include.orchestration.human_step import Answer, HumanStep
from include.services.clock import SystemClock

KEPT = Path(os.environ["ASKS_KEPT"])
FORM = (
    Field("words", verbatim("Words"), "long_text", required=True),
    Field("told", verbatim("Told"), "yes_no", value=True),
    Field("people", verbatim("People"), "number", value=12),
)


def keep(name: str, event: Any) -> int:
    """Append an event to a file, and return the number of events in the file.

    Args:
        name: name of the file.
        event: value that JSON can represent.
    """
    with (KEPT / name).open("a+") as file:
        file.write(json.dumps(event, default=str) + "\n")
        file.seek(0)
        return len(file.readlines())


def ask(part: str) -> RequiredAction:
    """Return the required action for a part; its texts state how often the step has asked.

    Args:
        part: name of the part that the step asks about.
    """
    time = keep(f"{part}.asked", None)
    form = (*FORM, Field("time", verbatim("Time"), "number", value=time))
    return RequiredAction(
        f"{part}, time {time}",
        f"Body {time}",
        [f"E{time}"],
        f"{part}:{time}",
        form,
        ("Done", "Not yet"),
    )


def store_answer(part: str, answer: Answer) -> dict[str, Any]:
    """Record an answer. If the answer lacks a required text, raise InvalidAnswer.

    After this error, the step asks again.

    Args:
        part: name of the part that the step asks about.
        answer: answer of a person.
    """
    form = read_form(FORM, answer.entered)
    keep(f"{part}.taken", [answer.option, answer.user, answer.entered, form.values])
    keep(f"{part}.contents", answer.content)
    if form.problems:
        raise InvalidAnswer(verbatim("incomplete"))
    return {"part": part}


def look() -> datetime:
    """Record a check of the task `watch`, and return the time of its next check: one hour later."""
    keep("looks", None)
    return SystemClock().now() + timedelta(hours=1)


@dag(dag_id="asks", schedule=None)
def asks() -> None:
    """Ask about one part until an answer is accepted, then about each of two parts."""

    @task
    def parts() -> list[dict[str, str]]:
        return [{"part": "first"}, {"part": "second"}]

    @task
    def watch() -> int:
        from include.orchestration.run_watch import watch as watching

        return watching(SystemClock(), look, timedelta(hours=1))

    choices = ("Done", "Not yet", "Never")
    human_step = HumanStep(
        task_id="one", about={"part": "one"}, ask=ask, store_answer=store_answer, choices=choices
    )
    each = HumanStep.partial(task_id="each", ask=ask, store_answer=store_answer, choices=choices)
    human_step >> each.expand(about=parts())
    watch()


asks()
