"""Human tasks of incidents: the page of a step, the check of its answer, and the entry it makes."""

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
from include.approvals.form import Field, read_form, refilled
from include.approvals.question import Answer, AskAgain, Question, in_both
from include.approvals.reasons import says_something
from include.evidence.step_findings import StepFindings
from include.incident import timeline
from include.incident.entries import EntryData, IncidentResult, Refused
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_in,
    rules_of,
)
from include.incident.names import CLAUSE, Kind
from include.incident.rule_checks import INCIDENT
from include.incident.rules import HumanStep, IncidentRules
from include.incident.steps import page
from include.incident.team import team_of
from include.incident.timeline import Entry
from include.messages import Message, _, listed
from include.policy import PolicyPack
from include.services.errors import ServiceError
from include.workflow.declaration import Queue
from include.workflow.step import HumanTask

CHANGED = _("the content of the page changed after the form was made; review the new page")
_RETRIES = 20  # of a task that is open for weeks: each worker that is stopped meanwhile takes one
Also = Callable[[Connection, IncidentRecord], Mapping[str, Any] | Message]


class Answered(IncidentResult):
    """The answer to a human task that was entered.

    Attributes:
        entry: its place in the timeline.
        by: user id of the person.
        option: the chosen one.
    """

    entry: int = 0
    by: str = ""
    option: str = ""


