"""How training stands on a day: who is overdue, who is covered, who is untrained with access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from include.training.desk import Desk
from include.training.keys import told_of
from include.training.obligations import (
    Department,
    Due,
    Topic,
    Untrained,
    Waiver,
    everything,
    of_people,
)
from include.training.sources import Sources


@dataclass
class Standing:
    """How training stands on a day.

    Attributes:
        due: obligations that stand on a rung, by the key of the reminder of it.
        departments: of people who have to be trained.
        topics: of courses in force.
        untrained: who may open customer records without valid training.
    """

    due: dict[str, Due] = field(default_factory=dict)
    departments: list[Department] = field(default_factory=list)
    topics: list[Topic] = field(default_factory=list)
    untrained: list[Untrained] = field(default_factory=list)

    @property
    def people(self) -> int:
        """How many have to be trained; those on leave are not among them."""
        return sum(one.people for one in self.departments)

    @property
    def covered(self) -> int:
        """How many of them have no overdue course."""
        return sum(one.covered for one in self.departments)

    @property
    def coverage(self) -> float | None:
        """Their share, from 0 to 1; None where nobody has to be trained."""
        return self.covered / self.people if self.people else None

    def overdue(self, day: date) -> list[Due]:
        """Overdue obligations, the oldest first."""
        late = [one for one in self.due.values() if one.due_on < day]
        return sorted(late, key=lambda one: (one.due_on, one.person, one.course))


def standing(desk: Desk, sources: Sources, waived: Sequence[Waiver]) -> Standing:
    """Work out how training stands today.

    Raises:
        UsageError: training.yaml's queries cannot be read.
        ServiceError: a database was lost.
    """
    found = Standing()
    grace = desk.rules.leave_grace
    for row in everything(
        sources, day=desk.today, reached=desk.reached, waived=waived, grace=grace
    ):
        match row:
            case Due():
                found.due[told_of(row).key] = row
            case Department():
                found.departments.append(row)
            case Topic():
                found.topics.append(row)
            case Untrained():
                found.untrained.append(row)
    found.departments.sort(key=lambda one: one.name)
    found.untrained.sort(key=lambda one: one.person)
    return found


def reached_by(
    desk: Desk, sources: Sources, people: Sequence[str], waived: Sequence[Waiver]
) -> set[str]:
    """Keys of the reminders that stand for some people now."""
    grace = desk.rules.leave_grace
    found = of_people(
        sources, people, day=desk.today, reached=desk.reached, waived=waived, grace=grace
    )
    return {told_of(one).key for one in found}
