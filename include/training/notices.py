"""Notifications about courses: reminders, copies to supervisors, summaries, and their recipients.

Minutes lie between queueing and sending, or days if the mail server was down. A person who took the
course meanwhile, left, or went on leave, is not reminded any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import TypeVar

from psycopg.rows import class_row
from psycopg.sql import SQL

from include.messages import Message, _
from include.notify.notice import Notice, to_role
from include.policy.rules import Role
from include.training import waivers
from include.training.obligations import SOON, Department, Due
from include.training.rules import TrainingRules
from include.training.sources import Sources, open_sources, telling
from include.training.standing import (
    COPY,
    DEPARTMENT,
    REMINDER,
    Told,
    reached_by,
    read,
    read_weekly,
    told_of,
    week_of,
    weekly,
)
from include.workflow.run_context import RunContext

_FOUND = SQL("""
SELECT DISTINCT ON (person) person, coalesce(name, '') AS name, coalesce(mail, '') AS mail,
    coalesce(department, '') AS department, coalesce(supervisor, '') AS supervisor,
    coalesce(head, false) AS head,
    coalesce(joined_on <= %(day)s AND coalesce(left_on, 'infinity') >= %(day)s, false) AS employed,
    coalesce(leave_from <= %(day)s AND coalesce(leave_until, 'infinity') >= %(day)s, false)
        AS on_leave
FROM {people} AS everybody
WHERE {which}
ORDER BY person, employed DESC, joined_on DESC, department""")


@dataclass(frozen=True)
class Person:
    """A person of the roster on a day.

    Attributes:
        person: staff number.
        name: of the person.
        mail: address; empty where there is none.
        department: by name.
        supervisor: staff number; empty where nobody is named.
        head: whether the person is head of the department.
        employed: has joined and not left.
        on_leave: is on leave.
    """

    person: str
    name: str
    mail: str
    department: str
    supervisor: str
    head: bool
    employed: bool
    on_leave: bool

    @property
    def is_there(self) -> bool:
        """Whether the person can be told things."""
        return self.employed and not self.on_leave


@dataclass
class Roster:
    """The roster on one day; people are looked up once, in bulk.

    Attributes:
        sources: where the roster is.
        day: the day.
    """

    sources: Sources
    day: date
    _known: dict[str, Person | None] = field(default_factory=dict)
    _heads: dict[str, list[Person]] | None = None

    def find(self, people: Iterable[str]) -> dict[str, Person]:
        """Look people up; those whom the roster does not have are left out."""
        wanted = [number for number in dict.fromkeys(people) if number]
        unknown = [number for number in wanted if number not in self._known]
        if unknown:
            found = {one.person: one for one in self._select("person = ANY(%(people)s)", unknown)}
            self._known |= {number: found.get(number) for number in unknown}
        return {number: person for number in wanted if (person := self._known[number]) is not None}

    def heads(self) -> dict[str, list[Person]]:
        """Return the heads who are present, by department."""
        if self._heads is None:
            heads: dict[str, list[Person]] = {}
            for head in self._select("head", []):
                if head.head and head.is_there:
                    heads.setdefault(head.department, []).append(head)
            self._heads = heads
        return self._heads

    def above(self, people: Iterable[str]) -> dict[str, Person | None]:
        """Return who is notified of people's overdue courses; None if no superior can be notified.

        The supervisor; where that one has left, is on leave, or is not in the roster, the next one
        above, and at the end of the line a head of the department. A line that turns in a circle
        ends where it meets somebody again.
        """
        wanted = list(dict.fromkeys(people))
        seen: set[str] = set()
        level = set(wanted)
        while level:  # a level at a time, so that each takes one query
            self.find(level)
            seen |= level
            level = (
                {person.supervisor for person in map(self._known.get, level) if person}
                - seen
                - {""}
            )
        return {number: self._told_of(number) for number in wanted}

    def _told_of(self, person: str) -> Person | None:
        seen = {person}
        below = self._known.get(person)
        while below is not None and below.supervisor and below.supervisor not in seen:
            seen.add(below.supervisor)
            below = self._known.get(below.supervisor)
            if below is not None and below.is_there:
                return below
        of = self._known.get(person)
        heads = self.heads().get(of.department, []) if of else []
        return next((head for head in heads if head.person != person), None)

    def _select(self, which: str, people: list[str]) -> Iterator[Person]:
        assert which in ("head", "person = ANY(%(people)s)")
        connection = self.sources.connection
        with telling("people"), connection.cursor(row_factory=class_row(Person)) as rows:
            query = _FOUND.format(people=self.sources["people"], which=SQL(which))
            rows.execute(query, {"day": self.day, "people": people})
            yield from rows


MOST_LINES = 20  # of a summary; the report has the rest
_OWN = _("Training that you have to take")
_TEAM = _("Overdue training in your team")


def reminder(due: Due, person: Person) -> Notice:
    """Return the reminder of a person's own course."""
    values = {"title": due.title, "day": due.due_on}
    if due.rung < 0:
        line = _("“{title}” is due on {day}.", **values)
    else:
        line = _("“{title}” was due on {day} and is overdue: please take it now.", **values)
    return Notice(
        kind=REMINDER,
        key=told_of(due).key,
        recipient=due.person,
        heading=_OWN,
        line=line,
        name=person.name,
        address=person.mail,
        due_on=due.due_on,
    )