class IncidentTask(ABC):
    """A human task about one incident.

    Attributes:
        step: its name.
        title: for people.
        choices: possible answers; the first one lets the run go on.
        patience: multiple of the policy's time after which deputies and management are asked too.
            A step on which the incident's first hours do not depend waits longer.
        seals_document: whether its question seals a document before people hand it in, so that its
            task needs the key that seals evidence.
        run: the run or command.
        record: the incident.
        part: of the step, if it is done several times: the authority of a report.
    """

    step: ClassVar[HumanStep]
    title: ClassVar[Message]
    choices: ClassVar[tuple[str, ...]]
    patience: ClassVar[int] = 1
    seals_document: ClassVar[bool] = False

    def __init__(self, run: IncidentRun, record: IncidentRecord, part: str = "") -> None:
        self.run, self.record, self.part = run, record, part

    @property
    def rules(self) -> IncidentRules:
        """The rules that the incident is measured by."""
        return rules_of(self.run, self.record)

    @abstractmethod
    def form(self) -> list[Field]:
        """Return the fields to fill in."""

    @abstractmethod
    def content(self) -> str:
        """Return the digest of what an answer is about."""

    @abstractmethod
    def ask(self) -> Question | None:
        """Return the question; None if nobody has to be asked."""

    @abstractmethod
    def take(self, answer: Answer) -> Answered:
        """Enter an answer.

        Raises:
            AskAgain: nobody answered, or the answer does not count. The timeline says why.
        """

    def question(
        self,
        title: Message,
        lines: Sequence[Message],
        content: str | None = None,
        never: Iterable[str] = (),
    ) -> Question:
        """Return the question: what to do, by when it is due, who may answer.

        Args:
            title: the task in a line.
            lines: instructions and facts for the person.
            content: the content of the form, if it is another one than `content`.
            never: user ids of people who may not answer, since it is about their own work.

        Raises:
            ServiceError: nobody is left who may answer.
        """
        number = self.record.incident.number
        team = team_of(self.run, self.record, self.step, never)
        if not team.people:
            raise ServiceError(
                f"Nobody may do the step {self.step} of {number}.",
                "Assign somebody: workflow update_incident, action `assign`.",
            )
        refusal = self._last_refusal()
        shown = [*page.refusal_lines(refusal), *page.silence_lines(team), *lines]
        values = refusal.as_(Refused).given if refusal else {}
        return Question(
            in_both(_("{number}: {title}", number=number, title=title)),
            page.body(self.run, self.record, [*shown, *page.team_lines(team)]),
            list(team.people),
            self.content() if content is None else content,
            form=refilled(
                self.form(),
                {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()},
            ),
            choices=self.choices,
        )

    def digest(self, lines: Sequence[Message] = (), *facts: Any) -> str:
        """Return the SHA-256 of the content that an answer is about.

        Deadlines, people and earlier answers are left out: they change while a person reads, and
        no answer is about them.

        Args:
            lines: of the page; none may change merely because time passes.
            facts: JSON values that identify what the lines only name, such as a version.
        """
        shown = [self.record.incident.number, self.step, self.part, *facts]
        shown += [line.model_dump(mode="json") for line in lines]
        shown += [[field.name, list(field.options)] for field in self.form()]
        return sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()

    def read(self, answer: Answer, never: Iterable[str] = ()) -> StepAnswer:
        """Check who answered, and read the form.

        Args:
            answer: the answer, or that nobody answered in time.
            never: user ids of people who may not answer, since it is about their own work.

        Raises:
            AskAgain: nobody answered, the person does not belong to the team of the step, or a
                field is missing or wrong. The timeline says so.
        """
        if not answer.user or not answer.option or answer.at is None:
            words = _("Nobody answered {step} in time.", step=self.step)
            self._append(Kind.UNANSWERED, words, {}, self.step)
            raise AskAgain(_("Nobody answered in time."))
        team = team_of(self.run, self.record, self.step, never)
        spellings = [spelling for spelling in (answer.user, answer.name) if spelling]
        user = next((member for name in spellings if (member := team.member(name))), None)
        if user is None:
            self.refuse(answer, _("who answered is not of the team for this step"), {})
        form = read_form(self.form(), answer.entered, self.run.zone)
        if form.problems:
            self.refuse(answer, listed(form.problems), form.values)
        return StepAnswer(self, answer, user, answer.at, form.values)

    def refuse(self, answer: Answer, cause: Message, values: Mapping[str, FieldValue]) -> NoReturn:
        """Enter an answer that does not count, and ask again with the values that were entered.

        Raises:
            AskAgain: always.
        """
        kept = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
        }
        words = _("The answer to {step} did not count: {cause}", step=self.step, cause=cause)
        data = {"cause": cause.model_dump(mode="json"), "given": kept, "option": answer.option}
        self._append(Kind.REFUSED, words, data, answer.user or self.step)
        raise AskAgain(cause, self.run.zone.key)

    def _append(self, kind: Kind, words: Message, data: Mapping[str, Any], by: str) -> None:
        with self.run.state.begin() as conn:
            timeline.append(
                conn, self.record.incident.id, kind, words, by=by, clock=self.run.clock,
                data={"step": self.step, "part": self.part, **data},
            )  # fmt: skip

    def entered(self, conn: Connection, at: datetime) -> Entry | None:
        """Return the entry of an answer that an earlier try of the task entered."""
        return timeline.entered(conn, self.record.incident.id, self.once(at))

    def once(self, at: datetime) -> str:
        """Return the key of the entry of an answer."""
        return f"{self.step}:{self.part}:{at.isoformat()}"

    def _last_refusal(self) -> Entry | None:
        """Return the refusal of the last answer; None if that one counted."""
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
    """An answer of an entitled person, with the values that were read from its form.

    Attributes:
        task: the task.
        answer: as it was given.
        user: id of the person, in the spelling of the team.
        at: when the person answered.
        values: by field; fields that were left empty are missing.
    """

    task: IncidentTask
    answer: Answer
    user: str
    at: datetime
    values: Mapping[str, FieldValue]

    def text(self, name: str) -> str:
        """Return the text of a field without customer values; empty if it was left empty."""
        return str(self.values.get(name, ""))

    def ticked(self, name: str) -> bool:
        """Return whether a box was ticked."""
        return self.values.get(name) is True

    def says(self, name: str) -> bool:
        """Return whether a field holds words."""
        return says_something(self.text(name))

    def refuse(self, cause: Message) -> NoReturn:
        """Refuse the answer; see `IncidentTask.refuse`."""
        self.task.refuse(self.answer, cause, self.values)

    def moment(self, field: Field, after: datetime | None = None) -> datetime:
        """Return the moment of a field, or that of the answer if the field is empty.

        Args:
            field: the field.
            after: before which it cannot have been; the beginning of the leak, else awareness,
                where nothing is said.

        Raises:
            AskAgain: it is yet to come, or lies too early.
        """
        moment = self.values.get(field.name)
        if not isinstance(moment, datetime):
            return self.at
        incident = self.task.record.incident
        first = after or incident.began_at or incident.aware_at
        if moment > self.task.run.clock.now():
            problem = _("is yet to come")
        elif moment < first:
            problem = _("lies before {first}", first=first)
        else:
            return moment
        return self.refuse(_("{field}: {problem}", field=field.title, problem=problem))

    def enter(
        self,
        kind: Kind,
        words: Message,
        data: Mapping[str, Any] | None = None,
        happened_at: datetime | None = None,
        also: Also | None = None,
        check: Callable[[IncidentRecord], Message | None] | None = None,
    ) -> Answered:
        """Enter an answer that counts, once, and return the step's result.

        Args:
            kind: of the entry.
            words: what was answered.
            data: of the entry.
            happened_at: when it happened; the moment of the answer if it is left out.
            also: writes elsewhere in the same transaction and returns more data, or writes nothing
                and returns why the answer does not count. It is not called if an earlier try of
                the task entered the answer, since other things may have been entered after it.
            check: returns why the answer does not count, before the contents are compared.

        Raises:
            AskAgain: `check` or `also` refused, or the form that was answered was about something
                else.
        """
        run, incident = self.task.run, self.task.record.incident
        with run.state.begin() as conn:
            timeline.lock_incident(conn, incident.id)
            if (before := self.task.entered(conn, self.at)) is not None:
                return answered(before)
            record = record_in(conn, incident.number)
            now = type(self.task)(run, record, self.task.part)
            more: Mapping[str, Any] | Message | None = check(record) if check else None
            if more is None:
                more = CHANGED
                if now.content() == self.answer.content.partition(":")[0]:
                    more = also(conn, record) if also else {}
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
    """Append the entry of an answer, in a transaction that holds the incident's lock."""
    # The API server's clock, by which it was answered, may be ahead of this machine's.
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
    """Return the result of the step that made an entry."""
    return Answered(entry=entry.place, by=entry.by, option=entry.as_(EntryData).option)


