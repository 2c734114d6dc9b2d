"""The register of findings: their owners, due dates and events.

Each finding has an owner and a due date. A finding of an audit or an incident is closed only by a
passed retest of another person, after the owner gave a cause and a corrective action. A finding
that a run reported is closed only by a later complete run, see `include.findings.run_findings`. The
register stores each answer, retest, comment, decision and reminder as an event with person and
time, and never overwrites an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from include.approvals.approvers import is_among
from include.approvals.reasons import has_words, redact_reason
from include.evidence.model import Outcome
from include.frozen import FrozenModel
from include.messages import Message
from include.services.errors import UsageError
from include.state.findings import finding, finding_event, finding_report

REMIND_AHEAD = timedelta(days=7)  # of the day on which it is due
REMIND_EVERY = timedelta(days=7)
MAX_COMMENTS = 200  # of a finding
RUN = "run"
EVENT = "event"


class Event(StrEnum):
    """The type of an event in the history of a finding.

    Attributes:
        ANSWERED: the owner gave a cause and a corrective action.
        MET: a retest passed.
        DEVIATES: a retest failed.
        REMINDED: a reminder was sent to the owner.
        CLOSED: a complete run examined the subject and no longer reported the finding.
        COMMENTED: a person wrote a comment.
        REASSIGNED: a person named another owner.
        ACCEPTED: a person accepted the risk until a date.
        WITHDRAWN: a person withdrew the acceptance of the risk.
    """

    ANSWERED = "answered"
    MET = "met"
    DEVIATES = "deviates"
    REMINDED = "reminded"
    CLOSED = "closed"
    COMMENTED = "commented"
    REASSIGNED = "reassigned"
    ACCEPTED = "accepted"
    WITHDRAWN = "withdrawn"


class State(StrEnum):
    """The status of a finding in the register.

    Attributes:
        OPEN: the owner has not answered, or the last retest failed.
        ANSWERED: the owner answered with a corrective action, and a retest or a run is due.
        ACCEPTED: the risk is accepted until a date.
        CLOSED: a retest passed, or a run no longer reported the finding.
    """

    OPEN = "open"
    ANSWERED = "answered"
    ACCEPTED = "accepted"
    CLOSED = "closed"


class Details(FrozenModel):
    """The texts of a finding that a run reported, besides its description.

    Attributes:
        subject_title: display name of the subject; None if the subject is shown as it is.
        action: advice to the reader, in words for compliance staff.
        for_engineers: the command, file, key or task that the action needs; None if it needs none.
    """

    subject_title: Message | None = None
    action: Message
    for_engineers: Message | None = None


@dataclass(frozen=True)
class RunFinding:
    """The origin of a finding that a run reported. For the texts, see `include.evidence.model`.

    Attributes:
        workflow: DAG id of the workflow; empty for findings that every workflow reports.
        step: name of the step.
        part: item that the mapped step worked on; empty if the step is not mapped.
        code: stable identifier of the type of finding.
        subject: object that the finding is about.
        aspect: id that distinguishes findings with the same code and subject.
        clause: number of the policy clause.
        opened_in: bundle of the run that reported the finding first.
        severity: severity in the newest report.
        details: texts of the newest report.
        reported_in: bundle of the newest run that reported the finding.
        reported_at: time at which that bundle was sealed.
        reports: number of runs that reported the finding.
    """

    workflow: str
    step: str
    part: str
    code: str
    subject: str
    aspect: str
    clause: str
    opened_in: str
    severity: Outcome
    details: Details
    reported_in: str
    reported_at: datetime
    reports: int


@dataclass(frozen=True)
class Comment:
    """A person's comment, or the reason that a person gave for a decision about a finding."""

    kind: Event
    by: str
    at: datetime
    text: str