def copy(due: Due, person: Person, told: Person | None, role: Role) -> Iterator[Notice]:
    """Yield the copy for the supervisor, or for the owner's role if no superior can be notified."""
    line, key = _overdue(due, person.name), told_of(due).key
    if told is not None:
        yield Notice(
            kind=COPY,
            key=key,
            recipient=told.person,
            heading=_TEAM,
            line=line,
            name=told.name,
            address=told.mail,
            due_on=due.due_on,
        )
        return
    yield from to_role(
        role,
        kind=COPY,
        key=key,
        heading=_("Overdue training, and no supervisor can be told"),
        line=line,
        due_on=due.due_on,
    )


@dataclass(frozen=True)
class Week:
    """The content of a department's weekly summary.

    Attributes:
        of: the department's figures.
        overdue: its overdue obligations that the head is not told of elsewhere, the oldest first.
        names: of the people, by staff number.
    """

    of: Department
    overdue: Sequence[Due]
    names: Mapping[str, str]


def summary(week: Week, head: Person, number: str) -> Iterator[Notice]:
    """Yield the lines of a department's weekly summary for its head.

    Args:
        week: what it says.
        head: of the department.
        number: of the week, ``2026-W48``.
    """
    of = week.of
    heading = _("Training in {department} this week", department=of.name)
    sentence = _(
        "Trained: {covered} of {people} people ({share:percent}). Courses overdue: {overdue}, due "
        "in the next {days} days: {soon}; people on leave: {on_leave}.",
        covered=of.covered,
        people=of.people,
        share=1.0 if of.share is None else of.share,
        overdue=of.overdue,
        days=SOON,
        soon=of.soon,
        on_leave=of.on_leave,
    )
    lines: list[tuple[Due | str, Message]] = [("", sentence)]
    named = week.overdue[:MOST_LINES]
    lines += [(due, _overdue(due, week.names.get(due.person, ""))) for due in named]
    if len(week.overdue) > MOST_LINES:
        lines.append(("more", _("And {count} more.", count=len(week.overdue) - MOST_LINES)))
    for about, text in lines:
        yield Notice(
            kind=DEPARTMENT,
            key=weekly(of.name, number, head.person, about),
            recipient=head.person,
            heading=heading,
            line=text,
            name=head.name,
            address=head.mail,
        )


def _overdue(due: Due, name: str) -> Message:
    return _(
        "{name} ({person}): “{title}” was due on {day}.",
        name=name,
        person=due.person,
        title=due.title,
        day=due.due_on,
    )


T = TypeVar("T")


def still_due(run: RunContext[TrainingRules], keys: Sequence[str], kind: str) -> set[str]:
    """Return the keys of notifications that are still due.

    A key that cannot be read is not due: an older release or a person wrote it.

    Args:
        run: the run that sends.
        keys: of the notifications.
        kind: of the notifications.
    """
    if kind != DEPARTMENT:
        return _standing(run, _read(keys, read))
    now = week_of(run.today)
    lines = {key: told for key, (week, told) in _read(keys, read_weekly).items() if week == now}
    named = {key: told for key, told in lines.items() if told is not None}
    return (lines.keys() - named.keys()) | _standing(run, named)


def _read(keys: Sequence[str], reader: Callable[[str], T]) -> dict[str, T]:
    found = {}
    for key in keys:
        with suppress(ValueError):
            found[key] = reader(key)
    return found


def _standing(run: RunContext[TrainingRules], about: dict[str, Told]) -> set[str]:
    """Those whose obligation stands on the same rung as when they were queued."""
    if not about:
        return set()
    people = sorted({told.person for told in about.values()})
    with run.state.connect() as conn:
        waived = waivers.current(conn, run.today)
    with open_sources(run, people) as sources:
        standing = reached_by(run, sources, people, waived)
    return {key for key, told in about.items() if told.key in standing}
