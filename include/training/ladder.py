"""The ladder of reminders: which rung an obligation has reached on a day.

A rung is a number of days from the day on which a course is due, negative before it. A rung before
that day comes on the last workday up to it, so that nobody's notice gets shorter by a holiday; one
after it on the first workday from it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from include.training.rules import Ladder
from include.workdays.calendar import Workdays

_YEARS = 10 * 366  # days; who is overdue for longer stands on the last rung


@dataclass(frozen=True)
class Reached:
    """The rungs as they stand on one day.

    Attributes:
        rungs: days from the due day, falling.
        latest: for each rung the latest due day whose obligation has reached it; rising. An
            obligation stands on the first of them that is not before its due day, and on none
            where it is due after the last.
    """

    rungs: tuple[int, ...]
    latest: tuple[date, ...]

    def rung(self, due_on: date) -> int | None:
        """The rung on which an obligation stands; None before the first."""
        for rung, latest in zip(self.rungs, self.latest, strict=True):
            if due_on <= latest:
                return rung
        return None


def reached(ladder: Ladder, workdays: Workdays, today: date) -> Reached:
    """Say which rungs are reached on a day; on a day off those of the workday before it.

    Args:
        ladder: of training.yaml.
        workdays: of calendar.yaml.
        today: the day.
    """
    day = workdays.on_or_before(today)
    # A rung before the due day has come once no workday is left between today and it.
    before_next = workdays.after(day) - timedelta(days=1)
    rungs = [-one for one in ladder.before] + overdue_rungs(ladder)
    latest = {
        rung: (before_next if rung < 0 else day) - timedelta(days=rung) for rung in sorted(rungs)
    }
    falling = tuple(sorted(latest, reverse=True))
    return Reached(falling, tuple(latest[rung] for rung in falling))


def overdue_rungs(ladder: Ladder) -> list[int]:
    """The rungs after the due day, those that repeat included."""
    last = ladder.overdue[-1]
    return [*ladder.overdue, *range(last + ladder.then_every, _YEARS, ladder.then_every)]


def is_copied(ladder: Ladder, rung: int) -> bool:
    """Whether the supervisor is told of a rung too."""
    if rung <= 0:
        return False
    place = sum(one <= rung for one in overdue_rungs(ladder))
    return place >= ladder.copy_from


def is_beyond(ladder: Ladder, due_on: date, today: date) -> bool:
    """Whether an obligation is overdue for longer than the last rung that training.yaml lists."""
    return (today - due_on).days > ladder.overdue[-1]
