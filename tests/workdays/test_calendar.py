"""Tests of workdays against the arrangements that the State Council published."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy.rules import Calendar
from include.workdays.calendar import Workdays

DAYS = st.dates(date(2015, 1, 1), date(2030, 12, 31))
# Holiday arrangements of the State Council's General Office: days off, and worked weekend days.
OFF = {
    2025: "01-01 01-28:02-04 04-04:04-06 05-01:05-05 05-31:06-02 10-01:10-08",
    2026: "01-01:01-03 02-15:02-23 04-04:04-06 05-01:05-05 06-19:06-21 09-25:09-27 10-01:10-07",
}
WORKED = {
    2025: "01-26 02-08 04-27 09-28 10-11",
    2026: "01-04 02-14 02-28 05-09 09-20 10-10",
}


def days(year: int, text: str) -> set[date]:
    workday = set()
    for part in text.split():
        first, _, last = part.partition(":")
        day = date.fromisoformat(f"{year}-{first}")
        while day <= date.fromisoformat(f"{year}-{last or first}"):
            workday.add(day)
            day += timedelta(days=1)
    return workday


@pytest.mark.parametrize("year", [2025, 2026])
def test_is_workday_agrees_with_state_council_announcement_for_each_day_of_year(year: int):
    off, worked = days(year, OFF[year]), days(year, WORKED[year])
    workdays = Workdays(Calendar())
    day = date(year, 1, 1)
    while day.year == year:
        expected = day in worked or (day.weekday() < 5 and day not in off)
        assert workdays.is_workday(day) is expected, day
        day += timedelta(days=1)


def test_days_opened_or_closed_by_company_override_national_holidays():
    own = Calendar(closed=("2026-12-24",), opened=("2026-12-27",))
    workdays = Workdays(own)
    assert not workdays.is_workday(date(2026, 12, 24))
    assert workdays.is_workday(date(2026, 12, 27))


def test_calendar_without_country_has_no_days_off_except_weekends():
    assert Workdays(Calendar(holidays=None)).is_workday(date(2026, 10, 1))


def test_is_announced_is_false_for_year_without_announced_make_up_workdays():
    assert Workdays(Calendar()).is_announced(2026)
    assert not Workdays(Calendar()).is_announced(2028)
    assert not Workdays(Calendar(opened=("2028-01-29",))).is_announced(
        2028
    )  # a single day does not announce it
    assert Workdays(Calendar(announced=(2028,))).is_announced(2028)
    assert Workdays(Calendar(holidays=None)).is_announced(2028)


@given(DAYS)
def test_nearest_workdays_before_and_after_a_day_are_returned(day: date):
    workdays = Workdays(Calendar())
    later, earlier = workdays.on_or_after(day), workdays.on_or_before(day)
    assert earlier <= day <= later
    assert workdays.is_workday(earlier)
    assert workdays.is_workday(later)
    between = (earlier + timedelta(days=n) for n in range(1, (later - earlier).days))
    assert not any(workdays.is_workday(date_between) for date_between in between)
    assert workdays.after(day) == workdays.on_or_after(day + timedelta(days=1))


def test_calendar_without_workdays_raises_error():
    closed = tuple(date(2026, 1, 1) + timedelta(days=n) for n in range(900))
    with pytest.raises(ValueError, match="no workday near 2026-01-01"):
        Workdays(Calendar(closed=closed)).on_or_after(date(2026, 1, 1))
