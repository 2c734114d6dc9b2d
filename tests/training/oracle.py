"""Whom a ladder reminds on which day, in plain Python, by the arrangements of holidays as printed.

Held against `include.training`, and made of nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

from include.sample_company.employee import Duty
from tests.workdays.test_calendar import OFF, WORKED, days

RUNGS = (-30, -7, -1, 1, 7, 14)
AGAIN = 14  # days between further ones
COPIED = 7  # the second overdue rung
_DAY = timedelta(days=1)
_OFF = days(2024, "12-31") | days(2027, "01-01")
for _year in OFF:
    _OFF |= days(_year, OFF[_year])
_WORKED = {day for year in WORKED for day in days(year, WORKED[year])}


def works(day: date) -> bool:
    """Whether people work on a day of 2025, 2026 or the first of 2027."""
    return day in _WORKED or (day.weekday() < 5 and day not in _OFF)


def before(day: date) -> date:
    """The workday before a day."""
    day -= _DAY
    while not works(day):
        day -= _DAY
    return day


def comes(due: date, rung: int) -> date:
    """The day of a rung."""
    day = due + timedelta(days=rung)
    while not works(day):
        day += _DAY if rung > 0 else -_DAY
    return day


def rung(due: date, day: date) -> int | None:
    """The last rung that has come by a workday."""
    come = [one for one in RUNGS if comes(due, one) <= day]
    further = RUNGS[-1] + AGAIN
    while comes(due, further) <= day:
        come.append(further)
        further += AGAIN
    return max(come, default=None)


@dataclass
class Expected:
    """What the days so far told people who took nothing meanwhile.

    Attributes:
        duties: of the answer sheet.
        owner: who is told where there is no supervisor.
    """

    duties: Iterable[Duty]
    owner: str
    _told: set[tuple[str, str, int]] = field(default_factory=set)

    def on(self, day: date) -> tuple[set[tuple[str, str, int]], set[tuple[str, str, str, int]]]:
        """Reminders (person, course, rung) and copies (supervisor, person, course, rung)."""
        reminders, copies = set(), set()
        if not works(day):
            return reminders, copies
        for duty in self.duties:
            if duty.leave and duty.leave[0] <= day <= duty.leave[1]:
                continue
            reached = rung(duty.due_on, day)
            if reached is None or (duty.person, duty.course, reached) in self._told:
                continue
            reminders.add((duty.person, duty.course, reached))
            if reached >= COPIED:
                above = duty.supervisor or self.owner
                copies.add((above, duty.person, duty.course, reached))
        self._told |= reminders
        return reminders, copies
