"""Letters about courses: reminders, copies to supervisors, summaries; checked before sending.

Between queueing and sending lie minutes, or days where the mail server was down. Whoever took the
course meanwhile, left, or went on leave, is not told of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from include.messages import Message, _
from include.notify.notice import Notice, to_role
from include.policy.rules import Role
from include.training import waivers
from include.training.keys import (
    COPY,
    DEPARTMENT,
    REMINDER,
    Told,
    read,
    read_weekly,
    told_of,
    week_of,
    weekly,
)
from include.training.obligations import SOON, Department, Due
from include.training.people import Person
from include.training.rules import TrainingRules
from include.training.sources import open_sources
from include.training.standing import reached_by
from include.workflow.run_context import RunContext

MOST_LINES = 20  # of a summary; the report has the rest
_OWN = _("Training that you have to take")
_TEAM = _("Overdue training in your team")


def reminder(due: Due, person: Person) -> Notice:
    """What somebody is told about a course of their own."""
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
    """What the supervisor is told about it; the owner's role, where nobody above can be told."""
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
    """What a department's summary says.

    Attributes:
        of: the department's figures.
        overdue: its overdue obligations that the head is not told of elsewhere, the oldest first.
        names: of the people, by staff number.
    """

    of: Department
    overdue: Sequence[Due]
    names: Mapping[str, str]


def summary(week: Week, head: Person, number: str) -> Iterator[Notice]:
    """The lines of a department's weekly summary for its head.

    Args:
        week: what it says.
        head: of the department.
        number: of the week, ``2026-W48``.
    """
    of = week.of
    heading = _("Training in {department} this week", department=of.name)
    said = _(
        "Trained: {covered} of {people} people ({share:percent}). Courses overdue: {overdue}, due "
        "in the next {days} days: {soon}; people on leave: {on_leave}.",
        covered=of.covered,
        people=of.people,
        share=of.covered / of.people if of.people else 1.0,
        overdue=of.overdue,
        days=SOON,
        soon=of.soon,
        on_leave=of.on_leave,
    )
    lines: list[tuple[Due | str, Message]] = [("", said)]
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
    people = sorted({one.person for one in about.values()})
    with run.state.connect() as conn:
        waived = waivers.current(conn, run.today)
    with open_sources(run, people) as sources:
        standing = reached_by(run, sources, people, waived)
    return {key for key, told in about.items() if told.key in standing}
