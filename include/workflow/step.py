"""The types of tasks that a workflow declares: steps, human tasks and watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from include.approvals.form import Field
from include.approvals.registry import APPROVE, REJECT
from include.approvals.required_action import Answer, RequiredAction
from include.evidence.step_findings import Result, StepFindings
from include.messages import Message
from include.policy import PolicyPack
from include.workflow.run_context import RunContext, RunRules
from include.workflow.run_records import RecordedTask, for_part


@dataclass(frozen=True, kw_only=True)
class Step(RecordedTask[Result], Generic[RunRules, Result]):
    """A step of a workflow: an Airflow task that stores a record.

    Attributes:
        name: name of the task and of its record, such as ``check``.
        title: display name of the step. In a mapped step, the placeholder ``part`` of the title is
            replaced with the display name of the part.
        clause: policy clause of findings that name no other clause.
        work: executes the step for the part `StepFindings.part`, adds findings and figures to its
            second argument, and returns the result.
        result: type of the result.
        parts: returns, from the step's result, the parts for which the following tasks are mapped,
            such as databases; None if no task is mapped over the result.
        ends_run: error message with which the task fails if the outcome of the step is ``fail``.
            Tasks that depend on the step then do not run. If the message is empty, the task
            succeeds even with this outcome, and the following tasks run.
        continues_on_failure: returns, from the step's result, whether the task succeeds although
            the outcome is ``fail`` and `ends_run` has a message.
        runs_always: whether the step runs even if an earlier step failed.
        queue: queue of the task, if the workers of the workflow's queue lack a key that the step
            needs; empty for the workflow's queue.
        applies: returns, from the run's parameters, whether the run executes the step; None if
            every run executes it. A skipped task leaves no record.
        sends_urgent: whether the outbox's urgent notifications are sent as soon as the step's
            record is stored. The task `send` sends other notifications, and urgent notifications
            that could not be sent at that time.
    """

    work: Callable[[RunContext[RunRules], StepFindings], Result]
    parts: Callable[[Result], Sequence[str]] | None = None
    ends_run: str = ""
    continues_on_failure: Callable[[Result], bool] = lambda _result: False
    runs_always: bool = False
    applies: Callable[[Mapping[str, Any]], bool] | None = None
    sends_urgent: bool = False


@dataclass(frozen=True, kw_only=True)
class HumanTask(RecordedTask[Result], Generic[RunRules, Result]):
    """A task that asks assigned people for an answer, waits for it, and stores the result.

    A timeout never counts as an approval. An answer is valid only for the content that the person
    saw. Therefore `store_answer` compares `Answer.content` with the current content, and raises
    `InvalidAnswer` if they differ.

    Attributes:
        name: name of the task and of its record, such as ``review``.
        title: display name of the task. In a mapped task, the placeholder ``part`` of the title is
            replaced with the display name of the part.
        request_title: display name of the step that builds the required action.
        clause: policy clause of findings that name no other clause.
        result: type of the result.
        ask: builds the required action. Returns a result instead if no decision is required,
            because there is nothing to decide, or because an earlier attempt stored the decision
            and was then killed. In a task without `entered`, the record contains the findings of
            `ask` until a person answers.
        store_answer: stores the answer and returns the result. After a timeout, the answer is
            empty. Raises `InvalidAnswer` if the answer is not valid.
        response: returns how long the task waits for an answer.
        waiting: result in the record while the required action waits; None for no result.
        choices: possible answers; `store_answer` decides what each of them means. The required
            action that `ask` builds may replace the choices.
        form: fields to fill in; by default a reason. The required action that `ask` builds may
            replace the form.
        command_form: returns the form values for an answer from the command line (`run --answer`,
            `up --once`). Its arguments are the text of the answer, the current time, and a sentence
            that names the command. With None, the text of the answer is used as the reason.
        optional: whether most runs need no decision.
        entered: returns the result of an answer that an earlier attempt stored before it was
            killed; None if that attempt stored no answer. Its last argument is the time of the
            answer. A task with `entered` stores a record only after an answer. If no decision is
            required, it replaces a record that a failed attempt left, and stores no other record.
        queue: queue of the task, if the workers of the workflow's queue lack a key that the task
            needs; empty for the workflow's queue.
        retries: number of retries, if the task needs more retries than other tasks. A task that
            waits for weeks uses a retry each time its worker restarts.
        follows_skipped: whether the task runs even if an earlier task was skipped.
    """

    request_title: Message
    ask: Callable[[RunContext[RunRules], StepFindings], RequiredAction | Result]
    store_answer: Callable[[RunContext[RunRules], StepFindings, Answer], Result]
    response: Callable[[PolicyPack], timedelta]
    waiting: Result | None = None
    choices: tuple[str, ...] = (APPROVE, REJECT)
    form: tuple[Field, ...] = ()
    command_form: Callable[[str, datetime, str], Mapping[str, Any]] | None = None
    optional: bool = False
    entered: Callable[[RunContext[RunRules], StepFindings, datetime], Result | None] | None = None
    retries: int | None = None
    follows_skipped: bool = False

    def request_title_of(self, part: str) -> Message:
        """Return the display name of the step that builds a required action.

        Args:
            part: item that the required action is about, such as a database. Its display name is
                inserted into the result.
        """
        return for_part(self.request_title, self.part_text(part))


@dataclass(frozen=True)
class WatchResult:
    """The result of one check of a run by a watch.

    Attributes:
        next_check_at: when to check the run again; None if nothing is left to watch.
        has_unsent: whether queued notifications have to be sent.
    """

    next_check_at: datetime | None
    has_unsent: bool


@dataclass(frozen=True, kw_only=True)
class Watch(Generic[RunRules]):
    """A task that checks its run at intervals and leaves no record.

    The task ends when `WatchResult.next_check_at` is None. It also ends when all other tasks of the
    run have ended and `keeps_watching` returns False.

    Attributes:
        name: name of the task, such as ``watch``.
        check: checks the run and queues the notifications that are due, which are then sent
            immediately.
        max_interval: longest time between two checks.
        keeps_watching: returns whether the watch continues even though all other tasks have ended.
            Its second argument is the list of failed tasks, which a person may clear.
    """

    name: str
    check: Callable[[RunContext[RunRules]], WatchResult]
    max_interval: timedelta
    keeps_watching: Callable[[RunContext[RunRules], Sequence[str]], bool]
