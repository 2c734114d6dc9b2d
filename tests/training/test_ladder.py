"""Tests of the reminder stages on workdays and days off."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.rules import (
    Ladder,
    is_past_last_overdue_stage,
    notifies_supervisor,
    overdue_stages,
    thresholds_on,
)
from tests.training.training_fixtures import WORKDAYS

LADDER = Ladder()
DAYS = st.dates(date(2025, 1, 1), date(2026, 12, 31))


@pytest.mark.parametrize(
    ("today", "due", "stage"),
    [
        ("2026-03-02", "2026-04-01", -30),
        ("2026-03-02", "2026-04-02", None),
        ("2026-03-02", "2026-03-10", -30),
        ("2026-03-02", "2026-03-09", -7),
        ("2026-03-02", "2026-03-03", -1),
        ("2026-03-02", "2026-03-02", -1),  # the due date has no reminder stage of its own
        ("2026-03-02", "2026-03-01", 1),
        ("2026-03-02", "2026-02-23", 7),
        ("2026-03-02", "2026-02-16", 14),
        ("2026-03-02", "2026-02-02", 28),
        ("2026-03-02", "2026-01-20", 28),
        ("2026-03-02", "2026-01-19", 42),
        # Friday before a due date on Monday: the one-day stage is reached now, not on Sunday
        ("2026-03-06", "2026-03-09", -1),
        ("2026-03-06", "2026-03-10", -7),
        # last workday before the Spring Festival of nine days; 28 February is a workday
        ("2026-02-14", "2026-02-24", -1),
        ("2026-02-13", "2026-02-24", -30),
        ("2026-02-28", "2026-03-02", -1),
        ("2026-02-27", "2026-03-02", -7),
        # due during the holidays: overdue from the first workday after the holidays
        ("2026-02-23", "2026-02-18", -1),  # a day off has the stage of 14 February
        ("2026-02-24", "2026-02-18", 1),
        ("2026-02-24", "2026-02-16", 7),
        # end of the year: 1 to 3 January are days off, and Sunday, 4 January is a workday
        ("2025-12-31", "2026-01-04", -1),
        ("2026-01-04", "2026-01-03", 1),
        ("2026-01-04", "2025-12-28", 7),
    ],
)
def test_reminder_stage_is_computed_with_holidays_and_workdays_of_2026(
    today: str, due: str, stage: int | None
):
    thresholds = thresholds_on(LADDER, WORKDAYS, date.fromisoformat(today))
    assert thresholds.stage_of(date.fromisoformat(due)) == stage


@given(DAYS, st.integers(-400, 60))
def test_reminder_stage_is_the_latest_stage_whose_workday_is_today_or_earlier(
    today: date, ahead: int
):
    due = today + timedelta(days=ahead)
    day = WORKDAYS.on_or_before(today)
    stages_reached = [
        stage
        for stage in [*(-days for days in LADDER.before), *overdue_stages(LADDER)[:60]]
        if (WORKDAYS.on_or_before if stage < 0 else WORKDAYS.on_or_after)(
            due + timedelta(days=stage)
        )
        <= day
    ]
    assert thresholds_on(LADDER, WORKDAYS, today).stage_of(due) == max(stages_reached, default=None)


@given(DAYS, st.integers(0, 400))
def test_overdue_course_reaches_a_new_reminder_stage_at_least_every_two_weeks(day: date, late: int):
    today = WORKDAYS.on_or_after(day)
    due = today - timedelta(days=late)
    stage = thresholds_on(LADDER, WORKDAYS, today).stage_of(due)
    assert stage is not None
    assert late - stage < max(14, 7) or late == 0


def test_supervisor_is_notified_from_second_overdue_reminder_stage():
    assert [
        stage for stage in (-30, -7, -1, 1, 7, 14, 28, 616) if notifies_supervisor(LADDER, stage)
    ] == [
        7,
        14,
        28,
        616,
    ]
    first = LADDER.model_copy(update={"copy_from": 1})
    assert notifies_supervisor(first, 1)
    assert not notifies_supervisor(first, -1)


def test_is_past_last_overdue_stage_is_true_from_the_day_after_the_last_overdue_stage():
    due = date(2026, 3, 2)
    assert not is_past_last_overdue_stage(LADDER, due, date(2026, 3, 16))
    assert is_past_last_overdue_stage(LADDER, due, date(2026, 3, 17))
