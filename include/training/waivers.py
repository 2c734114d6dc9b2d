"""Waivers: a person need not take a course for a while, for a reason that somebody answers for.

A waiver ends by itself after its last day. Nothing is overwritten: an ended one stays, with who
ended it and when.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, select, update
from sqlalchemy.dialects.postgresql import insert

from include.approvals.people import same_person
from include.approvals.reasons import says_something, value_free_reason
from include.services.errors import UsageError
from include.training.obligations import Waiver
from include.training.tables import training_waiver as table

LONGEST = timedelta(days=366)
_LONGEST_CODE = 100  # characters of a staff number or of a course's code


@dataclass(frozen=True)
class Waived:
    """A waiver that is in force.

    Attributes:
        person: staff number.
        course: code.
        reason: why; what could be a customer's number is blotted out.
        until: its last day.
        granted_by: user id of who granted it.
        granted_at: when.
    """

    person: str
    course: str
    reason: str
    until: date
    granted_by: str
    granted_at: datetime

    @property
    def waives(self) -> Waiver:
        """The person and course that it waives."""
        return Waiver(self.person, self.course)


def grant(
    conn: Connection,
    person: str,
    course: str,
    *,
    reason: str,
    until: date,
    by: str,
    at: datetime,
) -> Waived:
    """Waive a course for a person.

    Args:
        conn: the state database, in a transaction.
        person: staff number.
        course: code.
        reason: why, in plain words.
        until: the last day of the waiver.
        by: who grants it; not the person.
        at: the moment, in the timezone whose days count.

    Raises:
        UsageError: one is in force already, the reason says nothing, the day is over or too far
            away, or the person would waive their own course.
    """
    person, course = _code(person, "staff number"), _code(course, "course")
    if not by.strip():
        raise UsageError("Nobody is named who grants it.", "Name the person with --by.")
    if same_person(by, person):
        raise UsageError(f"{person} cannot waive their own course.", "Have somebody else do it.")
    if not says_something(reason):
        raise UsageError("The reason says nothing.", "Write it in plain words.")
    today = at.date()
    if until <= today:
        raise UsageError(f"{until} is not to come.", "Name a later day.")
    if until - today > LONGEST:
        raise UsageError(
            f"{until} is more than {LONGEST.days} days away.",
            f"Name {today + LONGEST} or an earlier day, and waive it again then.",
        )
    # One that has run out makes room. It ends with its last day, whoever notices it.
    ran_out = _open(person, course) & (table.c.until < today)
    conn.execute(update(table).where(ran_out).values(ended_by=by.strip(), ended_at=at))
    row = {
        "person": person,
        "course": course,
        "reason": value_free_reason(reason),
        "until": until,
        "granted_by": by.strip(),
        "granted_at": at,
    }
    statement = insert(table).values(row).on_conflict_do_nothing().returning(table.c.id)
    if conn.scalar(statement) is None:  # somebody else granted it, perhaps at this moment
        raise UsageError(
            f"{course} is waived for {person} already.",
            f"See ./parcelseal training waivers; ./parcelseal training unwaive {person} {course} "
            "ends it.",
        )
    return Waived(**row)  # type: ignore[arg-type]  # columns are the fields


def end(conn: Connection, person: str, course: str, *, by: str, at: datetime) -> None:
    """End a waiver before its day.

    Args:
        conn: the state database, in a transaction.
        person: staff number.
        course: code.
        by: who ends it.
        at: the moment, in the timezone whose days count.

    Raises:
        UsageError: none is in force, or nobody is named.
    """
    person, course = _code(person, "staff number"), _code(course, "course")
    if not by.strip():
        raise UsageError("Nobody is named who ends it.", "Name the person with --by.")
    in_force = _open(person, course) & (table.c.until >= at.date())
    done = conn.execute(update(table).where(in_force).values(ended_by=by.strip(), ended_at=at))
    if not done.rowcount:
        raise UsageError(
            f"{course} is not waived for {person}.", "See ./parcelseal training waivers."
        )


def listed(conn: Connection, day: date) -> list[Waived]:
    """Return the waivers in force on a day, the one that ends first at the head."""
    columns = [table.c[name] for name in Waived.__dataclass_fields__]
    query = (
        select(*columns)
        .where(table.c.ended_at.is_(None), table.c.until >= day)
        .order_by(table.c.until, table.c.person, table.c.course)
    )
    return [Waived(**row) for row in conn.execute(query).mappings()]


def current(conn: Connection, day: date) -> list[Waiver]:
    """Return the waivers of a day."""
    return [waiver.waives for waiver in listed(conn, day)]


def _open(person: str, course: str) -> ColumnElement[bool]:
    return and_(table.c.person == person, table.c.course == course, table.c.ended_at.is_(None))


def _code(text: str, what: str) -> str:
    """A staff number or a course's code, as uploads write them too."""
    code = unicodedata.normalize("NFKC", text).strip()
    if not code or len(code) > _LONGEST_CODE or not code.isprintable():
        raise UsageError(f"That is no {what}.", "Write it as it stands in the roster or courses.")
    return code