@dataclass(frozen=True)
class Acceptance:
    """A person's decision to accept the risk of a finding.

    Attributes:
        until: last day of the acceptance.
        severity: severity of the finding at the time of the decision. The acceptance ends when a
            run reports a worse severity.
        by: the person.
        reason: reason for the decision.
    """

    until: date
    severity: Outcome
    by: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """A finding in the register, with its last answer and its retests.

    Attributes:
        id: number of the finding in the register.
        kind: type of work that produced the finding: ``audit``, ``incident``, ``run`` for a finding
            of a run that a later run closes, or ``event`` for a finding of a run that a retest
            closes.
        reference: text that identifies the finding among those of the same kind, without customer
            data.
        description: description of the deviation, in the words of the newest report.
        owner: role of roles.yaml that is responsible for the finding.
        opened_at: time at which the finding was entered.
        due_on: current due date of the corrective action and its retest.
        first_due_on: due date at the time when the finding was entered.
        due_date_changes: number of answers that changed the due date.
        state: open, answered (the finding waits for a retest) or closed. For the state on a day,
            which may be accepted, see `state_on`.
        cause: cause that the last answer states; empty before the first answer.
        action: corrective action that the last answer states; empty before the first answer.
        answered_by: person who gave the last answer; empty before the first answer.
        answerers: all people who gave an answer.
        closed_by: person whose retest closed the finding; empty if it is not closed, or if a run
            closed it.
        closed_at: time at which the finding was closed; None if it is not closed.
        closed_in: bundle of the run that closed the finding; empty if no run closed it.
        reminded_at: time of the last reminder to the owner; None before the first reminder.
        retests: number of retests.
        assignee: user id of the responsible person; empty if the owner has named nobody.
        acceptance: the acceptance of the risk; None if the risk was never accepted or the
            acceptance was withdrawn.
        comments: comments and reasons, oldest first.
        version: number of the finding's events, without reminders, and its severity, such as
            ``3-fail``. A decision is refused if it refers to an earlier version.
        assignees: all people who were responsible at any time.
        origin: origin of a finding that a run reported; None for other findings.
    """

    id: int
    kind: str
    reference: str
    description: Message
    owner: str
    opened_at: datetime
    due_on: date
    first_due_on: date
    due_date_changes: int
    state: State
    cause: str = ""
    action: str = ""
    answered_by: str = ""
    answerers: tuple[str, ...] = ()
    closed_by: str = ""
    closed_at: datetime | None = None
    closed_in: str = ""
    reminded_at: datetime | None = None
    retests: int = 0
    assignee: str = ""
    acceptance: Acceptance | None = None
    comments: tuple[Comment, ...] = ()
    version: str = ""
    assignees: tuple[str, ...] = ()
    origin: RunFinding | None = None

    @property
    def severity(self) -> Outcome:
        """The severity in the newest report. Findings of audits and incidents count as failed."""
        return self.origin.severity if self.origin is not None else Outcome.FAIL

    @property
    def closes_by_run(self) -> bool:
        """Whether a later run closes the finding, instead of a retest."""
        return self.kind == RUN

    def is_accepted(self, today: date) -> bool:
        """Return whether the risk is accepted on a day.

        An acceptance ends after its last day, or when a run reports a worse severity.
        """
        accepted = self.acceptance
        return (
            accepted is not None
            and today <= accepted.until
            and Outcome.worst([accepted.severity, self.severity]) is accepted.severity
        )

    def state_on(self, today: date) -> State:
        """Return the state on a day, which is `State.ACCEPTED` while the risk is accepted."""
        if self.state is not State.CLOSED and self.is_accepted(today):
            return State.ACCEPTED
        return self.state

    def overdue(self, today: date) -> bool:
        """Return whether the finding is past its due date, not closed, and its risk not accepted.

        Args:
            today: current date. A finding that is due today is not overdue.
        """
        return (
            self.state is not State.CLOSED and self.due_on < today and not self.is_accepted(today)
        )

    def needs_reminder(self, now: datetime) -> bool:
        """Return whether a reminder to the owner has to be sent now.

        Reminders start seven days before the due date and repeat every seven days until the finding
        is closed. There is no reminder while the risk is accepted.

        Args:
            now: current time, in the timezone in which days are counted.
        """
        if self.state is State.CLOSED or self.due_on - REMIND_AHEAD > now.date():
            return False
        if self.is_accepted(now.date()):
            return False
        if self.reminded_at is None:
            return True
        return self.reminded_at.astimezone(now.tzinfo).date() + REMIND_EVERY <= now.date()


