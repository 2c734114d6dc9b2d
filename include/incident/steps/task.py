"""Human tasks of incidents: the form of a step, the check of the answer, and its timeline entry."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, ClassVar, NoReturn

from sqlalchemy import Connection

from include.approvals.form import Entry as FieldValue
from include.approvals.form import Field, prefill_form, read_form
from include.approvals.reasons import has_words
from include.approvals.required_action import (
    Answer,
    InvalidAnswer,
    RequiredAction,
    in_both_languages,
)
from include.evidence.step_findings import StepFindings
from include.incident import timeline
from include.incident.entries import EntryData, IncidentResult, Refused
from include.incident.incident_ids import CLAUSE, Kind
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_in,
    rules_of,
)
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HumanStep, IncidentRules
from include.incident.step_titles import HUMAN_STEP_TITLES
from include.incident.steps import page
from include.incident.team import team_of
from include.incident.time_limits.escalation import STEPS
from include.incident.time_limits.time_limit import TimeLimit, time_limits_of
from include.incident.timeline import Entry
from include.messages import Message, _, listed
from include.policy import PolicyPack
from include.services.errors import ServiceError
from include.workflow.declaration import Queue
from include.workflow.step import HumanTask

CHANGED = _("the facts on the form changed after the form was shown; review the new form")
_RETRIES = 20  # a task may be open for weeks, and each restart of a worker uses up a retry
WriteMore = Callable[[Connection, IncidentRecord], Mapping[str, Any] | Message]


class Answered(IncidentResult):
    """The result of a human task: the answer that was recorded on the timeline.

    Attributes:
        entry: position of the answer in the timeline.
        by: user id of the person who answered.
        option: id of the answer that the person chose.
    """

    entry: int = 0
    by: str = ""
    option: str = ""


class IncidentTask(ABC):
    """A task of an incident's workflow that waits for the answer of a person.

    Attributes:
        step: name of the step.
        title: display title.
        choices: possible answers; `record_answer` decides what each of them means.
        answer_time_factor: the time to answer this step, as a multiple of `answer_within` of
            incident.yaml. After this time, deputies and management may also answer. Steps after the
            first hours of an incident have a greater factor.
        seals_document: whether `ask` seals a document. In this case the task needs the key that
            seals evidence.
        run: services and rules of the current run or command.
        record: incident with its timeline.
        part: id of the authority for a report; empty for other steps.
    """

    step: ClassVar[HumanStep]
    title: ClassVar[Message]
    choices: ClassVar[tuple[str, ...]]
    answer_time_factor: ClassVar[int] = 1
    seals_document: ClassVar[bool] = False

    def __init__(self, run: IncidentRun, record: IncidentRecord, part: str = "") -> None:
        self.run, self.record, self.part = run, record, part

    @property
    def rules(self) -> IncidentRules:
        """The rules that apply to the incident; see `apply_snapshot`."""
        return rules_of(self.run, self.record)

    @abstractmethod
    def form(self) -> list[Field]:
        """Return the input fields that a person fills in."""

    @abstractmethod
    def content(self) -> str:
        """Return a digest of the facts on which the person decides.

        If the digest differs when the answer is recorded, the form was outdated.
        """

    @abstractmethod
    def ask(self) -> RequiredAction | None:
        """Return the required action; None if no answer is needed."""

    @abstractmethod
    def record_answer(self, answer: Answer) -> Answered:
        """Check an answer and record it on the timeline.

        Raises:
            InvalidAnswer: nobody answered in time, or the answer was refused. The timeline has the
                reason.
        """

    def required_action(
        self,
        title: Message,
        lines: Sequence[Message],
        content: str | None = None,
        never: Iterable[str] = (),
    ) -> RequiredAction:
        """Return the required action with instructions, time limits and the people who may answer.

        Args:
            title: title of the required action.
            lines: instructions and facts for the person.
            content: digest that identifies the facts in the form; default: `content()`.
            never: user ids of people who may not answer, because the answer is about their own
                work.

        Raises:
            ServiceError: nobody remains who may answer.
        """
        number = self.record.incident.number
        team = team_of(self.run, self.record, self.step, never)
        if not team.people:
            raise ServiceError(
                f"No person may answer the step {self.step} of {number}.",
                "Assign a person: workflow update_incident, action `assign`.",
            )
        refusal = self._last_refusal()
        page_lines = [*page.refusal_lines(refusal), *page.silence_lines(team), *lines]
        values = refusal.as_(Refused).given if refusal else {}
        return RequiredAction(
            in_both_languages(_("{number}: {title}", number=number, title=title)),
            page.page_body(
                self.run, self.record, [*page_lines, *page.team_lines(team)], self._time_limits()
            ),
            list(team.people),
            self.content() if content is None else content,
            form=prefill_form(
                self.form(),
                {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()},
            ),
            choices=self.choices,
            due_at=self.due_at(),
        )

    def due_at(self) -> datetime | None:
        """Return the deadline of the task; None if no time limit of the incident is running.

        It is the earliest open deadline that the answer ends. If the answer ends none, it is the
        earliest open deadline of the incident.
        """
        running = [limit for limit in time_limits_of(self.run, self.record) if limit.is_open]
        own = [limit for limit in self._time_limits() if limit.is_open]
        deadlines = [limit.due_at for limit in own or running if limit.due_at is not None]
        return min(deadlines, default=None)

    def _time_limits(self) -> list[TimeLimit]:
        """Return the time limits that the answer to this step ends."""
        return [
            time_limit
            for time_limit in time_limits_of(self.run, self.record)
            if self.step in STEPS.get(time_limit.rule.ends, ())
            and time_limit.rule.authority in (None, self.part)
        ]

    def digest(self, lines: Sequence[Message] = (), *facts: Any) -> str:
        """Return the SHA-256 (hex) of the facts on which the person decides.

        Time limits, people and earlier answers are not included. They change while a person reads
        the form, and the decision does not depend on them.

        Args:
            lines: display texts of the form. A text must not change merely because time passes.
            facts: JSON values of further facts, such as a version.
        """
        digested = [self.record.incident.number, self.step, self.part, *facts]
        digested += [line.model_dump(mode="json") for line in lines]
        digested += [[field.name, list(field.options)] for field in self.form()]
        return sha256(json.dumps(digested, sort_keys=True).encode()).hexdigest()

    def read(self, answer: Answer, never: Iterable[str] = ()) -> StepAnswer:
        """Check that a person may answer the step, and read the values of the form.

        Args:
            answer: answer that Airflow returned; it has no user if nobody answered in time.
            never: user ids of people who may not answer, because the answer is about their own
                work.

        Raises:
            InvalidAnswer: nobody answered in time, the person may not answer the step, or a field
                is missing or wrong. The reason is recorded on the timeline.
        """
        if not answer.user or not answer.option or answer.at is None:
            words = _(
                "The step “{step}” was not answered in time.", step=HUMAN_STEP_TITLES[self.step]
            )
            self._append(Kind.UNANSWERED, words, {}, self.step)
            raise InvalidAnswer(_("The step was not answered in time."))
        team = team_of(self.run, self.record, self.step, never)
        spellings = [spelling for spelling in (answer.user, answer.name) if spelling]
        user = next((member for name in spellings if (member := team.member(name))), None)
        if user is None:
            self.refuse(answer, _("the person who answered has no right to answer this step"), {})
        form = read_form(self.form(), answer.entered, self.run.zone)
        if form.problems:
            self.refuse(answer, listed(form.problems), form.values)
        return StepAnswer(self, answer, user, answer.at, form.values)

    def refuse(self, answer: Answer, cause: Message, values: Mapping[str, FieldValue]) -> NoReturn:
        """Record on the timeline that an answer was refused.

        The next form contains the values that the person entered.

        Args:
            answer: answer that Airflow returned.
            cause: display text with the reason for the refusal.
            values: entered values by form field.

        Raises:
            InvalidAnswer: always.
        """
        json_values = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
        }
        words = _(
            "The answer to the step “{step}” was not accepted: {cause}",
            step=HUMAN_STEP_TITLES[self.step],
            cause=cause,
        )
        data = {
            "cause": cause.model_dump(mode="json"),
            "given": json_values,
            "option": answer.option,
        }
        self._append(Kind.REFUSED, words, data, answer.user or self.step)
        raise InvalidAnswer(cause, self.run.zone.key)

    def _append(self, kind: Kind, words: Message, data: Mapping[str, Any], by: str) -> None:
        with self.run.state.begin() as conn:
            timeline.append(
                conn, self.record.incident.id, kind, words, by=by, clock=self.run.clock,
                data={"step": self.step, "part": self.part, **data},
            )  # fmt: skip

    def entered(self, conn: Connection, at: datetime) -> Entry | None:
        """Return the timeline entry of an answer if an earlier attempt of the task recorded it.

        Otherwise return None.

        Args:
            conn: connection to the state database.
            at: time of the answer.
        """
        return timeline.find_entry(conn, self.record.incident.id, self.once(at))

    def once(self, at: datetime) -> str:
        """Return the unique key of the timeline entry for an answer to this task.

        Args:
            at: time of the answer.
        """
        return f"{self.step}:{self.part}:{at.isoformat()}"

    def _last_refusal(self) -> Entry | None:
        """Return the timeline entry about the last answer to this task, if it was refused.

        Otherwise, or if there was no answer yet, return None.
        """
        answers = [
            entry
            for entry in self.record.entries
            if entry.kind is not Kind.UNANSWERED
            and (data := entry.as_(EntryData)).step == self.step
            and data.part == self.part
        ]
        return answers[-1] if answers and answers[-1].kind is Kind.REFUSED else None


@dataclass(frozen=True)
class StepAnswer:
    """The answer of a person who is allowed to answer the step, with the values of the form.

    Attributes:
        task: human task that was answered.
        answer: answer that Airflow returned.
        user: user id of the person, spelled as in the list of people who are allowed to answer
            (`Team.people`).
        at: time of the answer.
        values: value by field name, without empty fields.
    """

    task: IncidentTask
    answer: Answer
    user: str
    at: datetime
    values: Mapping[str, FieldValue]

    def text(self, name: str) -> str:
        """Return the text of a field, with customer data redacted; empty for an empty field."""
        return str(self.values.get(name, ""))

    def is_ticked(self, name: str) -> bool:
        """Return whether the person ticked the checkbox of the form field `name`."""
        return self.values.get(name) is True

    def has_text(self, name: str) -> bool:
        """Return whether the text of a field contains at least one letter."""
        return has_words(self.text(name))

    def refuse(self, cause: Message) -> NoReturn:
        """Refuse the answer and record the reason; see `IncidentTask.refuse`."""
        self.task.refuse(self.answer, cause, self.values)

    def moment(self, field: Field, after: datetime | None = None) -> datetime:
        """Return the time that the person entered; the time of the answer if the field is empty.

        Args:
            field: field of the form.
            after: earliest allowed time; default: the start of the leak, or the time of awareness
                if the start is unknown.

        Raises:
            InvalidAnswer: the time is in the future, or too early.
        """
        moment = self.values.get(field.name)
        if not isinstance(moment, datetime):
            return self.at
        incident = self.task.record.incident
        first = after or incident.began_at or incident.aware_at
        if moment > self.task.run.clock.now():
            problem = _("the time is in the future")
        elif moment < first:
            problem = _("the time is before {first}", first=first)
        else:
            return moment
        return self.refuse(_("{field}: {problem}", field=field.title, problem=problem))

    def record(
        self,
        kind: Kind,
        words: Message,
        data: Mapping[str, Any] | None = None,
        happened_at: datetime | None = None,
        write_more: WriteMore | None = None,
        check: Callable[[IncidentRecord], Message | None] | None = None,
    ) -> Answered:
        """Record the answer on the timeline, and return the result of the step.

        The method takes these steps in one transaction:

        1. If an earlier attempt recorded the answer, return the result of that attempt, and write
           nothing.
        2. Call `check`.
        3. Check whether the facts in the form are outdated.
        4. Call `write_more`.
        5. Add the entry to the timeline.

        If step 2, 3 or 4 finds a reason, the answer is refused and no entry is added.

        Args:
            kind: kind of event that the entry records.
            words: display text of the entry.
            data: data of the entry.
            happened_at: time of the event; default: the time of the answer.
            write_more: callback that writes to other tables in the same transaction. It returns
                more data for the entry, or the reason why the answer is refused.
            check: callback that returns the reason why the answer is refused, or None.

        Raises:
            InvalidAnswer: `check` or `write_more` refused the answer, or the facts in the form are
                outdated.
        """
        run, incident = self.task.run, self.task.record.incident
        with run.state.begin() as conn:
            timeline.lock_incident(conn, incident.id)
            if (existing := self.task.entered(conn, self.at)) is not None:
                return answered(existing)
            record = record_in(conn, incident.number)
            current_task = type(self.task)(run, record, self.task.part)
            more: Mapping[str, Any] | Message | None = check(record) if check else None
            if more is None:
                more = CHANGED
                if current_task.content() == self.answer.content.partition(":")[0]:
                    more = write_more(conn, record) if write_more else {}
            if not isinstance(more, Message):
                return append_answer(
                    conn, self.task, self.answer.option, kind, words, by=self.user, at=self.at,
                    data={**(data or {}), **more}, happened_at=happened_at,
                )  # fmt: skip
        return self.refuse(more)


def append_answer(
    conn: Connection,
    task: IncidentTask,
    option: str,
    kind: Kind,
    words: Message,
    *,
    by: str,
    at: datetime,
    data: Mapping[str, Any],
    happened_at: datetime | None = None,
) -> Answered:
    """Append the timeline entry of an answer, and return the result of the step.

    The caller must have locked the incident.

    Args:
        conn: connection to the state database, in a transaction.
        task: human task that was answered.
        option: id of the answer that the person chose.
        kind: kind of event that the entry records.
        words: display text of the entry.
        by: user id of the person who answered.
        at: time of the answer.
        data: data of the entry.
        happened_at: time of the event; default: the time of the answer.
    """
    # The time of the answer is the API server's, whose clock may be ahead of this machine's.
    entry = timeline.append(
        conn,
        task.record.incident.id,
        kind,
        words,
        by=by,
        clock=task.run.clock,
        happened_at=min(happened_at or at, task.run.clock.now()),
        data={"step": task.step, "option": option, "part": task.part, **data},
        once=task.once(at),
    )
    return answered(entry)


def answered(entry: Entry) -> Answered:
    """Return the result of a human task from the timeline entry of its answer."""
    return Answered(entry=entry.place, by=entry.by, option=entry.as_(EntryData).option)


def human_task(task: type[IncidentTask]) -> HumanTask[IncidentRules, Answered]:
    """Return the declaration of a human task for a workflow.

    If the incident is a duplicate or was cancelled, the task is skipped.
    """

    def task_of(run: IncidentRun, findings: StepFindings) -> IncidentTask:
        return task(run, incident_of(run), findings.part)

    def ask(run: IncidentRun, findings: StepFindings) -> RequiredAction | Answered:
        current_task = task_of(run, findings)
        action = current_task.ask() if current_task.record.incident.requires_steps else None
        return action or Answered(asked=False)

    ask.__doc__ = task.ask.__doc__

    def record_answer(run: IncidentRun, findings: StepFindings, answer: Answer) -> Answered:
        current_task = task_of(run, findings)
        if not current_task.record.incident.requires_steps:
            return Answered(asked=False)
        return current_task.record_answer(answer)

    def entered(run: IncidentRun, findings: StepFindings, at: datetime) -> Answered | None:
        current_task = task_of(run, findings)
        with run.state.connect() as conn:
            entry = current_task.entered(conn, at)
        if entry is None or entry.place not in {valid.place for valid in current_task.record.valid}:
            return None
        return answered(entry)

    return HumanTask(
        name=task.step,
        title=task.title,
        request_title=task.title,
        clause=CLAUSE,
        result=Answered,
        ask=ask,
        store_answer=record_answer,
        entered=entered,
        response=partial(_response_time, task.answer_time_factor),
        choices=task.choices,
        queue=Queue.SEALING if task.seals_document else "",
        retries=_RETRIES,
        follows_skipped=True,  # if no report is due, the report tasks are skipped
    )


def _response_time(answer_time_factor: int, pack: PolicyPack) -> timedelta:
    rules = pack.section(INCIDENT)
    return (
        timedelta(minutes=30) if rules is None else rules.answer_within.span
    ) * answer_time_factor
