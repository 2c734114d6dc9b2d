"""How training stands on a day: who is overdue, who is covered, who is untrained with access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from include.training.keys import told_of
from include.training.ladder import Reached, reached
from include.training.obligations import (
    Department,
    Due,
    Topic,
    Untrained,
    Waiver,
    everything,
    of_people,
)
from include.training.rules import TrainingRules
from include.training.sources import Sources
from include.workflow.run_context import RunContext


@dataclass
class Standing:
    """How training stands on a day.

    Attributes:
        due: obligations that stand on a rung, by the key of their reminder; the oldest first.
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
        return [due for due in self.due.values() if due.due_on < day]


def _rungs(run: RunContext[TrainingRules]) -> Reached:
    return reached(run.rules.ladder, run.workdays, run.today)


def standing(
    run: RunContext[TrainingRules], sources: Sources, waived: Sequence[Waiver]
) -> Standing:
    """Work out how training stands today.

    Raises:
        UsageError: training.yaml's queries cannot be read.
        ServiceError: a database was lost.
    """
    current = Standing()
    due: list[Due] = []
    grace = run.rules.leave_grace
    for row in everything(sources, day=run.today, reached=_rungs(run), waived=waived, grace=grace):
        match row:
            case Due():
                due.append(row)
            case Department():
                current.departments.append(row)
            case Topic():
                current.topics.append(row)
            case Untrained():
                current.untrained.append(row)
    due.sort(key=lambda obligation: (obligation.due_on, obligation.person, obligation.course))
    current.due = {told_of(obligation).key: obligation for obligation in due}
    current.departments.sort(key=lambda department: department.name)
    current.untrained.sort(key=lambda person: person.person)
    return current


def reached_by(
    run: RunContext[TrainingRules],
    sources: Sources,
    people: Sequence[str],
    waived: Sequence[Waiver],
) -> set[str]:
    """Keys of the reminders that stand for some people now."""
    grace = run.rules.leave_grace
    due = of_people(sources, people, day=run.today, reached=_rungs(run), waived=waived, grace=grace)
    return {told_of(obligation).key for obligation in due}
