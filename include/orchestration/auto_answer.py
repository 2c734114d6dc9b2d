"""Answer human steps with the option `--answer` of the command `./parcelseal run`.

The answer is entered as soon as Airflow shows the required action of a human step in an in-process
run. It is entered with the function behind Airflow's `PATCH .../hitlDetails`, in the name of a
person who is assigned to the required action.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.approvals.reasons import COMMAND_LINE
from include.orchestration.redacted_errors import redact_traceback
from include.services.clock import SystemClock
from include.services.errors import ServiceError, UsageError

REASON = COMMAND_LINE


def _human_step() -> Any:
    """Import the module `human_step` and return it.

    The import must not happen before Airflow's settings have been set.
    """
    from include.orchestration import human_step

    return human_step


def _reason_form(text: str, _at: datetime) -> dict[str, Any]:
    """Convert the text of an answer to form values.

    A text that begins with ``{`` is a JSON object of fields. Any other text is the reason.
    """
    fields = json.loads(text) if text.startswith("{") else {"reason": text}
    return fields | {"reason": f"{REASON} {fields.get('reason') or ''}".strip()}


@dataclass(frozen=True)
class SubmittedAnswer:
    """An answer to a human step, given on the command line.

    Attributes:
        option: the chosen option of the step.
        text: the reason or the form values, as typed on the command line.
        fill: returns the form values. Its arguments are the text and the time of entry. One of
            these values states that a command entered the answer. The evidence thus shows that the
            person in whose name the answer is entered has not seen the required action.
    """

    option: str
    text: str = ""
    fill: Callable[[str, datetime], Mapping[str, Any]] = _reason_form


def read_answers(dag: Any, answers: Sequence[str]) -> dict[str, SubmittedAnswer]:
    """Parse answers ``TASK=OPTION`` or ``TASK=OPTION:REASON`` to the human steps of a DAG.

    If the form of a step has several fields, the reason may be a JSON object of fields:
    ``TASK=OPTION:{"measures": "..."}``. A field that is not in the object keeps its default. The
    form is built only when the step asks people. Therefore an unknown field is not detected here,
    but makes the run fail at that step.

    A task in task groups may be named without the groups if the name is unique. A step that asks
    people only in some runs needs no answer. If such a step does ask, it continues as if its time
    limit had passed without an answer.

    Raises:
        UsageError: a task, human step or option does not exist, or a step that asks in every run
            has no answer.
    """
    steps = _human_step().human_steps(dag)
    submitted: dict[str, SubmittedAnswer] = {}
    for answer in answers:
        name, separator, choice = answer.partition("=")
        if not separator:
            raise UsageError(f"--answer {answer} is not TASK=OPTION.", _advice(dag, steps))
        task_id = _task_id(dag, steps, name)
        option, _, text = choice.partition(":")
        options = {option.lower(): option for option in _human_step().options(steps[task_id])}
        if option.lower() not in options:
            raise UsageError(
                f"{task_id} has no option {option or '(nothing)'}.",
                f"It has: {', '.join(options.values())}.",
            )
        if task_id in submitted:
            raise UsageError(f"--answer answers {task_id} twice.", "Answer each step once.")
        fill = _human_step().setting(steps[task_id], "command_form")
        if fill is None:
            _require_valid_json(task_id, text)
        submitted[task_id] = SubmittedAnswer(options[option.lower()], text, fill or _reason_form)
    optional = {name for name, task in steps.items() if _human_step().setting(task, "optional")}
    if unanswered := sorted(set(steps) - set(submitted) - optional):
        raise UsageError(
            f"{dag.dag_id} has required actions without an answer: {', '.join(unanswered)}.",
            f"{_advice(dag, steps)} In production start it in Airflow, where people answer.",
        )
    return submitted


def _require_valid_json(task_id: str, text: str) -> None:
    if not text.startswith("{"):
        return
    try:
        json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--answer of {task_id} is not a JSON object: {error}.",
            'Write its fields as {"name": "value"}, or a reason that does not begin with a brace.',
        ) from None


def _task_id(dag: Any, steps: Mapping[str, Any], name: str) -> str:
    matches = [task for task in dag.task_dict if task == name or task.rpartition(".")[2] == name]
    if len(matches) != 1:
        raise UsageError(f"--answer names no task {name} of {dag.dag_id}.", _advice(dag, steps))
    if matches[0] not in steps:
        raise UsageError(
            f"{matches[0]} of {dag.dag_id} is not a human step: it has no required action.",
            _advice(dag, steps),
        )
    return str(matches[0])


def _advice(dag: Any, steps: Mapping[str, Any]) -> str:
    if not steps:
        return f"{dag.dag_id} has no required actions: leave out --answer."
    required = [name for name, task in steps.items() if not _human_step().setting(task, "optional")]
    examples = [
        f"--answer {name.rpartition('.')[2]}={_human_step().options(steps[name])[0]}"
        for name in required or steps
    ]
    return f"Write {' '.join(examples)}."


def submit_answer(answer: SubmittedAnswer, task: Any) -> dict[str, Any]:
    """Enter an answer to the required action of a task that runs in this process.

    Args:
        answer: the answer to the required action.
        task: Airflow's task instance, whose required action is already stored.

    Returns:
        The event with which Airflow resumes the task.

    Raises:
        ServiceError: the answer could not be entered.
    """
    try:
        return _enter(answer, task)
    except Exception as error:  # noqa: BLE001 - its text may quote the request
        raise ServiceError(f"The answer could not be entered:\n{redact_traceback(error)}") from None


def _enter(answer: SubmittedAnswer, task: Any) -> dict[str, Any]:
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        detail = session.scalars(select(HITLDetail).where(HITLDetail.ti_id == task.id)).one()
        form = _fill_form(detail, answer)
        if form is None:
            return _unfit_event(detail)
        _respond(task, detail.assigned_users[0]["id"], answer.option, form, session)
        return dict(detail.as_resume_event_payload())


def _fill_form(detail: Any, answer: SubmittedAnswer) -> dict[str, Any] | None:
    """Return the form values of an answer, or None if the answer does not fit the required action.

    An answer does not fit if its option is not offered, or if it fills in a field that the form
    lacks. The field ``reason`` is allowed even if the form lacks it.

    Args:
        detail: Airflow's database object of the required action (`HITLDetail`).
        answer: the answer that a command gives.
    """
    form = {name: param["value"] for name, param in (detail.params or {}).items()}
    values = answer.fill(answer.text, SystemClock().now())
    if answer.option not in detail.options or set(values) - set(form) - {"reason"}:
        return None
    return form | dict(values)


def _unfit_event(detail: Any) -> dict[str, str]:
    """Return the trigger event that makes a step fail because the answer does not match its form.

    Args:
        detail: Airflow's database object of the required action (`HITLDetail`), which has the form.
    """
    fields = [name for name in detail.params or {} if name != _human_step().CONTENT]
    message = (
        f"The answer that was given with --answer does not fit the step. It has the choices "
        f"{', '.join(detail.options)} and the fields {', '.join(fields) or 'none'}."
    )
    return {"error": message, "error_type": _human_step().UNFIT}


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
