"""Create reminders, copies to superiors and weekly summaries; check them before they are sent.

A notification is sent minutes after it was queued, or days later if the mail server was down. The
check before sending drops reminders of people who have since completed the course, left the
company, or gone on leave.
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
from include.notify.notification import Notification, to_role
from include.policy.rules import Role
from include.training import waivers
from include.training.obligations import SOON_DAYS, Department, Due
from include.training.rules import TrainingRules
from include.training.sources import Sources, open_sources, report_query_faults
from include.training.training_status import (
    COPY,
    DEPARTMENT,
    REMINDER,
    ReminderId,
    current_reminder_keys,
    parse_key,
    parse_summary_key,
    reminder_id,
    summary_key,
    week_of,
)
from include.workflow.run_context import RunContext

_SELECT_PEOPLE = SQL("""
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
    """A person in the roster, with the person's status on one day.

    Attributes:
        person: staff number.
        name: name of the person.
        mail: mail address; may be empty.
        department: name of the department.
        supervisor: staff number of the supervisor; may be empty.
        head: whether the person is head of the department.
        employed: whether the person is employed on this day.
        on_leave: whether the person is on leave on this day.
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
    def is_present(self) -> bool:
        """Return whether the person is employed and not on leave.

        Only people for whom this is True receive notifications.
        """
        return self.employed and not self.on_leave


@dataclass
class Roster:
    """The people of the roster, with their status on one day.

    People are read in bulk, to save queries, and each person is read only once.

    Attributes:
        sources: relations with people, courses and completions.
        day: day for which employment and leave are determined.
    """

    sources: Sources
    day: date
    _people: dict[str, Person | None] = field(default_factory=dict)
    _heads: dict[str, list[Person]] | None = None

    def find(self, people: Iterable[str]) -> dict[str, Person]:
        """Look up people by their staff numbers: staff number -> person.

        A staff number that is not in the roster is left out of the result.

        Args:
            people: staff numbers.
        """
        numbers = [number for number in dict.fromkeys(people) if number]
        unknown = [number for number in numbers if number not in self._people]
        if unknown:
            people_read = {
                person.person: person
                for person in self._select("person = ANY(%(people)s)", unknown)
            }
            self._people |= {number: people_read.get(number) for number in unknown}
        return {
            number: person for number in numbers if (person := self._people[number]) is not None
        }

    def heads(self) -> dict[str, list[Person]]:
        """Return the heads of each department: name of the department -> heads.

        Heads who have left or are on leave are left out.
        """
        if self._heads is None:
            heads: dict[str, list[Person]] = {}
            for head in self._select("head", []):
                if head.head and head.is_present:
                    heads.setdefault(head.department, []).append(head)
            self._heads = heads
        return self._heads

    def superiors(self, people: Iterable[str]) -> dict[str, Person | None]:
        """Return the superior to notify about each person: staff number of the person -> superior.

        The superior is the first of these people who is employed and not on leave:

        - the person's supervisor, then the supervisor's supervisor, and so on. If the supervisors
          form a circle, each of them is considered once.
        - a head of the person's department, other than the person.

        The value is None if no such superior exists.

        Args:
            people: staff numbers of the people whose superiors are returned.
        """
        numbers = list(dict.fromkeys(people))
        visited: set[str] = set()
        level = set(numbers)
        while level:  # one query for each level of supervisors
            self.find(level)
            visited |= level
            level = (
                {person.supervisor for person in map(self._people.get, level) if person}
                - visited
                - {""}
            )
        return {number: self._superior_of(number) for number in numbers}

    def _superior_of(self, person: str) -> Person | None:
        visited = {person}
        superior = self._people.get(person)
        while superior is not None and superior.supervisor and superior.supervisor not in visited:
            visited.add(superior.supervisor)
            superior = self._people.get(superior.supervisor)
            if superior is not None and superior.is_present:
                return superior
        employee = self._people.get(person)
        heads = self.heads().get(employee.department, []) if employee else []
        return next((head for head in heads if head.person != person), None)

    def _select(self, condition: str, people: list[str]) -> Iterator[Person]:
        assert condition in ("head", "person = ANY(%(people)s)")
        connection = self.sources.connection
        with (
            report_query_faults("people"),
            connection.cursor(row_factory=class_row(Person)) as rows,
        ):
            query = _SELECT_PEOPLE.format(people=self.sources["people"], which=SQL(condition))
            rows.execute(query, {"day": self.day, "people": people})
            yield from rows


MAX_SUMMARY_LINES = 20  # overdue courses in a summary; the report lists more
_OWN_HEADING = _("Your mandatory training")
_TEAM_HEADING = _("Overdue training in your team")


def reminder(due: Due, person: Person) -> Notification:
    """Return the reminder about a course that a person has to take.

    Args:
        due: the obligation to take the course.
        person: the person who receives the reminder and has to take the course.
    """
    values = {"title": due.title, "day": due.due_on}
    if due.rung < 0:
        line = _("“{title}” is due by {day}.", **values)
    else:
        line = _("“{title}” was due by {day} and is overdue. Please take the course now.", **values)
    return Notification(
        kind=REMINDER,
        key=reminder_id(due).key,
        recipient=due.person,
        heading=_OWN_HEADING,
        line=line,
        name=person.name,
        address=person.mail,
        due_on=due.due_on,
    )


def supervisor_copy(
    due: Due, person: Person, superior: Person | None, role: Role
) -> Iterator[Notification]:
    """Yield a copy of the reminder about an overdue course, addressed to the person's superior.

    If no superior can be notified, a copy goes to each address of the role that is responsible for
    training.

    Args:
        due: the overdue obligation.
        person: the person who has to take the course.
        superior: the superior to notify; None if no superior can be notified.
        role: role that is responsible for training.
    """
    line, key = _overdue_line(due, person.name), reminder_id(due).key
    if superior is not None:
        yield Notification(
            kind=COPY,
            key=key,
            recipient=superior.person,
            heading=_TEAM_HEADING,
            line=line,
            name=superior.name,
            address=superior.mail,
            due_on=due.due_on,
        )
        return
    yield from to_role(
        role,
        kind=COPY,
        key=key,
        heading=_("Overdue training without a supervisor to notify"),
        line=line,
        due_on=due.due_on,
    )


@dataclass(frozen=True)
class WeeklySummary:
    """The content of a department's weekly summary.

    Attributes:
        department: training coverage of the department.
        overdue: overdue obligations of the department's people, oldest first. An obligation is left
            out if the head of the department receives a copy of its reminder in the same run.
        names: staff number -> name, for people with an overdue obligation.
    """

    department: Department
    overdue: Sequence[Due]
    names: Mapping[str, str]


def summary_lines(week: WeeklySummary, head: Person, number: str) -> Iterator[Notification]:
    """Yield the lines of a department's weekly summary, as notifications to its head.

    Args:
        week: content of the summary.
        head: head of the department.
        number: ISO week that the summary covers, such as ``2026-W48``.
    """
    department = week.department
    heading = _("Training in {department} this week", department=department.name)
    sentence = _(
        "{covered} of {people} people ({share:percent}) have no overdue course. {overdue} "
        "courses are overdue, and {soon} are due in the next {days} days. {on_leave} people "
        "are on leave.",
        covered=department.covered,
        people=department.people,
        share=1.0 if department.share is None else department.share,
        overdue=department.overdue,
        days=SOON_DAYS,
        soon=department.soon,
        on_leave=department.on_leave,
    )
    lines: list[tuple[Due | str, Message]] = [("", sentence)]
    listed = week.overdue[:MAX_SUMMARY_LINES]
    lines += [(due, _overdue_line(due, week.names.get(due.person, ""))) for due in listed]
    if len(week.overdue) > MAX_SUMMARY_LINES:
        lines.append(
            (
                "more",
                _("{count} more courses are overdue.", count=len(week.overdue) - MAX_SUMMARY_LINES),
            )
        )
    for subject, text in lines:
        yield Notification(
            kind=DEPARTMENT,
            key=summary_key(department.name, number, head.person, subject),
            recipient=head.person,
            heading=heading,
            line=text,
            name=head.name,
            address=head.mail,
        )


def _overdue_line(due: Due, name: str) -> Message:
    return _(
        "{name} ({person}): “{title}” was due by {day} and is overdue.",
        name=name,
        person=due.person,
        title=due.title,
        day=due.due_on,
    )


T = TypeVar("T")


def still_due(run: RunContext[TrainingRules], keys: Sequence[str], kind: str) -> set[str]:
    """Return the keys of notifications whose reminder stage or summary week is still current.

    A reminder or a copy is still due if its obligation has the same due date and the same reminder
    stage today. This also applies to a line of a weekly summary that is about an obligation. In
    addition, a line of a weekly summary is due only in the week of the summary. A key that cannot
    be parsed, such as a key of an older release, is not due.

    Args:
        run: context of the run that sends the notifications.
        keys: keys of the queued notifications.
        kind: kind of all these notifications, such as a reminder or a weekly summary.
    """
    if kind != DEPARTMENT:
        return _still_due(run, _parse_keys(keys, parse_key))
    now = week_of(run.today)
    lines = {
        key: reminder
        for key, (week, reminder) in _parse_keys(keys, parse_summary_key).items()
        if week == now
    }
    reminders = {key: reminder for key, reminder in lines.items() if reminder is not None}
    return (lines.keys() - reminders.keys()) | _still_due(run, reminders)


def _parse_keys(keys: Sequence[str], parse: Callable[[str], T]) -> dict[str, T]:
    parsed = {}
    for key in keys:
        with suppress(ValueError):
            parsed[key] = parse(key)
    return parsed


def _still_due(run: RunContext[TrainingRules], reminders: dict[str, ReminderId]) -> set[str]:
    """Return the keys of those notifications whose reminder is still due.

    A reminder is still due if its obligation has the same due date and the same reminder stage
    today.

    Args:
        run: context of the run.
        reminders: key of the notification -> reminder.
    """
    if not reminders:
        return set()
    people = sorted({reminder.person for reminder in reminders.values()})
    with run.state.connect() as conn:
        waived = waivers.waivers_in_force(conn, run.today)
    with open_sources(run, people) as sources:
        current = current_reminder_keys(run, sources, people, waived)
    return {key for key, reminder in reminders.items() if reminder.key in current}