def open_finding(
    conn: Connection,
    *,
    kind: str,
    reference: str,
    description: Message,
    owner: str,
    opened_at: datetime,
    due_on: date,
) -> int:
    """Enter a finding in the register, and return its number.

    If the register already has a finding with the same kind and reference, nothing is entered, and
    the number of the existing finding is returned.

    Args:
        conn: connection to the state database.
        kind: type of work that produced the finding, such as ``audit``.
        reference: text that identifies the finding among those of the same kind, without customer
            data.
        description: description of the deviation.
        owner: role of roles.yaml that is responsible for the finding.
        opened_at: current time.
        due_on: due date of the corrective action and its retest.
    """
    row = {
        "kind": kind,
        "reference": reference,
        "description": description.model_dump(mode="json"),
        "owner": owner,
        "opened_at": opened_at,
        "due_on": due_on,
    }
    conn.execute(insert(finding).values(row).on_conflict_do_nothing())
    key = select(finding.c.id).where(finding.c.kind == kind, finding.c.reference == reference)
    return int(conn.scalars(key).one())


def answer(
    conn: Connection,
    number: int,
    *,
    cause: str,
    action: str,
    by: str,
    at: datetime,
    due_on: date | None = None,
    latest: date | None = None,
) -> Finding:
    """Record an owner's answer to a finding: the cause and the corrective action.

    Args:
        conn: connection to the state database, with an open transaction.
        number: number of the finding in the register.
        cause: the cause in words. Passages that look like customer numbers are redacted.
        action: the corrective action in words. Passages that look like customer numbers are
            redacted.
        by: the person who answers.
        at: current time, in the timezone in which days are counted.
        due_on: a later due date; None to keep the current due date.
        latest: latest due date that the answer may state; None for no limit.

    Raises:
        UsageError: the finding does not exist or is closed; `cause`, `action` or `by` is empty; or
            the new due date is in the past, before the current due date, or after `latest`.
    """
    current = get_finding(conn, number, locked=True)
    if current.state is State.CLOSED:
        raise UsageError(
            f"Finding {number} is closed.", "If there is a new deviation, it needs a new finding."
        )
    if not by.strip():
        raise UsageError("The person who answers is missing.", "Name the person with --by.")
    for name, words in (("cause", cause), ("corrective action", action)):
        if not has_words(words):
            raise UsageError(f"The {name} contains no words.", "Describe it in plain words.")
    if due_on is not None and due_on < at.date():
        raise UsageError(f"The due date {due_on} has passed.", "Name today or a later day.")
    if due_on is not None and due_on < current.due_on:
        raise UsageError(
            f"The due date {due_on} is before the current due date {current.due_on} of finding "
            f"{number}.",
            "Name a later day, or leave out the due date.",
        )
    if due_on is not None and latest is not None and due_on > latest:
        raise UsageError(
            f"The due date {due_on} is after {latest}.",
            "Name an earlier day (findings.yaml, longest_postponement), or have the risk accepted.",
        )
    append_event(
        conn,
        number,
        Event.ANSWERED,
        by,
        at,
        cause=redact_reason(cause),
        action=redact_reason(action),
        due_on=due_on,
    )
    return get_finding(conn, number)


def retest(conn: Connection, number: int, *, met: bool, by: str, at: datetime) -> Finding:
    """Record the retest of a finding.

    A passed retest closes the finding, a failed retest reopens it.

    Args:
        conn: connection to the state database, with an open transaction.
        number: number of the finding in the register.
        met: whether the retest passed.
        by: the person who tested.
        at: current time.

    Raises:
        UsageError: the finding does not exist, is closed or has no answer, the person is missing,
            or the person who tested has answered the finding before.
    """
    current = get_finding(conn, number, locked=True)
    if current.state is State.CLOSED:
        raise UsageError(
            f"Finding {number} is closed.", "If there is a new deviation, it needs a new finding."
        )
    if current.closes_by_run:
        raise UsageError(
            f"Finding {number} was reported by a run. A retest cannot close it.",
            "Correct the cause, and run the workflow again: the next complete run closes it.",
        )
    if current.state is State.OPEN:
        raise UsageError(
            f"Finding {number} has no corrective action yet, so it cannot be retested.",
            f"Answer it first: ./parcelseal findings answer {number} --cause ... --action ...",
        )
    if not by.strip():
        raise UsageError("The person who retested is missing.", "Name the person with --by.")
    if is_among(by, current.answerers):
        raise UsageError(
            f"{by} answered finding {number} and cannot retest it.",
            "Have another person retest it.",
        )
    append_event(conn, number, Event.MET if met else Event.DEVIATES, by, at)
    if met:
        conn.execute(finding.update().where(finding.c.id == number).values(closed_at=at))
    return get_finding(conn, number)


