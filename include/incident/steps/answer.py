"""Answers to human tasks of incidents: check, refuse and enter them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from sqlalchemy import Connection

from include.approvals.form import Entry as Entered
from include.approvals.form import Field, read_form
from include.approvals.question import Answer, AskAgain
from include.approvals.reasons import says_something
from include.incident import timeline
from include.incident.entries import EntryData
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.names import Kind
from include.incident.results import IncidentResult
from include.incident.rules import HumanStep
from include.incident.team import team_of
from include.messages import Message, _, listed


@dataclass(frozen=True)
class Given:
    """The answer of a person, or the fact that nobody answered in time.

    Attributes:
        option: the chosen one; empty if nobody answered.
        user: id of the person; None if nobody answered.
        name: of the person, which some auth managers store apart from the id.
        at: when the person answered.
        entered: the fields as Airflow passed them; `read` checks them.
        part: of the step, if it is done several times: the authority of a report.
        content: of the form that was answered; see `include.incident.steps.page.content_of`.
    """

    option: str
    user: str | None
    name: str | None
    at: datetime
    entered: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    content: str = ""

    @classmethod
    def of(cls, answer: Answer, part: str, now: datetime) -> Given:
        """Return the answer to a task of Airflow."""
        return cls(
            answer.option,
            answer.user,
            answer.name,
            answer.at or now,
            answer.entered,
            part,
            answer.content,
        )


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


CHANGED = _("the content of the page changed after the form was made; review the new page")


@dataclass(frozen=True)
class Values:
    """The checked values of a form.

    Attributes:
        found: by field; fields that were left empty are missing.
    """

    found: Mapping[str, Entered]

    def text(self, name: str) -> str:
        """Return the text of a field without customer values; empty if it was left empty."""
        return str(self.found.get(name, ""))

    def ticked(self, name: str) -> bool:
        """Return whether a box was ticked."""
        return self.found.get(name) is True

    def says(self, name: str) -> bool:
        """Return whether a field holds words."""
        return says_something(self.text(name))


def person(
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    given: Given,
    never: Iterable[str] = (),
) -> str:
    """Return the account of the person who answered, in the spelling of the team.

    Raises:
        AskAgain: nobody answered, or the person does not belong to the team of the step. The
            timeline says so, and others are asked.
    """
    if not given.user or not given.option:
        words = _("Nobody answered {step} in time.", step=step)
        _keep(run, record, Kind.UNANSWERED, step, words, {"part": given.part})
        raise AskAgain(_("Nobody answered in time."))
    team = team_of(run, record, step, never)
    spellings = [spelling for spelling in (given.user, given.name) if spelling]
    who = next((member for name in spellings if (member := team.member(name))), None)
    if who is None:
        refuse(run, record, step, given, _("who answered is not of the team for this step"))
    return who


def read(
    run: IncidentRun, record: IncidentRecord, step: HumanStep, given: Given, form: Sequence[Field]
) -> Values:
    """Read what was entered.

    Args:
        run: the run or command.
        record: the incident.
        step: which one.
        given: the answer.
        form: with which it was asked.

    Raises:
        AskAgain: a field is missing or wrong. The timeline says so.
    """
    found = read_form(form, given.entered, run.zone)
    if found.problems:
        refuse(run, record, step, given, listed(found.problems), Values(found.values))
    return Values(found.values)


def refuse(
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    given: Given,
    cause: Message,
    values: Values | None = None,
) -> NoReturn:
    """Enter an answer that does not count, and ask again with what was entered.

    Args:
        run: the run or command.
        record: the incident.
        step: which one.
        given: the answer.
        cause: why it does not count.
        values: what is shown again.

    Raises:
        AskAgain: always.
    """
    kept = {name: _json(one) for name, one in (values.found if values else {}).items()}
    words = _("The answer to {step} did not count: {cause}", step=step, cause=cause)
    data = {"cause": cause.model_dump(mode="json"), "given": kept, "option": given.option}
    data |= {"part": given.part}
    _keep(run, record, Kind.REFUSED, step, words, data, by=given.user or step)
    raise AskAgain(cause, run.zone.key)


def refuse_lacking(
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    given: Given,
    missing: Sequence[Message],
    values: Values,
) -> None:
    """Refuse an answer that a document was handed in if the document lacks required fields.

    Raises:
        AskAgain: the document lacks fields; see `refuse`.
    """
    if missing:
        cause = _("the document lacks: {fields}", fields=listed(missing))
        refuse(run, record, step, given, cause, values)


def _json(value: Entered) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def done(
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    kind: Kind,
    words: Message,
    *,
    by: str,
    given: Given,
    values: Values,
    content: Callable[[IncidentRecord], str],
    data: Mapping[str, Any] | None = None,
    happened_at: datetime | None = None,
    also: Callable[[Connection], None] | None = None,
) -> Answered:
    """Enter an answer that counts, once, and return the step's result.

    Args:
        run: the run or command.
        record: the incident.
        step: which one.
        kind: of the entry.
        words: what was answered.
        by: who answered.
        given: the answer.
        values: what was entered, which a refused answer keeps.
        content: returns what the page would be about now, without a document's version.
        data: of the entry.
        happened_at: when what is told happened; when it was answered where nothing is said.
        also: what is written elsewhere with the entry, both or neither; not again where the answer
            was entered before, since other things may have been entered after it.

    Raises:
        AskAgain: the form that was answered was about something else.
    """
    with run.state.begin() as conn:
        timeline.lock_incident(conn, record.incident.id)
        before = taken(conn, record, step, given)
        if before is not None:
            return before
        record = record_in(conn, record.incident.number)
        if content(record) == given.content.partition(":")[0]:
            answered = enter(
                conn, run, record, step, kind, words, by=by, given=given, data=data or {},
                happened_at=happened_at,
            )  # fmt: skip
            if also is not None:
                also(conn)
            return answered
    refuse(run, record, step, given, CHANGED, values)


def taken(
    conn: Connection, record: IncidentRecord, step: HumanStep, given: Given
) -> Answered | None:
    """Return the result of a step whose answer an earlier try of the task entered."""
    entry = timeline.entered(conn, record.incident.id, _once(step, given.part, given.at))
    return _answered(entry) if entry is not None else None


def entered_at(
    run: IncidentRun, record: IncidentRecord, step: HumanStep, part: str, at: datetime
) -> Answered | None:
    """Return the result of an answer that was entered and still counts.

    Args:
        run: the run or command.
        record: the incident.
        step: which one.
        part: of the step, where it is done several times.
        at: when it was answered.
    """
    with run.state.connect() as conn:
        entry = timeline.entered(conn, record.incident.id, _once(step, part, at))
    if entry is None or entry.place not in {valid.place for valid in record.valid}:
        return None
    return _answered(entry)


def enter(
    conn: Connection,
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    kind: Kind,
    words: Message,
    *,
    by: str,
    given: Given,
    data: Mapping[str, Any],
    happened_at: datetime | None = None,
) -> Answered:
    """As `done`, in a transaction that holds the incident's lock."""
    # The API server's clock, by which it was answered, may be ahead of this machine's.
    at = min(happened_at or given.at, run.clock.now())
    entry = timeline.append(
        conn,
        record.incident.id,
        kind,
        words,
        by=by,
        clock=run.clock,
        happened_at=at,
        data={"step": step, "option": given.option, "part": given.part, **data},
        once=_once(step, given.part, given.at),
    )
    return _answered(entry)


