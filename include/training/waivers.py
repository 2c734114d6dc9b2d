"""Grant, end and list waivers: exemptions of a person from a course for a limited time.

A waiver expires after its last day. If a person ends a waiver earlier, the waiver is kept in the
table. The row then has the user id of this person and the time.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, select, update
from sqlalchemy.dialects.postgresql import insert

from include.approvals.approvers import same_person
from include.approvals.reasons import has_words, redact_reason
from include.services.errors import UsageError
from include.training.obligations import Waiver
from include.training.tables import training_waiver as table

MAX_DURATION = timedelta(days=366)
_MAX_CODE_LENGTH = 100  # characters of a staff number or of a course's code


@dataclass(frozen=True)
class GrantedWaiver:
    """A waiver that is in force.

    Attributes:
        person: staff number of the exempt person.
        course: code of the course.
        reason: reason for the waiver; numbers that may belong to a customer are redacted.
        until: last day of the waiver.
        granted_by: user id of the approver.
        granted_at: time at which the waiver was granted.
    """

    person: str
    course: str
    reason: str
    until: date
    granted_by: str
    granted_at: datetime

    @property
    def waiver(self) -> Waiver:
        """Return the waiver with only its person and its course."""
        return Waiver(self.person, self.course)


def grant_waiver(
    conn: Connection,
    person: str,
    course: str,
    *,
    reason: str,
    until: date,
    by: str,
    at: datetime,
) -> GrantedWaiver:
    """Grant a person a waiver of a course.

    Args:
        conn: connection to the state database, in a transaction.
        person: staff number of the exempt person.
        course: code of the course.
        reason: reason for the waiver, without customer data.
        until: last day of the waiver.
        by: user id of the approver, who must not be the exempt person.
        at: time at which the waiver is granted, in the policy pack's timezone.

    Raises:
        UsageError: the person already has a waiver of the course, the reason is empty, the last day
            is not in the future or is too far away, or the approver is missing or is the exempt
            person.
    """
    person, course = _checked_code(person, "staff number"), _checked_code(course, "course code")
    if not by.strip():
        raise UsageError(
            "The person who grants the waiver is not named.", "Name the person with --by."
        )
    if same_person(by, person):
        raise UsageError(
            f"{person} cannot waive their own course.", "Ask another person to grant the waiver."
        )
    if not has_words(reason):
        raise UsageError("The reason has no words.", "Write it in plain words.")
    today = at.date()
    if until <= today:
        raise UsageError(f"{until} is not in the future.", "Name a later date.")
    if until - today > MAX_DURATION:
        raise UsageError(
            f"{until} is more than {MAX_DURATION.days} days away.",
            f"Name {today + MAX_DURATION} or an earlier date, and renew the waiver then.",
        )
    # An expired waiver is marked as ended, so that the unique index allows a new waiver
    expired = _is_open(person, course) & (table.c.until < today)
    conn.execute(update(table).where(expired).values(ended_by=by.strip(), ended_at=at))
    row = {
        "person": person,
        "course": course,
        "reason": redact_reason(reason),
        "until": until,
        "granted_by": by.strip(),
        "granted_at": at,
    }
    statement = insert(table).values(row).on_conflict_do_nothing().returning(table.c.id)
    if conn.scalar(statement) is None:  # granted already, perhaps by a concurrent transaction
        raise UsageError(
            f"{course} is already waived for {person}.",
            f"See ./parcelseal training waivers; ./parcelseal training unwaive {person} {course} "
            "ends it.",
        )
    return GrantedWaiver(**row)  # type: ignore[arg-type]  # columns are the fields


def end_waiver(conn: Connection, person: str, course: str, *, by: str, at: datetime) -> None:
    """End a waiver before its last day.

    Args:
        conn: connection to the state database, in a transaction.
        person: staff number of the exempt person.
        course: code of the course.
        by: user id of the person who ends the waiver.
        at: time at which the waiver ends, in the policy pack's timezone.

    Raises:
        UsageError: the person has no waiver of the course, or ``by`` is empty.
    """
    person, course = _checked_code(person, "staff number"), _checked_code(course, "course code")
    if not by.strip():
        raise UsageError(
            "The person who ends the waiver is not named.", "Name the person with --by."
        )
    in_force = _is_open(person, course) & (table.c.until >= at.date())
    result = conn.execute(update(table).where(in_force).values(ended_by=by.strip(), ended_at=at))
    if not result.rowcount:
        raise UsageError(
            f"{course} is not waived for {person}.", "See ./parcelseal training waivers."
        )


def list_waivers(conn: Connection, day: date) -> list[GrantedWaiver]:
    """Return the waivers that are in force on a day, sorted by their last day."""
    columns = [table.c[name] for name in GrantedWaiver.__dataclass_fields__]
    query = (
        select(*columns)
        .where(table.c.ended_at.is_(None), table.c.until >= day)
        .order_by(table.c.until, table.c.person, table.c.course)
    )
    return [GrantedWaiver(**row) for row in conn.execute(query).mappings()]


def waivers_in_force(conn: Connection, day: date) -> list[Waiver]:
    """Return the waivers that are in force on a day, each with only its person and course."""
    return [waiver.waiver for waiver in list_waivers(conn, day)]


def _is_open(person: str, course: str) -> ColumnElement[bool]:
    return and_(table.c.person == person, table.c.course == course, table.c.ended_at.is_(None))


def _checked_code(text: str, kind: str) -> str:
    """Return a staff number or the code of a course, normalized as in uploads.

    Args:
        text: text that a person typed.
        kind: name of the value in the error message.

    Raises:
        UsageError: the text is empty or too long, or has invisible characters.
    """
    code = unicodedata.normalize("NFKC", text).strip()
    if not code or len(code) > _MAX_CODE_LENGTH or not code.isprintable():
        raise UsageError(
            f"The {kind} is empty, too long or has invisible characters.",
            "Write it as in the roster or the courses.",
        )
    return code
