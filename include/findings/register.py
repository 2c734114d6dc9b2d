"""The register of findings, and the weekly reminders of their owners.

A finding has an owner and a due date. The owner answers with a cause and a corrective action; then
another person tests again. Only a successful test closes it; an answer never does. Nothing is
overwritten: every step is an event with person and time. A person who answered may not test it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.approvals.people import is_among
from include.approvals.reasons import says_something, value_free_reason
from include.messages import Message, _
from include.notify import outbox
from include.notify.notice import Notice, to_role
from include.notify.outbox import Run
from include.policy.rules import NoticeRules, Role
from include.services.errors import UsageError
from include.state.findings import finding, finding_event

REMIND_AHEAD = timedelta(days=7)  # of the day on which it is due
REMIND_EVERY = timedelta(days=7)


class Event(StrEnum):
    """What happened to a finding."""

    ANSWERED = "answered"
    MET = "met"
    DEVIATES = "deviates"
    REMINDED = "reminded"


class State(StrEnum):
    """Where a finding stands."""

    OPEN = "open"
    ANSWERED = "answered"
    CLOSED = "closed"


@dataclass(frozen=True)
class Found:
    """A finding with its last answer and test.

    Attributes:
        id: number in the register.
        kind: of work that found it, ``audit``.
        reference: names it within its kind; no customer's value.
        what: what was found.
        owner: role of roles.yaml that answers for it.
        opened_at: when it was entered.
        due_on: day by which it is to be corrected and tested again, as last moved.
        first_due_on: the day that it had when it was opened.
        moved: how often an answer moved the day.
        state: open, answered (waits for its retest), closed.
        cause: by the last answer; empty while nobody answered.
        action: corrective action, likewise.
        answered_by: who answered last.
        answerers: everybody who ever answered.
        closed_by: who tested it with success; empty while it is not closed.
        reminded_at: when its owner was reminded last.
        retests: how often it was tested again.
    """

    id: int
    kind: str
    reference: str
    what: Message
    owner: str
    opened_at: datetime
    due_on: date
    first_due_on: date
    moved: int
    state: State
    cause: str = ""
    action: str = ""
    answered_by: str = ""
    answerers: tuple[str, ...] = ()
    closed_by: str = ""
    reminded_at: datetime | None = None
    retests: int = 0

    def overdue(self, today: date) -> bool:
        """Return whether its day has passed and it is not closed."""
        return self.state is not State.CLOSED and self.due_on < today

    def to_be_reminded(self, now: datetime) -> bool:
        """Whether its owner has to hear of it: due soon or over, and not told for a week of days.

        Args:
            now: the moment, in the timezone whose days count.
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
    what: Message,
    owner: str,
    opened_at: datetime,
    due_on: date,
) -> int:
    """Enter a finding and return its number; the same one again is the one that is there."""
    row = {
        "kind": kind,
        "reference": reference,
        "what": what.model_dump(mode="json"),
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
) -> Found:
    """Enter the cause and the corrective action.

    Args:
        conn: the state database, in a transaction.
        number: of the finding.
        cause: in plain words; what could be a customer's number is blotted out.
        action: the corrective action, likewise.
        by: who answers.
        at: the moment, in the timezone whose days count.
        due_on: a later day, where the action needs it.

    Raises:
        UsageError: there is no such finding, it is closed, words are missing, or the day is over or
            before the one that stands.
    """
    found = one(conn, number, locked=True)
    if found.state is State.CLOSED:
        raise UsageError(f"Finding {number} is closed.", "A new deviation is a new finding.")
    if not by.strip():
        raise UsageError("Nobody is named who answers.", "Name the person with --by.")
    for name, words in (("cause", cause), ("corrective action", action)):
        if not says_something(words):
            raise UsageError(f"The {name} says nothing.", "Write it in plain words.")
    if due_on is not None and due_on < at.date():
        raise UsageError(f"{due_on} is over.", "Name a day that is to come.")
    if due_on is not None and due_on < found.due_on:
        raise UsageError(
            f"{due_on} is before {found.due_on}, by which finding {number} is due.",
            "Name a later day, or leave it out.",
        )
    _happened(
        conn,
        number,
        Event.ANSWERED,
        by,
        at,
        cause=value_free_reason(cause),
        action=value_free_reason(action),
        due_on=due_on,
    )
    return one(conn, number)


def retest(conn: Connection, number: int, *, met: bool, by: str, at: datetime) -> Found:
    """Enter what a second test came to: met closes the finding, deviating opens it again.

    Raises:
        UsageError: there is no such finding, it is closed, nobody answered it, or a person who
            answered it tests it.
    """
    found = one(conn, number, locked=True)
    if found.state is State.CLOSED:
        raise UsageError(f"Finding {number} is closed.", "A new deviation is a new finding.")
    if found.state is State.OPEN:
        raise UsageError(
            f"Finding {number} has no corrective action yet: there is nothing to test again.",
            f"Answer it first: ./parcelseal findings answer {number} --cause ... --action ...",
        )
    if not by.strip():
        raise UsageError("Nobody is named who tested.", "Name the person with --by.")
    if is_among(by, found.answerers):
        raise UsageError(
            f"{by} answered finding {number} and cannot test it.", "Have somebody else test it."
        )
    _happened(conn, number, Event.MET if met else Event.DEVIATES, by, at)
    if met:
        conn.execute(finding.update().where(finding.c.id == number).values(closed_at=at))
    return one(conn, number)


