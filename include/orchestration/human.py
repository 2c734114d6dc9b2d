"""Human steps: a task that asks one of the entitled people and takes the answer into `state`.

Built on Airflow's own human-in-the-loop operator, with what a control needs beside it: only named
people may answer, silence is never an approval, a rejection has a reason, and the page that they
see is made when the question is asked and kept nowhere but in Airflow's table of questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException

from include.approvals.reasons import LONGEST_REASON
from include.approvals.registry import APPROVE, REJECT

if TYPE_CHECKING:
    from airflow.sdk import Context

REASON = "reason"


class Asked(Protocol):
    """A question; `include.approvals.question.Question` is one."""

    @property
    def subject(self) -> str:
        """One line."""
        ...

    @property
    def body(self) -> str:
        """Markdown."""
        ...

    @property
    def assigned(self) -> list[str]:
        """User ids of those who may answer."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a person answered, or that nobody did.

    Attributes:
        option: the chosen one; empty when nobody answered.
        reason: the person's words.
        user: id of the person; None when nobody answered in time.
        at: when; None when nobody answered.
        given: what else the person entered, by name.
        name: of the person, which some auth managers keep apart from the id.
    """

    option: str
    reason: str
    user: str | None
    at: datetime | None
    name: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)


class HumanStep(HITLOperator):
    """Approve or Reject, or another choice, by one of the people that the question names.

    Args:
        about: what the task before returned; its ``part`` says what is asked about.
        ask: makes the question for a part, or None where nobody has to be asked; its docstring is
            the task's description.
        optional: whether runs as a rule ask nobody. An in-process run then needs no answer given in
            advance, and a question that comes nevertheless counts as unanswered.
        choices: what may be answered; the first one is what lets the run go on.
        form: what else is entered, beside or in place of a reason.
        in_advance: what the form holds when the answer was given with the command, from its words
            and the moment at which it is entered.
        take: takes the answer for a part; what it returns goes into XCom: ids and the outcome.
        response_timeout: how long the step waits. Then ``take`` is told that nobody answered.
    """

    template_fields = ("about",)

    def __init__(
        self,
        *,
        about: Any,
        ask: Callable[[str], Asked | None],
        optional: bool = False,
        take: Callable[[str, Answer], dict[str, Any]],
        choices: Sequence[str] = (APPROVE, REJECT),
        form: Mapping[str, Param] | None = None,
        in_advance: Callable[[str, datetime], dict[str, str]] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("params", None)  # the DAG's own; the form asks for a reason only
        super().__init__(
            subject="-",  # made when the question is asked
            options=list(choices),
            params=dict(form) if form is not None else {REASON: _reason()},
            **kwargs,
        )
        self.about = about
        self.ask = ask
        self.optional = optional
        self.unattended = False  # whether nobody can answer, as in an in-process run
        self.take = take
        self.in_advance = in_advance
        self.doc_md = self.doc_md or ask.__doc__

    def execute(self, context: Context) -> Any:
        """Make the question, show it and wait."""
        question = self.ask(self._part)
        if question is None:
            return {"part": self._part, "asked": False}
        if self.unattended:
            return self.take(self._part, Answer("", "", None, None))
        if not question.assigned:  # to Airflow an empty list means everybody
            raise AirflowFailException("Nobody may answer this question.")
        self.subject, self.body = question.subject, question.body
        self.assigned_users = [{"id": one, "name": one} for one in question.assigned]
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the answer; that nobody answered is an answer too, and never an approval."""
        del context
        return self.take(self._part, answer_of(event))

    @property
    def _part(self) -> str:
        return str(self.about["part"])


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
        AirflowFailException: Airflow could not wait for the answer.
    """
    if "error" in event and event.get("error_type") != "timeout":
        raise AirflowFailException(f"Airflow could not wait for the answer: {event['error_type']}.")
    user = event.get("responded_by_user")
    chosen = event.get("chosen_options") or []
    if not user or not chosen or event.get("timedout"):
        return Answer("", "", None, None)
    given = event.get("params_input") or {}
    who, name = (
        (user["id"], user.get("name"))
        if isinstance(user, Mapping)
        else (user.id, getattr(user, "name", None))
    )
    at = event["responded_at"]
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    entered = {str(key): str(value) for key, value in given.items() if value is not None}
    return Answer(str(chosen[0]), entered.get(REASON, ""), str(who), moment, name, entered)


def wait(months: int, days: int, seconds: int) -> timedelta:
    """Return a pack's period as a span to wait; a month counts 30 days."""
    return timedelta(days=months * 30 + days, seconds=seconds)
