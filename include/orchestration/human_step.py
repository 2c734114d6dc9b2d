"""Human steps: tasks that ask assigned people for an answer and wait for it.

Human steps add to Airflow's human-in-the-loop operator what controls require: only the assigned
people may answer, a timeout is never an approval, and a rejection needs a reason. A step builds the
page of its required action when it asks. Only Airflow's table of required actions stores the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    TaskAwaitingInput,
)

from include.approvals.reasons import MAX_REASON_LENGTH
from include.approvals.registry import APPROVE, REJECT
from include.approvals.required_action import Answer, InvalidAnswer, RequiredAction
from include.orchestration.forms import params_of
from include.orchestration.run_trigger import SYSTEM_USERS
from include.services.clock import SystemClock
from include.services.errors import ServiceError

if TYPE_CHECKING:
    from airflow.sdk import Context

REASON = "reason"
CONTENT = "content"  # hidden field of every form: `RequiredAction.content`
DUE_AT = "due_at"  # hidden field: `RequiredAction.due_at`, which the work list reads
UNFIT = "unfit"  # error type of a command's answer that does not fit the step
# If a task starts again within a second, Airflow 3.3 treats it as killed: its scheduler is still
# checking the worker of the earlier try. On a busy machine that check takes seconds.
RESCHEDULE_DELAY = timedelta(seconds=10)


class HumanStep(HITLOperator):
    """A task that waits for a decision, such as Approve or Reject, by an assigned person.

    If ``store_answer`` raises `InvalidAnswer`, the step asks again. Then ``ask`` builds another
    required action, with the current people, text and form. A step may ask any number of times;
    this does not count as a failure and uses no retry. A cleared step asks again, too. An earlier
    attempt may have stored the decision, and may have been killed before it stored the record of
    the step. In this case, ``ask`` stores the record and returns None.

    Every form has `RequiredAction.content` in a hidden field. ``store_answer`` compares
    `Answer.content` with the current content, and raises `InvalidAnswer` if they differ. So an
    answer is valid only for the content that the person saw, even if it comes from an old browser
    window.

    Args:
        about: the part, such as a database, that the step asks about; or the result of the previous
            task, a mapping with the part under the key ``part``.
        ask: builds the required action for a part; returns None if no decision is required. Its
            docstring is the description of the task in Airflow.
        optional: whether most runs need no decision. If True, a command may omit the answer to the
            step. If an in-process run then needs a decision, the step stores an empty answer, as
            after a timeout.
        choices: possible answers. `store_answer` decides what each of them means. The first choice
            is the example in the error message about a wrong or missing `--answer`. A required
            action may have other choices, but a command can give only the choices of the step.
        form: fields of the form; by default a field for the reason. A required action may have
            another form.
        command_form: returns the form values for an answer that a command gives. Its arguments are
            the text of the answer and the time of entry.
        store_answer: stores the answer for a part. Returns ids and the outcome, which Airflow
            stores in XCom.
        response_timeout: how long the step waits. After that, ``store_answer`` receives an empty
            answer.
        is_unattended: whether no person can answer, as in an in-process run; see
            `answer_in_process`. With None, only a run of ``airflow dags test`` is unattended.
        auto_answer: submits the answer that a command gives to the required action of a task
            instance. Returns the event with which Airflow resumes the task; see
            `answer_in_process`.
        can_ask_again: whether the step asks again if `store_answer` raises `InvalidAnswer`. If
            False, the step fails.
    """

    template_fields = ("about",)

    def __init__(
        self,
        *,
        about: Any,
        ask: Callable[[str], RequiredAction | None],
        optional: bool = False,
        store_answer: Callable[[str, Answer], dict[str, Any]],
        choices: Sequence[str] = (APPROVE, REJECT),
        form: Mapping[str, Param] | None = None,
        command_form: Callable[[str, datetime], Mapping[str, Any]] | None = None,
        is_unattended: bool | None = None,
        auto_answer: Callable[[Any], Mapping[str, Any]] | None = None,
        can_ask_again: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("params", None)  # parameters of the DAG, not fields of the form
        fields = dict(form) if form is not None else {REASON: _reason_field()}
        super().__init__(
            subject="-",  # `execute` sets the subject
            options=list(choices),
            params=fields,
            **kwargs,
        )
        self._form = fields
        self.about = about
        self.ask = ask
        self.optional = optional
        self.is_unattended = is_unattended
        self.auto_answer = auto_answer
        self.can_ask_again = can_ask_again
        self.store_answer = store_answer
        self.command_form = command_form
        self.doc_md = self.doc_md or ask.__doc__

    def execute(self, context: Context) -> Any:
        """Build the required action, create it in Airflow and wait for the answer.

        The step does not wait if no decision is required, or if no person can answer.
        """
        action = self.ask(self._part)
        if action is None:
            return {"part": self._part, "asked": False}
        run = context.get("dag_run")
        if (
            self.is_unattended is None
            and getattr(run, "triggering_user_name", None) in SYSTEM_USERS
        ):
            self.log.warning(
                "`airflow dags test` cannot ask people, so this required action counts as "
                "unanswered. To answer it, use `./parcelseal run --answer TASK=OPTION`."
            )
            self.is_unattended, self.can_ask_again = True, False
        if self.is_unattended:
            return self._enter(Answer("", "", None, None))
        if not action.assigned:  # an empty list would allow every user of Airflow to answer
            raise AirflowFailException("The required action has no person who may answer it.")
        self.subject, self.body = action.subject, action.body
        self.assigned_users = [{"id": user, "name": user} for user in action.assigned]
        form = params_of(action.form) if action.form else self._form
        hidden = {CONTENT: _hidden_field(action.content)}
        if action.due_at is not None:
            due_at = action.due_at.isoformat(timespec="seconds")
            hidden[DUE_AT] = Param(due_at, type="string", const=due_at, title="Due / 截止")
        self.params = ParamsDict({**form, **hidden})
        if action.choices:
            self.options = list(action.choices)
        self._show(context)
        if self.auto_answer:
            return self._enter(answer_of(self.auto_answer(context["task_instance"])))
        raise TaskAwaitingInput(method_name="execute_complete", timeout=self.response_timeout)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Store the answer with which Airflow resumes the step.

        After a timeout, an empty answer is stored. It is never an approval.
        """
        del context
        return self._enter(answer_of(event))

    def _show(self, context: Context) -> None:
        """Create the required action as `HITLOperator` does, and check that Airflow stored it.

        Raises:
            ServiceError: Airflow still shows an earlier required action of the step.
        """
        from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        payload = CreateHITLDetailPayload(
            ti_id=context["task_instance"].id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            params=self.serialized_params,
            assigned_users=self.assigned_users,
        )
        stored = SUPERVISOR_COMMS.send(msg=payload)
        for part in ("subject", "body", "options", "assigned_users", "params"):
            if _comparable(getattr(stored, part)) != _comparable(getattr(payload, part)):
                raise ServiceError(
                    f"Airflow shows an earlier required action of this step: another {part}.",
                    "Give API server and scheduler the folder plugins as their plugins_folder, "
                    "and clear this task.",
                )

    def _enter(self, answer: Answer) -> dict[str, Any]:
        try:
            return self.store_answer(self._part, answer)
        except InvalidAnswer as again:
            reason = str(again)
        if not self.can_ask_again:
            raise AirflowFailException(
                f"The answer does not count, and this run cannot ask again. {reason}"
            )
        self.log.info("Asking again: %s", reason)
        restart_at = SystemClock().now() + RESCHEDULE_DELAY
        raise AirflowRescheduleException(restart_at)  # type: ignore[no-untyped-call]

    @property
    def _part(self) -> str:
        return str(self.about if isinstance(self.about, str) else self.about["part"])


