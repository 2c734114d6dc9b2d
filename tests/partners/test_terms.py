"""What lapses when, and which rung is reached: every rule held against counting days one by one."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.partners.partner_status import ObligationKind, State, Term, after, review_term, rung
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
def test_a_period_leads_to_a_day_of_the_calendar(start: str, period: str, end: str) -> None:
    """A shorter month ends earlier; months come before days."""
    assert after(date.fromisoformat(start), Period.parse(period)) == date.fromisoformat(end)


@given(DAYS, DAYS)
def test_an_agreement_lapses_on_the_day_after_its_last(last: date, today: date) -> None:
    """Neither a day earlier nor later."""
    state = Term(ObligationKind.NDA, last).state(today)
    assert (state is State.LAPSED) == (today >= last + DAY)
    assert state in (State.LAPSED, State.VALID)


@given(DAYS, DAYS, DAYS)
def test_an_agreement_holds_from_its_first_day_to_its_last(a: date, b: date, today: date) -> None:
    """Both included."""
    first, last = min(a, b), max(a, b)
    holds = Term(ObligationKind.NDA, last, first).state(today) is State.VALID
    assert holds == (first <= today <= last)


def test_what_nobody_knows_does_not_hold() -> None:
    """An empty day is no agreement without end."""
    assert Term(ObligationKind.NDA, None).state(date(2026, 1, 1)) is State.MISSING
    assert review_term(None, YEAR).state(date(2026, 1, 1)) is State.MISSING
    assert review_term(date(2026, 1, 1), None).state(date(2026, 1, 1)) is State.MISSING


@given(DAYS, DAYS, DAYS)
def test_a_failed_or_reopened_review_holds_no_day_longer(
    last: date, failed: date, today: date
) -> None:
    """From that day on, whatever an earlier review came to."""
    for what, term in (
        (ObligationKind.FAILED, review_term(last, YEAR, failed_on=failed)),
        (ObligationKind.REOPENED, review_term(last, YEAR, reopened_on=failed)),
        (ObligationKind.REOPENED, review_term(last, YEAR, failed_on=last, reopened_on=failed)),
    ):
        assert term.what is what
        assert (term.state(today) is State.LAPSED) == (today >= failed)


@given(DAYS, st.integers(-400, 400), st.integers(1, 12))
def test_the_rung_is_the_one_that_counting_days_reaches(last: date, away: int, gap: int) -> None:
    """Before the last day the smallest whose day comes before the next telling, after it weeks."""
    today = last - timedelta(days=away)
    telling = today + timedelta(days=gap)
    expected: int | None = None
    if away < 0:
        expected = max(n for n in range(1, -away + 1) if (n - 1) % EVERY == 0)
    else:
        for one in LADDER:  # falling
            if any(today + n * DAY >= last - one * DAY for n in range(gap)):
                expected = -one
        assert telling - DAY == today + (gap - 1) * DAY
    assert rung(last, today, telling, LADDER, EVERY) == expected


@given(DAYS, st.integers(1, 60))
def test_no_week_after_the_lapse_is_silent(last: date, weeks: int) -> None:
    """Weekly runs meet one new rung each, however long it lasts."""
    found = [
        rung(last, today, today + timedelta(days=7), LADDER, EVERY)
        for today in (last + timedelta(days=1 + 7 * n) for n in range(weeks))
    ]
    assert found == [1 + 7 * n for n in range(weeks)]


@given(DAYS, st.integers(0, 6))
def test_weekly_runs_tell_every_rung_in_time(last: date, weekday: int) -> None:
    """Each rung comes once, no later than so many days before the last day."""
    start = last - timedelta(days=200)
    start += timedelta(days=(weekday - start.weekday()) % 7)
    told: dict[int, date] = {}
    for today in (start + timedelta(days=7 * n) for n in range(40)):
        step = rung(last, today, today + timedelta(days=7), LADDER, EVERY)
        if step is not None and step < 0:
            told.setdefault(step, today)
    assert set(told) == {-90, -30, -7}
    for step, day in told.items():
        assert day <= last + timedelta(days=step)
        assert day > last + timedelta(days=step - 7)


def test_a_day_that_nobody_knows_is_asked_for_every_week() -> None:
    """It is not silent either."""
    days = [date(2026, 6, 1) + timedelta(days=7 * n) for n in range(5)]
    assert len({rung(None, one, one + DAY, LADDER, EVERY) for one in days}) == 5