def record_reminder(conn: Connection, number: int, *, by: str, at: datetime) -> None:
    """Record that a reminder was sent to the owner of a finding.

    Args:
        conn: connection to the state database, with an open transaction.
        number: number of the finding in the register.
        by: name of the person or workflow that sent the reminder.
        at: current time.
    """
    append_event(conn, number, Event.REMINDED, by, at)


def get_finding(conn: Connection, number: int, *, locked: bool = False) -> Finding:
    """Return a finding of the register.

    Args:
        conn: connection to the state database.
        number: number of the finding.
        locked: whether to lock the finding until the transaction ends.

    Raises:
        UsageError: the register has no finding with this number.
    """
    query = select(finding).where(finding.c.id == number)
    possible = 0 < number < 2**63  # PostgreSQL would raise an error for a number beyond bigint
    rows = conn.execute(query.with_for_update() if locked else query) if possible else None
    row = rows.mappings().first() if rows else None
    if row is None:
        raise UsageError(
            f"There is no finding {number}.", "List the findings: ./parcelseal findings list."
        )
    return _load_events(conn, [dict(row)])[0]


def list_findings(
    conn: Connection,
    kind: str | None = None,
    *,
    closed: bool = False,
    as_of: datetime | None = None,
) -> list[Finding]:
    """Return findings of the register, ordered by due date.

    Args:
        conn: connection to the state database.
        kind: type of work that produced the findings, such as ``audit``; None for all types.
        closed: whether closed findings are included.
        as_of: a past time. The findings, owners, due dates and states are those of that time. Texts
            and severities are those of the newest report if it was sealed by then, and otherwise
            those of the first report. None for now.
    """
    query = select(finding).order_by(finding.c.due_on, finding.c.id)
    if kind is not None:
        query = query.where(finding.c.kind == kind)
    is_open: ColumnElement[bool] = finding.c.closed_at.is_(None)
    if as_of is not None:
        query = query.where(finding.c.opened_at <= as_of)
        is_open = or_(is_open, finding.c.closed_at > as_of)
    if not closed:
        query = query.where(is_open)
    findings = _load_events(conn, [dict(row) for row in conn.execute(query).mappings()], as_of)
    return sorted(findings, key=lambda finding: (finding.due_on, finding.id))


def _load_events(
    conn: Connection, rows: Sequence[dict[str, Any]], as_of: datetime | None = None
) -> list[Finding]:
    """Read the events and newest reports of findings, and return each finding with them.

    Only the newest reminder of each finding is read, because owners get a reminder every week.

    Args:
        conn: connection to the state database.
        rows: rows of the findings in the register, as column -> value.
        as_of: a past time, after which events are ignored; None for now.
    """
    numbers = [int(row["id"]) for row in rows]
    ids = func.any(cast(numbers, ARRAY(BigInteger)))
    is_listed = finding_event.c.finding_id == ids
    if as_of is not None:
        is_listed = and_(is_listed, finding_event.c.at <= as_of)
    is_reminder = finding_event.c.kind == Event.REMINDED
    newest_reminders = (
        select(func.max(finding_event.c.id))
        .where(is_listed, is_reminder)
        .group_by(finding_event.c.finding_id)
    )
    query = select(finding_event).where(
        is_listed, or_(~is_reminder, finding_event.c.id.in_(newest_reminders))
    )
    events: dict[int, list[dict[str, Any]]] = {}
    for event in conn.execute(query.order_by(finding_event.c.id)).mappings():
        events.setdefault(int(event["finding_id"]), []).append(dict(event))
    reported = select(finding_report).where(finding_report.c.finding_id == ids)
    if as_of is not None:
        reported = reported.where(finding_report.c.reported_at <= as_of)
    reports = {
        int(report["finding_id"]): dict(report) for report in conn.execute(reported).mappings()
    }
    return [
        _finding_of(row, events.get(number, []), reports.get(number))
        for number, row in zip(numbers, rows, strict=True)
    ]


