"""The register of findings, and weekly reminders to the owners of findings.

Each finding has an owner and a due date. The owner answers with a cause and a corrective action.
Then another person tests again, and only a passed retest closes the finding. The register stores
each answer, retest and reminder as an event with person and time, and never overwrites an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.approvals.approvers import is_among
from include.approvals.reasons import has_words, redact_reason
from include.messages import Message, _
from include.notify import outbox
from include.notify.notification import Notification, to_role
from include.notify.outbox import Run
from include.policy.rules import NotificationRules, Role
from include.services.errors import UsageError
from include.state.findings import finding, finding_event

REMIND_AHEAD = timedelta(days=7)  # of the day on which it is due
REMIND_EVERY = timedelta(days=7)


class Event(StrEnum):
    """The type of an event in the history of a finding.

    Attributes:
        ANSWERED: the owner gave a cause and a corrective action.
        MET: a retest passed.
        DEVIATES: a retest failed.
        REMINDED: a reminder was sent to the owner.
    """

    ANSWERED = "answered"
    MET = "met"
    DEVIATES = "deviates"
    REMINDED = "reminded"


class State(StrEnum):
    """The status of a finding in the register.

    Attributes:
        OPEN: the owner has not answered, or the last retest failed.
        ANSWERED: the owner answered with a corrective action, and a retest is due.
        CLOSED: a retest passed.
    """

    OPEN = "open"
    ANSWERED = "answered"
    CLOSED = "closed"


@dataclass(frozen=True)
class Finding:
    """A finding in the register, with its last answer and its retests.

    Attributes:
        id: number of the finding in the register.
        kind: type of work that produced the finding, such as ``audit``.
        reference: text that identifies the finding among those of the same kind, without customer
            data.
        description: description of the deviation.
        owner: role of roles.yaml that is responsible for the finding.
        opened_at: time at which the finding was entered.
        due_on: current due date of the corrective action and its retest.
        first_due_on: due date at the time when the finding was entered.
        due_date_changes: number of answers that changed the due date.
        state: open, answered (the finding waits for a retest) or closed.
        cause: cause that the last answer states; empty before the first answer.
        action: corrective action that the last answer states; empty before the first answer.
        answered_by: person who gave the last answer; empty before the first answer.
        answerers: all people who gave an answer.
        closed_by: person whose retest closed the finding; empty if it is not closed.
        reminded_at: time of the last reminder to the owner; None before the first reminder.
        retests: number of retests.
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
    reminded_at: datetime | None = None
    retests: int = 0

    def overdue(self, today: date) -> bool:
        """Return whether the finding is past its due date and not closed.

        Args:
            today: current date. A finding that is due today is not overdue.
        """
        return self.state is not State.CLOSED and self.due_on < today

    def needs_reminder(self, now: datetime) -> bool:
        """Return whether a reminder to the owner has to be sent now.

        Reminders start seven days before the due date and repeat every seven days until the finding
        is closed.

        Args:
            now: current time, in the timezone in which days are counted.
        """
        if self.state is State.CLOSED or self.due_on - REMIND_AHEAD > now.date():
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

    Raises:
        UsageError: the finding does not exist or is closed; `cause`, `action` or `by` is empty; or
            the new due date is in the past or before the current due date.
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
    _append_event(
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
    _append_event(conn, number, Event.MET if met else Event.DEVIATES, by, at)
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
    _append_event(conn, number, Event.REMINDED, by, at)


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
    conn: Connection, kind: str | None = None, *, closed: bool = False
) -> list[Finding]:
    """Return findings of the register, ordered by due date.

    Args:
        conn: connection to the state database.
        kind: type of work that produced the findings, such as ``audit``; None for all types.
        closed: whether closed findings are included.
    """
    query = select(finding).order_by(finding.c.due_on, finding.c.id)
    if kind is not None:
        query = query.where(finding.c.kind == kind)
    if not closed:
        query = query.where(finding.c.closed_at.is_(None))
    findings = _load_events(conn, [dict(row) for row in conn.execute(query).mappings()])
    return sorted(findings, key=lambda finding: (finding.due_on, finding.id))


