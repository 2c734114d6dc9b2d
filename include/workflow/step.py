"""The steps of a workflow: work that a task does, and questions that it asks people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from include.approvals.answer import Answer
from include.approvals.form import Field
from include.approvals.question import Question
from include.approvals.registry import APPROVE, REJECT
from include.evidence.step_findings import StepFindings
from include.evidence.step_result import Result
from include.messages import Message
from include.policy import PolicyPack
from include.workflow.run_context import RunContext, RunRules


@dataclass(frozen=True, kw_only=True)
class _Task(Generic[RunRules, Result]):
    name: str
    title: Message
    clause: str
    result: type[Result]

    def title_of(self, part: str) -> Message:
        """Return the title for the part that the task works on."""
        return for_part(self.title, part)


@dataclass(frozen=True, kw_only=True)
class Step(_Task[RunRules, Result]):
    """A step: an Airflow task and its record.

    Attributes:
        name: of the task and its record, ``check``.
        title: the step for people; ``{part}`` is what it works on.
        clause: of the policy, for findings that name no other.
        work: does the work on `StepFindings.part`; reports findings and figures, returns the
            result.
        result: type of the result.
        parts: returns the parts that the following tasks work on, one task each; None if the step
            names none.
        ends_run: message of the failed task if the step's outcome is ``fail``, so that nothing
            that needs it follows; empty if the following tasks run.
        runs_always: whether it runs although an earlier step failed.
        queue: of its task, if the workers of the workflow's queue lack a key that it needs.
    """

    work: Callable[[RunContext[RunRules], StepFindings], Result]
    parts: Callable[[Result], Sequence[str]] | None = None
    ends_run: str = ""
    runs_always: bool = False
    queue: str = ""


@dataclass(frozen=True, kw_only=True)
class HumanTask(_Task[RunRules, Result]):
    """A task that asks one of the entitled people, waits, and takes the answer.

    Silence is never an approval. An answer counts only for the content that the person saw: `take`
    compares `Answer.content` with the content of now, and raises `AskAgain` if they differ.

    Attributes:
        name: of the task and its record, ``review``.
        title: the task for people; ``{part}`` is what it is about.
        question_title: the making of the question, for people.
        clause: of the policy, for findings that name no other.
        result: type of the result.
        ask: returns the question, or the result if nobody has to be asked: nothing is to be
            decided, or a task that was killed afterwards took the decision. Its findings stand
            in the record until somebody answers.
        take: enters the answer, or that nobody answered in time, and returns the result. It raises
            `AskAgain` if the answer does not count.
        response: returns how long the task waits.
        waiting: result of the record while the question waits; None for no result.
        choices: possible answers; the first one lets the run go on. A question may have its own.
        form: fields to fill in; empty for a reason. A question may have its own.
        in_advance: returns the filled form of an answer that a command gives (`run --answer`,
            `up --once`), from the words that were given, the moment, and a sentence that names the
            command; None if the words are the reason.
        optional: whether runs usually ask nobody.
    """

    question_title: Message
    ask: Callable[[RunContext[RunRules], StepFindings], Question | Result]
    take: Callable[[RunContext[RunRules], StepFindings, Answer], Result]
    response: Callable[[PolicyPack], timedelta]
    waiting: Result | None = None
    choices: tuple[str, ...] = (APPROVE, REJECT)
    form: tuple[Field, ...] = ()
    in_advance: Callable[[str, datetime, str], Mapping[str, Any]] | None = None
    optional: bool = False

    def question_title_of(self, part: str) -> Message:
        """Return the title of the making of the question for a part."""
        return for_part(self.question_title, part)


def for_part(title: Message, part: str) -> Message:
    """Return a title with the part that a task works on."""
    return title.model_copy(update={"values": {**title.values, "part": part}})
