"""The steps of a workflow: work that a task does, and questions that it asks people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from include.approvals.form import Field
from include.approvals.question import Answer, Question
from include.approvals.registry import APPROVE, REJECT
from include.evidence.step_findings import Result, StepFindings
from include.messages import Message
from include.policy import PolicyPack
from include.workflow.run_context import RunContext, RunRules
from include.workflow.run_records import RecordedTask, for_part


@dataclass(frozen=True, kw_only=True)
class Step(RecordedTask[Result], Generic[RunRules, Result]):
    """A step: an Airflow task and its record.

    Attributes:
        name: of the task and its record, ``check``.
        title: the step for people; its value ``part`` becomes what it works on.
        clause: of the policy, for findings that name no other.
        work: does the work on `StepFindings.part`; reports findings and figures, returns the
            result.
        result: type of the result.
        parts: returns the parts that the following tasks work on, one task each; None if the step
            names none.
        ends_run: message of the failed task if the step's outcome is ``fail``, so that nothing
            that needs it follows; empty if the following tasks run.
        goes_on: returns whether the following tasks run although the outcome is ``fail``.
        runs_always: whether it runs although an earlier step failed.
        queue: of its task, if the workers of the workflow's queue lack a key that it needs.
        applies: returns whether a run with these parameters does the step; None if each run does. A
            skipped task leaves no record.
        sends_urgent: whether the urgent notifications of the outbox leave as soon as its record is
            kept. Those that cannot leave wait for the task `send`.
    """

    work: Callable[[RunContext[RunRules], StepFindings], Result]
    parts: Callable[[Result], Sequence[str]] | None = None
    ends_run: str = ""
    goes_on: Callable[[Result], bool] = lambda _result: False
    runs_always: bool = False
    applies: Callable[[Mapping[str, Any]], bool] | None = None
    sends_urgent: bool = False


@dataclass(frozen=True, kw_only=True)
class HumanTask(RecordedTask[Result], Generic[RunRules, Result]):
    """A task that asks entitled people a question, waits for an answer, and enters it.

    Silence is never an approval. An answer counts only for the content that the person saw: `take`
    compares `Answer.content` with the content of now, and raises `AskAgain` if they differ.

    Attributes:
        name: of the task and its record, ``review``.
        title: the task for people; its value ``part`` becomes what it is about.
        question_title: the making of the question, for people.
        clause: of the policy, for findings that name no other.
        result: type of the result.
        ask: returns the question, or the result if no decision is required: there is nothing to
            decide, or a killed try already entered the decision. The record has the findings of
            `ask` until a person answers.
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
        entered: returns the result of an answer that a killed try of the task entered, by the
            moment of the answer; None if it entered none. A task with `entered` leaves a record of
            its answer only: a question leaves none, or replaces the record of a failed try.
        queue: of its task, if the workers of the workflow's queue lack a key that it needs.
        retries: of the task, if it has more than the others: a task that waits for weeks needs one
            for each worker that is stopped meanwhile.
        follows_skipped: whether it asks although an earlier task was skipped.
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
    entered: Callable[[RunContext[RunRules], StepFindings, datetime], Result | None] | None = None
    retries: int | None = None
    follows_skipped: bool = False

    def question_title_of(self, part: str) -> Message:
        """Return the title of the making of the question for a part."""
        return for_part(self.question_title, part)


@dataclass(frozen=True)
class Look:
    """The result of looking at a run.

    Attributes:
        again_at: when to look next; None if nothing is left to watch.
        has_unsent: whether notifications wait to be sent.
    """

    again_at: datetime | None
    has_unsent: bool


@dataclass(frozen=True, kw_only=True)
class Watch(Generic[RunRules]):
    """A task that checks its run at intervals; it leaves no record.

    It ends when `Look.again_at` is None, or when all other tasks of the run ended and `goes_on`
    returns False.

    Attributes:
        name: of the task, ``watch``.
        look: looks at the run and queues the notifications that are due, which are sent at once.
        at_most: time between two looks.
        goes_on: returns whether the run goes on although all other tasks ended; it gets the names
            of those that failed, which a person may clear.
    """

    name: str
    look: Callable[[RunContext[RunRules]], Look]
    at_most: timedelta
    goes_on: Callable[[RunContext[RunRules], Sequence[str]], bool]
