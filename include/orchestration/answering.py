"""`--answer` of `./parcelseal run`: answers that are given before the run asks.

A human step of an in-process run enters such an answer as soon as it has shown its question. It
uses the function behind Airflow's `PATCH .../hitlDetails`, in the name of a person whom it asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.approvals.reasons import COMMAND_LINE
from include.orchestration.unforeseen import value_free
from include.services.clock import SystemClock
from include.services.errors import ServiceError, UsageError

REASON = COMMAND_LINE


def _human() -> Any:
    """Import `human` late: Airflow needs its settings in the environment before its import."""
    from include.orchestration import human

    return human


def _reason(words: str, _at: datetime) -> dict[str, Any]:
    """Return the form's fields of an answer: those of a JSON object, or the words as the reason."""
    fields = json.loads(words) if words.startswith("{") else {"reason": words}
    return fields | {"reason": f"{REASON} {fields.get('reason') or ''}".strip()}


@dataclass(frozen=True)
class Given:
    """An answer that was given in advance.

    Attributes:
        option: one of the step's.
        words: that were given with it.
        fill: returns the form's fields, from the words and the moment of entry. A reason always
            begins with `REASON`: the person in whose name it is given looked at nothing, and the
            evidence has to say so.
    """

    option: str
    words: str = ""
    fill: Callable[[str, datetime], Mapping[str, Any]] = _reason


def read_answers(dag: Any, answers: Sequence[str]) -> dict[str, Given]:
    """Match ``TASK=OPTION`` or ``TASK=OPTION:REASON`` with the human steps of a DAG.

    Of a step with several fields, a JSON object may stand in place of the reason:
    ``TASK=OPTION:{"measures": "..."}``. A field that it leaves out keeps what stands in it. Which
    fields there are is known when the step asks; the run fails at one that it does not have.

    A task inside of groups may be named without them where that is clear. A step that rarely asks
    needs no answer; when it asks nevertheless, nobody answers.

    Raises:
        UsageError: no such task or option, no human step, or a step that nobody answers.
    """
    steps = _human().human_steps(dag)
    given: dict[str, Given] = {}
    for one in answers:
        name, sign, chosen = one.partition("=")
        if not sign:
            raise UsageError(f"--answer {one} is not TASK=OPTION.", _how(dag, steps))
        task_id = _task(dag, steps, name)
        option, _, words = chosen.partition(":")
        known = {one.lower(): one for one in _human().options(steps[task_id])}
        if option.lower() not in known:
            raise UsageError(
                f"{task_id} has no option {option or '(nothing)'}.",
                f"It has: {', '.join(known.values())}.",
            )
        if task_id in given:
            raise UsageError(f"--answer answers {task_id} twice.", "Answer each step once.")
        fill = _human().setting(steps[task_id], "in_advance")
        if fill is None:
            _require_fields(task_id, words)
        given[task_id] = Given(known[option.lower()], words, fill or _reason)
    optional = {one for one, task in steps.items() if _human().setting(task, "optional")}
    if left := sorted(set(steps) - set(given) - optional):
        raise UsageError(
            f"{dag.dag_id} asks people ({', '.join(left)}), and nobody would answer here.",
            f"{_how(dag, steps)} In production start it in Airflow, where people answer.",
        )
    return given


def _require_fields(task_id: str, words: str) -> None:
    if not words.startswith("{"):
        return
    try:
        json.loads(words)
    except ValueError as error:
        raise UsageError(
            f"--answer of {task_id} holds no JSON object: {error}.",
            'Write its fields as {"name": "value"}, or a reason that does not begin with a brace.',
        ) from None


def _task(dag: Any, steps: Mapping[str, Any], name: str) -> str:
    fitting = [one for one in dag.task_dict if one == name or one.rpartition(".")[2] == name]
    if len(fitting) != 1:
        raise UsageError(f"--answer names no task {name} of {dag.dag_id}.", _how(dag, steps))
    if fitting[0] not in steps:
        raise UsageError(
            f"{fitting[0]} of {dag.dag_id} is no human step: it asks nobody.", _how(dag, steps)
        )
    return str(fitting[0])


def _how(dag: Any, steps: Mapping[str, Any]) -> str:
    if not steps:
        return f"{dag.dag_id} asks nobody: leave out --answer."
    needed = [one for one, task in steps.items() if not _human().setting(task, "optional")]
    examples = [
        f"--answer {one.rpartition('.')[2]}={_human().options(steps[one])[0]}"
        for one in needed or steps
    ]
    return f"Write {' '.join(examples)}."


def give(answer: Given, task: Any) -> dict[str, Any]:
    """Answer the question of a task in this process; return the event that a task resumes with.

    Args:
        answer: to the question.
        task: Airflow's task instance, which has shown the question.

    Raises:
        ServiceError: the answer could not be entered.
    """
    try:
        return _entered(answer, task)
    except Exception as error:  # noqa: BLE001 - its words may quote the question
        raise ServiceError(f"The answer could not be entered:\n{value_free(error)}") from None


def _entered(answer: Given, task: Any) -> dict[str, Any]:
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        detail = session.scalars(select(HITLDetail).where(HITLDetail.ti_id == task.id)).one()
        filled = _filled(detail, answer)
        if filled is None:
            return _unfit(detail, answer)
        _respond(task, detail.assigned_users[0]["id"], answer.option, filled, session)
        return dict(detail.as_resume_event_payload())


def _filled(detail: Any, answer: Given) -> dict[str, Any] | None:
    """Return the filled form of a question; None if the answer does not fit the question."""
    form = {name: one["value"] for name, one in (detail.params or {}).items()}
    given = answer.fill(answer.words, SystemClock().now())
    if answer.option not in detail.options or set(given) - set(form) - {"reason"}:
        return None
    return form | dict(given)


def _unfit(detail: Any, answer: Given) -> dict[str, str]:
    """Return the event that fails the step: an answer that it cannot take."""
    fields = [name for name in detail.params or {} if name != _human().CONTENT]
    words = (
        f"The answer that was given with --answer does not fit the question. It has the choices "
        f"{', '.join(detail.options)} and the fields {', '.join(fields) or 'none'}."
    )
    return {"error": words, "error_type": _human().UNFIT}


def _respond(task: Any, user: str, option: str, form: dict[str, Any], session: Any) -> None:
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

    create_auth_manager()
    update_hitl_detail(
        dag_id=task.dag_id,
        dag_run_id=task.run_id,
        task_id=task.task_id,
        update_hitl_detail_payload=UpdateHITLDetailPayload(
            chosen_options=[option], params_input=form
        ),
        user=SimpleAuthManagerUser(username=user, role="user"),
        session=session,
        map_index=-1 if task.map_index is None else task.map_index,
    )