def _comparable(part: Any) -> Any:
    """Convert an attribute of a required action to a value that can be compared.

    A form is converted to its field names and the value of the hidden field `CONTENT`. A list of
    users is converted to the ids of the users. Any other value is unchanged.

    Args:
        part: the attribute.
    """
    if isinstance(part, Sequence) and not isinstance(part, str):
        return [getattr(item, "id", item) for item in part]
    if isinstance(part, Mapping):
        return [*sorted(part), (part.get(CONTENT) or {}).get("value")]
    return part


def _hidden_field(content: str) -> Param:
    """Return the form field that stores `RequiredAction.content`.

    Airflow hides the field because it has a ``const``.

    Raises:
        AirflowFailException: the content is empty.
    """
    if not content:
        raise AirflowFailException("The form does not name the content that is decided on.")
    return Param(content, type="string", const=content, title="Content / 内容")


def human_steps(dag: Any) -> dict[str, Any]:
    """Return the human steps of a DAG, including mapped human steps: task id -> task."""
    return {
        task_id: task
        for task_id, task in dag.task_dict.items()
        if issubclass(getattr(task, "operator_class", type(task)), HITLOperator)
    }


def setting(task: Any, name: str) -> Any:
    """Return the argument with which a human step was created; None if the argument was omitted.

    Args:
        task: the human step, mapped or not.
        name: name of an argument of `HumanStep`.
    """
    if hasattr(task, "partial_kwargs"):
        return task.partial_kwargs.get(name)
    return getattr(task, "options" if name == "choices" else name, None)


