"""Expected reminders of each day, computed in plain Python from the published holidays.

Tests compare the results of `include.training` with this module. Therefore this module uses nothing
of that package.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

from include.sample_company.employee import Duty
from tests.workdays.test_calendar import OFF, WORKED, days

STAGES = (-30, -7, -1, 1, 7, 14)
REPEAT_DAYS = 14  # days between further reminder stages
FIRST_COPIED_RUNG = 7  # the second overdue reminder stage
_DAY = timedelta(days=1)
_OFF = days(2024, "12-31") | days(2027, "01-01")
for _year in OFF:
    _OFF |= days(_year, OFF[_year])
_WORKED = {day for year in WORKED for day in days(year, WORKED[year])}


def is_workday(day: date) -> bool:
    """Return whether a day from 1 January 2025 to 1 January 2027 is a workday."""
    return day in _WORKED or (day.weekday() < 5 and day not in _OFF)


def workday_before(day: date) -> date:
    """Return the last workday before a day."""
    day -= _DAY
    while not is_workday(day):
        day -= _DAY
    return day


def day_of_stage(due: date, stage: int) -> date:
    """Return the day on which an obligation reaches a reminder stage."""
    day = due + timedelta(days=stage)
    while not is_workday(day):
        day += _DAY if stage > 0 else -_DAY
    return day


def stage(due: date, day: date) -> int | None:
    """Return the last reminder stage that an obligation has reached on a workday, or None.

    Args:
        due: due date of the obligation.
        day: the workday.
    """
    reached = [stage_days for stage_days in STAGES if day_of_stage(due, stage_days) <= day]
    further = STAGES[-1] + REPEAT_DAYS
    while day_of_stage(due, further) <= day:
        reached.append(further)
        further += REPEAT_DAYS
    return max(reached, default=None)


@dataclass
class Expected:
    """The expected reminders of successive days, if nobody completes a course.

    Attributes:
        duties: training obligations in the answer sheet of the sample company.
        owner: recipient of the copies of reminders to people without a supervisor.
    """

    duties: Iterable[Duty]
    owner: str
    _reminded: set[tuple[str, str, int]] = field(default_factory=set)

    def on(self, day: date) -> tuple[set[tuple[str, str, int]], set[tuple[str, str, str, int]]]:
        """Return the expected reminders and copies of a day.

        Returns:
            Reminders as (person, course, reminder stage), and copies as (supervisor, person,
            course, reminder stage).
        """
        reminders, copies = set(), set()
        if not is_workday(day):
            return reminders, copies
        for duty in self.duties:
            if duty.leave and duty.leave[0] <= day <= duty.leave[1]:
                continue
            reached = stage(duty.due_on, day)
            if reached is None or (duty.person, duty.course, reached) in self._reminded:
                continue
            reminders.add((duty.person, duty.course, reached))
            if reached >= FIRST_COPIED_RUNG:
                above = duty.supervisor or self.owner
                copies.add((above, duty.person, duty.course, reached))
        self._reminded |= reminders
        return reminders, copies
