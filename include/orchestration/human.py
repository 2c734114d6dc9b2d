"""Human steps: tasks that ask entitled people a question and store the answer in `state`.

They extend Airflow's human-in-the-loop operator as a control requires: only named people may
answer, a timeout is never an approval, and a rejection needs a reason. The step builds its page
when it asks; only Airflow's table of questions stores the page.
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

from include.approvals.question import Answer, AskAgain, Question
from include.approvals.reasons import LONGEST_REASON
from include.approvals.registry import APPROVE, REJECT
from include.orchestration.forms import params_of
from include.orchestration.starter import NOT_PEOPLE
from include.services.clock import SystemClock
from include.services.errors import ServiceError

if TYPE_CHECKING:
    from airflow.sdk import Context

REASON = "reason"
CONTENT = "content"  # hidden field of every form: `Question.content`
UNFIT = "unfit"  # error type of an answer given in advance that does not fit the question
# A task that is on again within the second meets the scheduler's look at the worker that ended it:
# Airflow 3.3 takes it for killed. A busy machine is slow to look.
AGAIN_AFTER = timedelta(seconds=10)


class HumanStep(HITLOperator):
    """Approve or Reject, or another choice, by one of the people that the question names.

    Where ``take`` raises `AskAgain`, the step asks anew: ``ask`` makes the question again, with the
    people, the words and the form of then. It may do so without end; it is no failure and no retry.
    So does a step that somebody clears. ``ask`` returns None where the content was decided on by a
    try that was killed afterwards, and keeps the record that this try lost.

    Every form carries `Question.content` in a hidden field. ``take`` compares `Answer.content` with
    what the decision would be on now, and raises `AskAgain` where they differ: an answer counts
    only for what the person saw, in whichever browser window that was.

    Args:
        about: the part that is asked about, or what the task before returned, with its ``part``.
        ask: makes the question for a part, or None where nobody has to be asked; its docstring is
            the task's description.
        optional: whether runs as a rule ask nobody. An in-process run then needs no answer given in
            advance, and a question that comes nevertheless counts as unanswered.
        choices: what may be answered; the first one is what lets the run go on. A question may have
            its own; with the command only the step's can be given.
        form: what else is entered, beside or in place of a reason; a question may have its own.
        in_advance: what the form holds when the answer was given with the command, from its words
            and the moment at which it is entered.
        take: takes the answer for a part; what it returns goes into XCom: ids and the outcome.
        response_timeout: how long the step waits. Then ``take`` is told that nobody answered.
        unattended: whether nobody can answer, as in an in-process run; see `attend`. None: decide
            by the run, since nobody can answer only in a run of ``airflow dags test``.
        answer_ahead: enters the answer that was given with the command, for the task instance, and
            returns Airflow's event of it; see `attend`.
        asks_again: whether the step asks anew where `take` raises `AskAgain`; else it fails.
    """

    template_fields = ("about",)

    def __init__(
        self,
        *,
        about: Any,
        ask: Callable[[str], Question | None],
        optional: bool = False,
        take: Callable[[str, Answer], dict[str, Any]],
        choices: Sequence[str] = (APPROVE, REJECT),
        form: Mapping[str, Param] | None = None,
        in_advance: Callable[[str, datetime], Mapping[str, Any]] | None = None,
        unattended: bool | None = None,
        answer_ahead: Callable[[Any], Mapping[str, Any]] | None = None,
        asks_again: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("params", None)  # the DAG's own; the form asks for a reason only
        own = dict(form) if form is not None else {REASON: _reason()}
        super().__init__(
            subject="-",  # made when the question is asked
            options=list(choices),
            params=own,
            **kwargs,
        )
        self._form = own
        self.about = about
        self.ask = ask
        self.optional = optional
        self.unattended = unattended
        self.answer_ahead = answer_ahead
        self.asks_again = asks_again
        self.take = take
        self.in_advance = in_advance
        self.doc_md = self.doc_md or ask.__doc__

    def execute(self, context: Context) -> Any:
        """Make the question, show it and wait."""
        question = self.ask(self._part)
        if question is None:
            return {"part": self._part, "asked": False}
        run = context.get("dag_run")
        if self.unattended is None and getattr(run, "triggering_user_name", None) in NOT_PEOPLE:
            self.log.warning(
                "`airflow dags test` asks nobody: this question counts as unanswered. "
                "`./parcelseal run --answer TASK=OPTION` answers it; in Airflow people do."
            )
            self.unattended, self.asks_again = True, False
        if self.unattended:
            return self._take(Answer("", "", None, None))
        if not question.assigned:  # to Airflow an empty list means everybody
            raise AirflowFailException("Nobody may answer this question.")
        self.subject, self.body = question.subject, question.body
        self.assigned_users = [{"id": one, "name": one} for one in question.assigned]
        form = params_of(question.form) if question.form else self._form
        self.params = ParamsDict({**form, CONTENT: _hidden(question.content)})
        if question.choices:
            self.options = list(question.choices)
        self._show(context)
        if self.answer_ahead:
            return self._take(answer_of(self.answer_ahead(context["task_instance"])))
        raise TaskAwaitingInput(method_name="execute_complete", timeout=self.response_timeout)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the answer; that nobody answered is an answer too, and never an approval."""
        del context
        return self._take(answer_of(event))

    def _show(self, context: Context) -> None:
        """Put the question before people, as `HITLOperator` does, and look at what they see."""
        from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        wanted = CreateHITLDetailPayload(
            ti_id=context["task_instance"].id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            params=self.serialized_params,
            assigned_users=self.assigned_users,
        )
        shown = SUPERVISOR_COMMS.send(msg=wanted)
        for part in ("subject", "body", "options", "assigned_users", "params"):
            if _plain(getattr(shown, part)) != _plain(getattr(wanted, part)):
                raise ServiceError(
                    f"Airflow shows an earlier question of this step: another {part}.",
                    "Give API server and scheduler the folder plugins as their plugins_folder, "
                    "and clear this task.",
                )

    def _take(self, answer: Answer) -> dict[str, Any]:
        try:
            return self.take(self._part, answer)
        except AskAgain as again:
            words = str(again)
        if not self.asks_again:
            raise AirflowFailException(f"Nobody can be asked again here. {words}")
        self.log.info("Asking again: %s", words)
        then = SystemClock().now() + AGAIN_AFTER
        raise AirflowRescheduleException(then)  # type: ignore[no-untyped-call]

    @property
    def _part(self) -> str:
        return str(self.about if isinstance(self.about, str) else self.about["part"])