def _finding_of(
    row: Mapping[str, Any], events: Sequence[Mapping[str, Any]], report: Mapping[str, Any] | None
) -> Finding:
    latest: dict[str, Any] = {"state": State.OPEN, "owner": row["owner"]}
    comments: list[Comment] = []
    due = [row["due_on"]]
    for event in events:
        kind = Event(event["kind"])
        if event["reason"] is not None:
            comments.append(Comment(kind, event["by"], event["at"], event["reason"]))
        if kind is Event.ANSWERED and event["due_on"] is not None:
            due.append(event["due_on"])
        latest |= _changes_of(event)
    answers = [event for event in events if event["kind"] == Event.ANSWERED]
    origin = _origin_of(row, report)
    severity = Outcome.FAIL if origin is None else origin.severity
    is_answered = latest["state"] is State.ANSWERED
    if is_answered and origin is not None and origin.reported_at > answers[-1]["at"]:
        latest["state"] = State.OPEN  # the corrective action did not help
    return Finding(
        id=row["id"],
        kind=row["kind"],
        reference=row["reference"],
        description=Message.model_validate((report or row)["description"]),
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        due_on=due[-1],
        first_due_on=due[0],
        due_date_changes=len(due) - 1,
        answerers=tuple(answer["by"] for answer in answers),
        retests=sum(event["kind"] in (Event.MET, Event.DEVIATES) for event in events),
        comments=tuple(comments),
        version=f"{sum(event['kind'] != Event.REMINDED for event in events)}-{severity}",
        assignees=tuple(event["assignee"] for event in events if event["assignee"]),
        origin=origin,
        **latest,
    )


def _changes_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a finding that an event changes."""
    match Event(event["kind"]):
        case Event.ANSWERED:
            answered = {name: event[name] for name in ("cause", "action")}
            return answered | {"answered_by": event["by"], "state": State.ANSWERED}
        case Event.MET:
            return {"closed_by": event["by"], "state": State.CLOSED}
        case Event.DEVIATES:
            return {"state": State.OPEN}
        case Event.REMINDED:
            return {"reminded_at": event["at"]}
        case Event.CLOSED:
            return {"closed_in": event["bundle"], "state": State.CLOSED}
        case Event.REASSIGNED:
            return {"owner": event["owner"], "assignee": event["assignee"]}
        case Event.ACCEPTED:
            severity = Outcome(event["severity"])
            acceptance = Acceptance(event["until"], severity, event["by"], event["reason"])
            return {"acceptance": acceptance}
        case Event.WITHDRAWN:
            return {"acceptance": None}
        case Event.COMMENTED:
            return {}


def _origin_of(row: Mapping[str, Any], report: Mapping[str, Any] | None) -> RunFinding | None:
    if row["dag_id"] is None:
        return None
    newest = report or {
        "bundle": row["opened_in"],
        "reported_at": row["opened_at"],
        "reports": 1,
        **{name: row[name] for name in ("severity", "details")},
    }
    return RunFinding(
        workflow=row["dag_id"],
        **{name: row[name] for name in ("step", "part", "code", "subject", "aspect", "clause")},
        opened_in=row["opened_in"],
        severity=Outcome(newest["severity"]),
        details=Details.model_validate(newest["details"]),
        reported_in=newest["bundle"],
        reported_at=newest["reported_at"],
        reports=newest["reports"],
    )


def append_event(
    conn: Connection,
    number: int,
    kind: Event,
    by: str,
    at: datetime,
    **columns: object,
) -> None:
    """Append an event to the history of a finding.

    Args:
        conn: connection to the state database, with an open transaction.
        number: number of the finding.
        kind: type of the event.
        by: person or workflow.
        at: current time.
        columns: further columns of the event.
    """
    values = {"finding_id": number, "kind": str(kind), "by": by.strip(), "at": at} | columns
    conn.execute(insert(finding_event).values(values))
