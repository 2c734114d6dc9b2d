"""Workdays: weekends, China's holidays with the make-up days of each year, and the company's own.

The State Council announces every year's arrangement in the autumn before. Until the library
`holidays` has it, only the statutory days are known, and no make-up day (`is_announced`).
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

from include.policy.rules import Calendar

_DAY = timedelta(days=1)
_FAR = 400  # days; no calendar is closed for longer


class Workdays:
    """The workdays of a policy pack.

    Args:
        calendar: of calendar.yaml.
    """

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._closed = frozenset(calendar.closed)
        self._opened = frozenset(calendar.opened)

    def is_workday(self, day: date) -> bool:
        """Whether people work on that day; the company's own days come before the country's."""
        if day in self._opened or day in self._closed:
            return day in self._opened
        if self._calendar.holidays is None:
            return day.weekday() < 5
        days_off, make_up = _year(self._calendar.holidays, day.year)
        if day in make_up:
            return True
        return day.weekday() < 5 and day not in days_off

    def on_or_after(self, day: date) -> date:
        """That day, or the first workday after it."""
        return self._walk(day, _DAY)

    def on_or_before(self, day: date) -> date:
        """That day, or the last workday before it."""
        return self._walk(day, -_DAY)

    def after(self, day: date) -> date:
        """The first workday after a day."""
        return self.on_or_after(day + _DAY)

    def is_announced(self, year: int) -> bool:
        """Whether the make-up days of a year are known; a country that has none is always known."""
        country = self._calendar.holidays
        if country != "CN":
            return True
        return bool(_year(country, year)[1]) or year in self._calendar.announced

    def _walk(self, day: date, step: timedelta) -> date:
        for far in range(_FAR):
            if self.is_workday(found := day + far * step):
                return found
        raise ValueError(f"calendar.yaml knows no workday near {day}")


@lru_cache(maxsize=64)
def _year(country: str, year: int) -> tuple[frozenset[date], frozenset[date]]:
    """Days off and weekend days that are worked, of one year."""
    import holidays  # loads slowly, and a pack may name no country

    days_off = holidays.country_holidays(country, years=year)
    return (
        frozenset(day for day in days_off if day.year == year),
        frozenset(day for day in days_off.weekend_workdays if day.year == year),
    )