def record_reminder(conn: Connection, number: int, *, by: str, at: datetime) -> None:
    """Record that the owner of a finding was reminded."""
    _happened(conn, number, Event.REMINDED, by, at)


def one(conn: Connection, number: int, *, locked: bool = False) -> Found:
    """Return a finding.

    Raises:
        UsageError: there is none of that number.
    """
    query = select(finding).where(finding.c.id == number)
    possible = 0 < number < 2**63  # others the database could not even look for
    rows = conn.execute(query.with_for_update() if locked else query) if possible else None
    row = rows.mappings().first() if rows else None
    if row is None:
        raise UsageError(f"There is no finding {number}.", "See ./parcelseal findings list.")
    return _told(conn, [dict(row)])[0]


def listed(conn: Connection, kind: str | None = None, *, closed: bool = False) -> list[Found]:
    """Return findings, the one that is due first at the head.

    Args:
        conn: the state database.
        kind: of work; all where nothing is said.
        closed: whether closed ones are among them.
    """
    query = select(finding).order_by(finding.c.due_on, finding.c.id)
    if kind is not None:
        query = query.where(finding.c.kind == kind)
    if not closed:
        query = query.where(finding.c.closed_at.is_(None))
    found = _told(conn, [dict(row) for row in conn.execute(query).mappings()])
    return sorted(found, key=lambda one: (one.due_on, one.id))


def _told(conn: Connection, rows: Sequence[dict[str, object]]) -> list[Found]:
    """Return findings from rows of the register and their events."""
    events: dict[int, list[dict[str, object]]] = {}
    numbers = [int(str(row["id"])) for row in rows]
    query = (
        select(finding_event)
        .where(finding_event.c.finding_id.in_(numbers))
        .order_by(finding_event.c.id)
    )
    for event in conn.execute(query).mappings():
        events.setdefault(int(event["finding_id"]), []).append(dict(event))
    return [_one(row, events.get(number, [])) for number, row in zip(numbers, rows, strict=True)]


def _one(row: dict[str, object], events: Sequence[dict[str, object]]) -> Found:
    answerers: list[str] = []
    due = [row["due_on"]]
    said: dict[str, object] = {"state": State.OPEN}
    for event in events:
        match Event(str(event["kind"])):
            case Event.ANSWERED:
                said |= {name: event[name] for name in ("cause", "action")}
                said |= {"answered_by": event["by"], "state": State.ANSWERED}
                answerers.append(str(event["by"]))
                if event["due_on"] is not None:
                    due.append(event["due_on"])
            case Event.MET:
                said |= {"closed_by": event["by"], "state": State.CLOSED}
            case Event.DEVIATES:
                said["state"] = State.OPEN
            case Event.REMINDED:
                said["reminded_at"] = event["at"]
    tests = sum(str(each["kind"]) in (Event.MET, Event.DEVIATES) for each in events)
    fields = {name: row[name] for name in ("id", "kind", "reference", "owner", "opened_at")}
    what = Message.model_validate(row["what"])
    fields |= {"due_on": due[-1], "moved": len(due) - 1, "first_due_on": due[0]}
    fields |= {"answerers": tuple(answerers)}
    return Found(**fields, **said, what=what, retests=tests)  # type: ignore[arg-type]  # columns are the fields


def _happened(
    conn: Connection,
    number: int,
    kind: Event,
    by: str,
    at: datetime,
    **words: object,
) -> None:
    values = {"finding_id": number, "kind": str(kind), "by": by.strip(), "at": at} | words
    conn.execute(insert(finding_event).values(values))


_HEADING = _("Findings that you answer for")


def remind(
    conn: Connection,
    notice: str,
    *,
    roles: Mapping[str, Role],
    rules: NoticeRules,
    run: Run,
    now: datetime,
) -> list[int]:
    """Remind the owners of open findings that are due soon or over, each once a week.

    Whatever work they are of: there is one register, and nobody else reminds. It keeps that they
    were reminded, and their notices are queued with it.

    Args:
        conn: the state database, in a transaction.
        notice: kind of the notices, ``audit.finding``.
        roles: of roles.yaml; an owner that is none of them is not told.
        rules: of notices.yaml.
        run: that reminds.
        now: the moment, in the timezone whose days count.

    Returns:
        Numbers of the findings whose owners were reminded.
    """
    due = [
        finding
        for finding in listed(conn)
        if finding.to_be_reminded(now) and finding.owner in roles  # others cannot be notified
    ]
    for found in due:
        record_reminder(conn, found.id, by=run.dag_id, at=now)
    outbox.queue(conn, _notices(due, notice, roles, now), run, now, rules)
    return [finding.id for finding in due]


def still_open(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Of these keys of notices, those whose finding nobody closed since."""
    open_ones = {str(finding.id) for finding in listed(conn)}
    return {key for key in keys if key.partition("/")[0] in open_ones}


def _notices(
    due: Sequence[Found], kind: str, roles: Mapping[str, Role], now: datetime
) -> Iterator[Notice]:
    for found in due:
        values = {"number": found.id, "what": found.what, "day": found.due_on}
        if found.overdue(now.date()):
            line = _("No. {number}, was due on {day} and is overdue: {what}", **values)
        else:
            line = _("No. {number}, due on {day}: {what}", **values)
        yield from to_role(
            roles[found.owner],
            kind=kind,
            key=f"{found.id}/{now.date()}",
            heading=_HEADING,
            line=line,
            due_on=found.due_on,
        )