def options(task: Any) -> list[str]:
    """Return the choices of a human step; a required action of the step may have other choices."""
    return [str(choice) for choice in setting(task, "choices") or (APPROVE, REJECT)]


def answer_in_process(task: Any, answer: Callable[[Any], Mapping[str, Any]] | None) -> None:
    """Prepare a human step for an in-process run, where no person can answer.

    The step stores the answer that the command gives. Without such an answer, it stores an empty
    answer, as after a timeout. If the answer is invalid, the step fails, because it cannot ask
    again.

    Args:
        task: the human step, mapped or not.
        answer: submits the answer of the command; None if the command has no answer for the step.
    """
    settings = {"is_unattended": answer is None, "auto_answer": answer, "can_ask_again": False}
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs.update(settings)
    else:
        for name, value in settings.items():
            setattr(task, name, value)


def _reason_field() -> Param:
    return Param(
        "",
        type=["null", "string"],
        maxLength=MAX_REASON_LENGTH,
        title="Reason / 理由",
        description="Required to reject; no customer data. 退回时必填，不得填写客户信息。",
    )


def answer_of(event: Mapping[str, Any]) -> Answer:
    """Return the answer in the event with which Airflow resumes a human step.

    After a timeout, the answer is empty.

    Raises:
        AirflowFailException: Airflow could not wait for the answer, or the answer that a command
            gave does not fit the form of the step.
    """
    if event.get("error_type") == UNFIT:
        raise AirflowFailException(event["error"])
    if "error" in event and event.get("error_type") != "timeout":
        raise AirflowFailException(f"Airflow could not wait for the answer: {event['error_type']}.")
    user = event.get("responded_by_user")
    choices = event.get("chosen_options") or []
    if not user or not choices or event.get("timedout"):
        return Answer("", "", None, None)
    values = dict(event.get("params_input") or {})
    content = values.pop(CONTENT, None)
    values.pop(DUE_AT, None)
    user_id, name = (
        (user["id"], user.get("name"))
        if isinstance(user, Mapping)
        else (user.id, getattr(user, "name", None))
    )
    at = event["responded_at"]
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    texts = {str(key): _as_text(value) for key, value in values.items() if value is not None}
    return Answer(
        str(choices[0]),
        texts.get(REASON, ""),
        str(user_id),
        moment,
        name,
        texts,
        values,
        content if isinstance(content, str) else "",
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