def _once(step: HumanStep, part: str, at: datetime) -> str:
    return f"{step}:{part}:{at.isoformat()}"


def _answered(entry: timeline.Entry) -> Answered:
    return Answered(entry=entry.place, by=entry.by, option=entry.as_(EntryData).option)


def moment(
    run: IncidentRun,
    record: IncidentRecord,
    step: HumanStep,
    given: Given,
    values: Values,
    asked: Field,
    after: datetime | None = None,
) -> datetime:
    """Return the moment that was entered in a field, or that of the answer if it is empty.

    Args:
        run: the run or command.
        record: the incident.
        step: which one.
        given: the answer.
        values: what was entered.
        asked: the field.
        after: before which it cannot have been; the beginning of the leak, else awareness, where
            nothing is said.

    Raises:
        AskAgain: it is yet to come, or lies too early.
    """
    found = values.found.get(asked.name)
    if not isinstance(found, datetime):
        return given.at
    first = after or record.incident.began_at or record.incident.aware_at
    problem = None
    if found > run.clock.now():
        problem = _("is yet to come")
    elif found < first:
        problem = _("lies before {first}", first=first)
    if problem is not None:
        cause = _("{field}: {problem}", field=asked.title, problem=problem)
        refuse(run, record, step, given, cause, values)
    return found


def _keep(
    run: IncidentRun,
    record: IncidentRecord,
    kind: Kind,
    step: str,
    words: Message,
    data: Mapping[str, Any],
    by: str | None = None,
) -> None:
    with run.state.begin() as conn:
        timeline.append(
            conn, record.incident.id, kind, words, by=by or step, clock=run.clock,
            data={"step": step, **data},
        )  # fmt: skip