def human_task(task: type[IncidentTask]) -> HumanTask[IncidentRules, Answered]:
    """Return the human task of a workflow.

    An incident that is a duplicate, or was cancelled, asks nobody and takes no answer.
    """

    def task_of(run: IncidentRun, findings: StepFindings) -> IncidentTask:
        return task(run, incident_of(run), findings.part)

    def ask(run: IncidentRun, findings: StepFindings) -> Question | Answered:
        asking = task_of(run, findings)
        question = asking.ask() if asking.record.incident.is_led else None
        return question or Answered(asked=False)

    ask.__doc__ = task.ask.__doc__

    def take(run: IncidentRun, findings: StepFindings, answer: Answer) -> Answered:
        taking = task_of(run, findings)
        return taking.take(answer) if taking.record.incident.is_led else Answered(asked=False)

    def entered(run: IncidentRun, findings: StepFindings, at: datetime) -> Answered | None:
        asked = task_of(run, findings)
        with run.state.connect() as conn:
            entry = asked.entered(conn, at)
        if entry is None or entry.place not in {valid.place for valid in asked.record.valid}:
            return None
        return answered(entry)

    return HumanTask(
        name=task.step,
        title=task.title,
        question_title=task.title,
        clause=CLAUSE,
        result=Answered,
        ask=ask,
        take=take,
        entered=entered,
        response=partial(_response_time, task.patience),
        choices=task.choices,
        queue=Queue.SEALING if task.seals_document else "",
        retries=_RETRIES,
        follows_skipped=True,  # no authority may apply: then no report is asked for
    )


def _response_time(patience: int, pack: PolicyPack) -> timedelta:
    rules = pack.section(INCIDENT)
    return (timedelta(minutes=30) if rules is None else rules.answer_within.span) * patience