def _plain(shown: Any) -> Any:
    """Return a part of a question as it goes over the wire; of a form, its fields and content."""
    if isinstance(shown, Sequence) and not isinstance(shown, str):
        return [getattr(one, "id", one) for one in shown]
    if isinstance(shown, Mapping):
        return [*sorted(shown), (shown.get(CONTENT) or {}).get("value")]
    return shown


def _hidden(content: str) -> Param:
    """Return the field that carries the content; Airflow hides one that has a ``const``."""
    if not content:
        raise AirflowFailException("The form does not name the content that is decided on.")
    return Param(content, type="string", const=content, title="Content / 内容")


def human_steps(dag: Any) -> dict[str, Any]:
    """Return the tasks of a DAG that ask people, mapped ones too, by id."""
    return {
        task_id: task
        for task_id, task in dag.task_dict.items()
        if issubclass(getattr(task, "operator_class", type(task)), HITLOperator)
    }


def setting(task: Any, name: str) -> Any:
    """Return the value of an argument of a human step; None if it was left out.

    Args:
        task: the step, mapped or not.
        name: of an argument of `HumanStep`.
    """
    if hasattr(task, "partial_kwargs"):
        return task.partial_kwargs.get(name)
    return getattr(task, "options" if name == "choices" else name, None)


def options(task: Any) -> list[str]:
    """Return what may be answered in a human step, as far as it is known before it asks."""
    return [str(one) for one in setting(task, "choices") or (APPROVE, REJECT)]


def attend(task: Any, answer: Callable[[Any], Mapping[str, Any]] | None) -> None:
    """Prepare a human step for an in-process run, which asks nobody.

    The step takes the given answer, or counts as unanswered, and never asks again.

    Args:
        task: the step, mapped or not.
        answer: enters the answer that was given with the command; None if there is none.
    """
    settings = {"unattended": answer is None, "answer_ahead": answer, "asks_again": False}
    if hasattr(task, "partial_kwargs"):
        task.partial_kwargs.update(settings)
    else:
        for name, value in settings.items():
            setattr(task, name, value)


def _reason() -> Param:
    return Param(
        "",
        type=["null", "string"],
        maxLength=LONGEST_REASON,
        title="Reason / 理由",
        description="Required to reject; no customer data. 拒绝时必填，勿写客户信息。",
    )


def answer_of(event: Mapping[str, Any]) -> Answer:
    """Read the event with which Airflow resumes a human step.

    Raises:
        AirflowFailException: Airflow could not wait for the answer, or one that was given with the
            command does not fit the question.
    """
    if event.get("error_type") == UNFIT:
        raise AirflowFailException(event["error"])
    if "error" in event and event.get("error_type") != "timeout":
        raise AirflowFailException(f"Airflow could not wait for the answer: {event['error_type']}.")
    user = event.get("responded_by_user")
    chosen = event.get("chosen_options") or []
    if not user or not chosen or event.get("timedout"):
        return Answer("", "", None, None)
    given = dict(event.get("params_input") or {})
    content = given.pop(CONTENT, None)
    who, name = (
        (user["id"], user.get("name"))
        if isinstance(user, Mapping)
        else (user.id, getattr(user, "name", None))
    )
    at = event["responded_at"]
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    texts = {str(key): _as_text(value) for key, value in given.items() if value is not None}
    shown = content if isinstance(content, str) else ""
    return Answer(
        str(chosen[0]), texts.get(REASON, ""), str(who), moment, name, texts, given, shown
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
