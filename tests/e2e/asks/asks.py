"""A DAG that asks again, asks each of several, and is watched; run on the end-to-end home."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

from include.approvals.form import Field, read_form
from include.approvals.question import AskAgain, Question
from include.messages import verbatim
from include.orchestration.human import Answer, HumanStep
from include.services.clock import SystemClock

KEPT = Path(os.environ["ASKS_KEPT"])
FORM = (
    Field("words", verbatim("Words"), "long_text", required=True),
    Field("told", verbatim("Told"), "yes_no", value=True),
    Field("people", verbatim("People"), "number", value=12),
)


def keep(name: str, what: Any) -> int:
    """Keep what happened; returns how often it did."""
    with (KEPT / name).open("a+") as file:
        file.write(json.dumps(what, default=str) + "\n")
        file.seek(0)
        return len(file.readlines())


def ask(part: str) -> Question:
    """Ask until somebody says something."""
    time = keep(f"{part}.asked", None)
    form = (*FORM, Field("time", verbatim("Time"), "number", value=time))
    return Question(
        f"{part}, time {time}",
        f"Body {time}",
        [f"E{time}"],
        f"{part}:{time}",
        form,
        ("Done", "Not yet"),
    )


def take(part: str, answer: Answer) -> dict[str, Any]:
    """Take an answer that has words."""
    found = read_form(FORM, answer.entered)
    keep(f"{part}.taken", [answer.option, answer.user, answer.entered, found.values])
    keep(f"{part}.contents", answer.content)
    if found.problems:
        raise AskAgain(verbatim("incomplete"))
    return {"part": part}


def look() -> datetime:
    """Look, and say that something happens in an hour."""
    keep("looks", None)
    return SystemClock().now() + timedelta(hours=1)


@dag(dag_id="asks", schedule=None)
def asks() -> None:
    """Ask one until it counts, and each of two."""

    @task
    def parts() -> list[dict[str, str]]:
        return [{"part": "first"}, {"part": "second"}]

    @task
    def watch() -> int:
        from include.orchestration.watching import watch as watching

        return watching(SystemClock(), look, timedelta(hours=1))

    choices = ("Done", "Not yet", "Never")
    one = HumanStep(task_id="one", about={"part": "one"}, ask=ask, take=take, choices=choices)
    each = HumanStep.partial(task_id="each", ask=ask, take=take, choices=choices)
    one >> each.expand(about=parts())
    watch()


asks()
