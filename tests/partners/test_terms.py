"""Tests of the validity of obligations and of reminder dates."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.partners.partner_status import (
    ObligationKind,
    Term,
    TermState,
    add_period,
    reminder_offset,
    review_term,
)
from include.policy.period import Period

DAY = timedelta(days=1)
DAYS = st.dates(date(1990, 1, 1), date(2080, 12, 31))
YEAR = Period.parse("P12M")
LADDER, EVERY = (90, 30, 7), 7


@pytest.mark.parametrize(
    ("start", "period", "end"),
    [
        ("2026-03-31", "P12M", "2027-03-31"),
        ("2024-02-29", "P12M", "2025-02-28"),
        ("2024-02-29", "P48M", "2028-02-29"),
        ("2026-01-31", "P1M", "2026-02-28"),
        ("2025-12-15", "P1M", "2026-01-15"),
        ("2026-12-31", "P1Y2M3D", "2028-03-03"),
        ("2026-06-01", "P90D", "2026-08-30"),
    ],
)
def test_add_period_adds_calendar_months_and_years(start: str, period: str, end: str) -> None:
    assert add_period(date.fromisoformat(start), Period.parse(period)) == date.fromisoformat(end)


@given(DAYS, DAYS)
def test_agreement_lapses_the_day_after_its_last_day(last: date, today: date) -> None:
    state = Term(ObligationKind.NDA, last).state(today)
    assert (state is TermState.LAPSED) == (today >= last + DAY)
    assert state in (TermState.LAPSED, TermState.VALID)


@given(DAYS, DAYS, DAYS)
def test_agreement_is_valid_from_first_to_last_day(a: date, b: date, today: date) -> None:
    first, last = min(a, b), max(a, b)
    is_valid = Term(ObligationKind.NDA, last, first).state(today) is TermState.VALID
    assert is_valid == (first <= today <= last)


def test_obligation_has_state_missing_if_its_last_day_is_unknown() -> None:
    assert Term(ObligationKind.NDA, None).state(date(2026, 1, 1)) is TermState.MISSING
    assert review_term(None, YEAR).state(date(2026, 1, 1)) is TermState.MISSING
    assert review_term(date(2026, 1, 1), None).state(date(2026, 1, 1)) is TermState.MISSING


@given(DAYS, DAYS, DAYS)
def test_review_lapses_on_the_day_it_fails_or_is_reopened(
    last: date, failed: date, today: date
) -> None:
    for kind, term in (
        (ObligationKind.FAILED, review_term(last, YEAR, failed_on=failed)),
        (ObligationKind.REOPENED, review_term(last, YEAR, reopened_on=failed)),
        (ObligationKind.REOPENED, review_term(last, YEAR, failed_on=last, reopened_on=failed)),
    ):
        assert term.kind is kind
        assert (term.state(today) is TermState.LAPSED) == (today >= failed)


@given(DAYS, st.integers(-400, 400), st.integers(1, 12))
def test_reminder_offset_equals_the_result_of_counting_day_by_day(
    last: date, away: int, gap: int
) -> None:
    today = last - timedelta(days=away)
    next_send_day = today + timedelta(days=gap)
    expected: int | None = None
    if away < 0:
        expected = max(n for n in range(1, -away + 1) if (n - 1) % EVERY == 0)
    else:
        for days_before in LADDER:  # falling
            if any(today + n * DAY >= last - days_before * DAY for n in range(gap)):
                expected = -days_before
        assert next_send_day - DAY == today + (gap - 1) * DAY
    assert reminder_offset(last, today, next_send_day, LADDER, EVERY) == expected


@given(DAYS, st.integers(1, 60))
def test_reminder_offset_grows_by_seven_every_week_after_the_last_day(
    last: date, weeks: int
) -> None:
    offsets = [
        reminder_offset(last, today, today + timedelta(days=7), LADDER, EVERY)
        for today in (last + timedelta(days=1 + 7 * n) for n in range(weeks))
    ]
    assert offsets == [1 + 7 * n for n in range(weeks)]


@given(DAYS, st.integers(0, 6))
def test_weekly_runs_send_each_reminder_at_most_a_week_before_its_planned_day(
    last: date, weekday: int
) -> None:
    start = last - timedelta(days=200)
    start += timedelta(days=(weekday - start.weekday()) % 7)
    offsets: dict[int, date] = {}
    for today in (start + timedelta(days=7 * n) for n in range(40)):
        offset = reminder_offset(last, today, today + timedelta(days=7), LADDER, EVERY)
        if offset is not None and offset < 0:
            offsets.setdefault(offset, today)
    assert set(offsets) == {-90, -30, -7}
    for offset, day in offsets.items():
        assert day <= last + timedelta(days=offset)
        assert day > last + timedelta(days=offset - 7)


def test_obligation_without_last_day_gets_a_new_reminder_every_week() -> None:
    days = [date(2026, 6, 1) + timedelta(days=7 * n) for n in range(5)]
    assert len({reminder_offset(None, day, day + DAY, LADDER, EVERY) for day in days}) == 5