def _load_events(conn: Connection, rows: Sequence[dict[str, object]]) -> list[Finding]:
    """Read the events of findings, and return each finding with its events.

    Args:
        conn: connection to the state database.
        rows: rows of the findings in the register, as column -> value.
    """
    events: dict[int, list[dict[str, object]]] = {}
    numbers = [int(str(row["id"])) for row in rows]
    query = (
        select(finding_event)
        .where(finding_event.c.finding_id.in_(numbers))
        .order_by(finding_event.c.id)
    )
    for event in conn.execute(query).mappings():
        events.setdefault(int(event["finding_id"]), []).append(dict(event))
    return [
        _finding_of(row, events.get(number, [])) for number, row in zip(numbers, rows, strict=True)
    ]


def _finding_of(row: dict[str, object], events: Sequence[dict[str, object]]) -> Finding:
    answerers: list[str] = []
    due = [row["due_on"]]
    latest: dict[str, object] = {"state": State.OPEN}
    for event in events:
        match Event(str(event["kind"])):
            case Event.ANSWERED:
                latest |= {name: event[name] for name in ("cause", "action")}
                latest |= {"answered_by": event["by"], "state": State.ANSWERED}
                answerers.append(str(event["by"]))
                if event["due_on"] is not None:
                    due.append(event["due_on"])
            case Event.MET:
                latest |= {"closed_by": event["by"], "state": State.CLOSED}
            case Event.DEVIATES:
                latest["state"] = State.OPEN
            case Event.REMINDED:
                latest["reminded_at"] = event["at"]
    tests = sum(str(event["kind"]) in (Event.MET, Event.DEVIATES) for event in events)
    fields = {name: row[name] for name in ("id", "kind", "reference", "owner", "opened_at")}
    description = Message.model_validate(row["description"])
    fields |= {"due_on": due[-1], "due_date_changes": len(due) - 1, "first_due_on": due[0]}
    fields |= {"answerers": tuple(answerers)}
    return Finding(**fields, **latest, description=description, retests=tests)  # type: ignore[arg-type]  # columns are the fields


def _append_event(
    conn: Connection,
    number: int,
    kind: Event,
    by: str,
    at: datetime,
    **words: object,
) -> None:
    values = {"finding_id": number, "kind": str(kind), "by": by.strip(), "at": at} | words
    conn.execute(insert(finding_event).values(values))


_HEADING = _("Findings for which you are responsible")


def remind_owners(
    conn: Connection,
    kind: str,
    *,
    roles: Mapping[str, Role],
    rules: NotificationRules,
    run: Run,
    now: datetime,
) -> list[int]:
    """Send weekly reminders to the owners of findings that are due soon or overdue.

    The findings of all types of work are examined. For each finding, the event that records the
    reminder and the notifications to the owner are written in the same transaction.

    Args:
        conn: connection to the state database, with an open transaction.
        kind: kind of the notifications, such as ``audit.finding``. It does not select findings.
        roles: id of a role -> role of roles.yaml. If the owner of a finding is not in this mapping,
            no reminder is sent for the finding.
        rules: rules of notices.yaml.
        run: the run that sends the reminders.
        now: current time, in the timezone in which days are counted.

    Returns:
        The numbers of the findings whose owners were reminded.
    """
    due = [
        finding
        for finding in list_findings(conn)
        if finding.needs_reminder(now) and finding.owner in roles  # others cannot be notified
    ]
    for due_finding in due:
        record_reminder(conn, due_finding.id, by=run.dag_id, at=now)
    outbox.queue_notifications(conn, _notifications(due, kind, roles, now), run, now, rules)
    return [finding.id for finding in due]


def keep_open_keys(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Return the keys of those reminders whose finding is not closed.

    Args:
        conn: connection to the state database.
        keys: keys of reminders that `remind_owners` queued. Each key begins with the number of the
            finding.
    """
    open_numbers = {str(finding.id) for finding in list_findings(conn)}
    return {key for key in keys if key.partition("/")[0] in open_numbers}


def _notifications(
    due: Sequence[Finding], kind: str, roles: Mapping[str, Role], now: datetime
) -> Iterator[Notification]:
    for due_finding in due:
        values = {
            "number": due_finding.id,
            "finding": due_finding.description,
            "day": due_finding.due_on,
        }
        if due_finding.overdue(now.date()):
            line = _("OVERDUE: finding {number}, which was due on {day}: {finding}", **values)
        else:
            line = _("Finding {number}, due on {day}: {finding}", **values)
        yield from to_role(
            roles[due_finding.owner],
            kind=kind,
            key=f"{due_finding.id}/{now.date()}",
            heading=_HEADING,
            line=line,
            due_on=due_finding.due_on,
        )
