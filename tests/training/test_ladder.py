"""Rungs: never late before the day, never on a day off, and one after the other."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.rules import Ladder, is_beyond, is_copied, overdue_rungs, reached
from tests.training.rig import WORKDAYS

LADDER = Ladder()
DAYS = st.dates(date(2025, 1, 1), date(2026, 12, 31))


@pytest.mark.parametrize(
    ("today", "due", "rung"),
    [
        ("2026-03-02", "2026-04-01", -30),
        ("2026-03-02", "2026-04-02", None),
        ("2026-03-02", "2026-03-10", -30),
        ("2026-03-02", "2026-03-09", -7),
        ("2026-03-02", "2026-03-03", -1),
        ("2026-03-02", "2026-03-02", -1),  # on the day itself nothing new is said
        ("2026-03-02", "2026-03-01", 1),
        ("2026-03-02", "2026-02-23", 7),
        ("2026-03-02", "2026-02-16", 14),
        ("2026-03-02", "2026-02-02", 28),
        ("2026-03-02", "2026-01-20", 28),
        ("2026-03-02", "2026-01-19", 42),
        # Friday before a Monday: the one-day rung of Monday comes now, not on Sunday
        ("2026-03-06", "2026-03-09", -1),
        ("2026-03-06", "2026-03-10", -7),
        # last workday before the Spring Festival of nine days; 28 February is worked
        ("2026-02-14", "2026-02-24", -1),
        ("2026-02-13", "2026-02-24", -30),
        ("2026-02-28", "2026-03-02", -1),
        ("2026-02-27", "2026-03-02", -7),
        # due in the holidays: overdue is said on the first workday after them
        ("2026-02-23", "2026-02-18", -1),  # a day off: as it stood on the 14th
        ("2026-02-24", "2026-02-18", 1),
        ("2026-02-24", "2026-02-16", 7),
        # year end: 1 to 3 January are off, Sunday the 4th is worked
        ("2025-12-31", "2026-01-04", -1),
        ("2026-01-04", "2026-01-03", 1),
        ("2026-01-04", "2025-12-28", 7),
    ],
)
def test_a_day_has_its_rung(today: str, due: str, rung: int | None):
    """Worked out by hand with the calendar of 2026."""
    found = reached(LADDER, WORKDAYS, date.fromisoformat(today))
    assert found.rung(date.fromisoformat(due)) == rung


@given(DAYS, st.integers(-400, 60))
def test_the_rung_is_the_last_one_whose_day_has_come(today: date, ahead: int):
    """Held against the rungs' own days: workday up to it before, workday from it on after."""
    due = today + timedelta(days=ahead)
    day = WORKDAYS.on_or_before(today)
    come = [
        rung
        for rung in [*(-one for one in LADDER.before), *overdue_rungs(LADDER)[:60]]
        if (WORKDAYS.on_or_before if rung < 0 else WORKDAYS.on_or_after)(due + timedelta(days=rung))
        <= day
    ]
    assert reached(LADDER, WORKDAYS, today).rung(due) == max(come, default=None)


@given(DAYS, st.integers(0, 400))
def test_nobody_who_is_overdue_is_left_alone(day: date, late: int):
    """The rung of an overdue course is never further back than a step and the longest holiday."""
    today = WORKDAYS.on_or_after(day)
    due = today - timedelta(days=late)
    rung = reached(LADDER, WORKDAYS, today).rung(due)
    assert rung is not None
    assert late - rung < max(14, 7) or late == 0


def test_the_supervisor_is_told_from_the_second_overdue_rung():
    """Not before, and from then on each time."""
    assert [one for one in (-30, -7, -1, 1, 7, 14, 28, 616) if is_copied(LADDER, one)] == [
        7,
        14,
        28,
        616,
    ]
    first = LADDER.model_copy(update={"copy_from": 1})
    assert is_copied(first, 1)
    assert not is_copied(first, -1)


def test_beyond_the_ladder_is_after_its_last_rung():
    """The last listed rung's own day is not beyond it."""
    due = date(2026, 3, 2)
    assert not is_beyond(LADDER, due, date(2026, 3, 16))
    assert is_beyond(LADDER, due, date(2026, 3, 17))
