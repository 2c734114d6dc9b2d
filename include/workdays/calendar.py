"""Find workdays from weekends, a country's holidays and make-up workdays, and company holidays.

A make-up workday is a day of a weekend on which people work to make up for a holiday. The State
Council of China announces the holidays and make-up workdays of a year in the autumn before. Until
the library `holidays` contains the announcement, only the statutory holidays of the year are known,
and no make-up workdays (see `Workdays.is_announced`).
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

from include.policy.rules import Calendar

_DAY = timedelta(days=1)
_MAX_DAYS_CLOSED = 400  # days; no calendar is closed for longer


class Workdays:
    """The workdays of a company, according to its policy pack.

    Args:
        calendar: rules of calendar.yaml.
    """

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._closed = frozenset(calendar.closed)
        self._opened = frozenset(calendar.opened)

    def is_workday(self, day: date) -> bool:
        """Return whether a day is a workday.

        calendar.yaml can list days on which the company works, and days on which it does not. Such
        an entry overrides the country's holidays and the weekend.
        """
        if day in self._opened or day in self._closed:
            return day in self._opened
        if self._calendar.holidays is None:
            return day.weekday() < 5
        days_off, make_up = _holidays_of_year(self._calendar.holidays, day.year)
        if day in make_up:
            return True
        return day.weekday() < 5 and day not in days_off

    def on_or_after(self, day: date) -> date:
        """Return the given day if it is a workday, or else the first workday after it."""
        return self._nearest_workday(day, _DAY)

    def on_or_before(self, day: date) -> date:
        """Return the given day if it is a workday, or else the last workday before it."""
        return self._nearest_workday(day, -_DAY)

    def after(self, day: date) -> date:
        """Return the first workday after a day. The day itself is never returned."""
        return self.on_or_after(day + _DAY)

    def is_announced(self, year: int) -> bool:
        """Return whether the make-up workdays of a year are known.

        A make-up workday is a day of a weekend on which people work to make up for a holiday. The
        make-up workdays are known if the library ``holidays`` has some for the year, or if
        `announced` of calendar.yaml lists the year. Outside China, the result is always True.
        """
        country = self._calendar.holidays
        if country != "CN":
            return True
        return bool(_holidays_of_year(country, year)[1]) or year in self._calendar.announced

    def _nearest_workday(self, day: date, step: timedelta) -> date:
        for distance in range(_MAX_DAYS_CLOSED):
            if self.is_workday(candidate := day + distance * step):
                return candidate
        raise ValueError(f"calendar.yaml knows no workday near {day}")


@lru_cache(maxsize=64)
def _holidays_of_year(country: str, year: int) -> tuple[frozenset[date], frozenset[date]]:
    """Return the holidays and the make-up workdays of a country in a year, as two sets of days."""
    import holidays  # not at the top: it loads slowly, and a pack may name no country

    days_off = holidays.country_holidays(country, years=year)
    return (
        frozenset(day for day in days_off if day.year == year),
        frozenset(day for day in days_off.weekend_workdays if day.year == year),
    )
