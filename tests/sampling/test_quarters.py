"""Quarters: those of the pack's own calendar, and only when they are over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.sampling.frame import quarter_of
from include.services.errors import UsageError

SHANGHAI = "Asia/Shanghai"
ZONES = st.sampled_from([SHANGHAI, "America/New_York", "UTC", "Pacific/Kiritimati"])
MOMENTS = st.datetimes(
    datetime(2001, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)  # noqa: DTZ001 - bounds
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "found"),
    [
        ("2026-10-05T00:00+00:00", "2026Q3"),
        ("2026-09-30T15:59:59+00:00", "2026Q2"),
        ("2026-09-30T16:00:00+00:00", "2026Q3"),
        ("2025-12-31T16:00:00+00:00", "2025Q4"),
        ("2026-03-31T15:59:59+00:00", "2025Q4"),
    ],
)
def test_the_last_quarter_that_is_over_is_taken_where_nothing_is_said(now: str, found: str) -> None:
    """By the pack's calendar, which is ahead of UTC here."""
    for asked in (None, ""):
        assert quarter_of(asked, datetime.fromisoformat(now), SHANGHAI).id == found


def test_a_quarter_begins_and_ends_with_days_of_the_packs_timezone() -> None:
    """Its end is the beginning of the next one, over the year too."""
    now = datetime(2026, 10, 5, tzinfo=UTC)
    last = quarter_of("2025Q4", now, SHANGHAI)
    assert last.starts == datetime(2025, 10, 1, tzinfo=ZoneInfo(SHANGHAI))
    assert last.starts.astimezone(UTC) == datetime(2025, 9, 30, 16, tzinfo=UTC)
    assert last.ends == quarter_of("2026Q1", now, SHANGHAI).starts
    assert last.next.id == "2026Q1"


def test_summer_time_moves_the_bounds() -> None:
    """The second quarter of New York begins at 04:00 UTC, the first one at 05:00."""
    now = datetime(2026, 10, 5, tzinfo=UTC)
    hours = [
        quarter_of(one, now, "America/New_York").starts.astimezone(UTC).hour
        for one in ("2026Q1", "2026Q2")
    ]
    assert hours == [5, 4]


@pytest.mark.parametrize(
    "text",
    [
        "2026Q5",
        "2026Q0",
        "2026q3",
        "26Q3",
        "2026-Q3",
        "1999Q4",
        "2026Q3\n",
        " 2026Q3",
        "２０２６Q3",
        "x",
    ],
)
def test_what_is_no_quarter_is_wrong_usage(text: str) -> None:
    """And the message shows how to write one."""
    with pytest.raises(UsageError, match="is no quarter") as caught:
        quarter_of(text, datetime(2026, 10, 5, tzinfo=UTC), SHANGHAI)
    assert caught.value.action == "Write 2026Q3."


def test_a_quarter_that_is_not_over_is_refused_to_the_moment() -> None:
    """Its populations still grow."""
    ends = datetime(2026, 9, 30, 16, tzinfo=UTC)
    with pytest.raises(UsageError, match="2026Q3 is not over") as caught:
        quarter_of("2026Q3", ends - timedelta(microseconds=1), SHANGHAI)
    assert "2026-10-01" in caught.value.action
    assert quarter_of("2026Q3", ends, SHANGHAI).id == "2026Q3"


@given(MOMENTS, ZONES)
def test_the_quarter_taken_is_over_and_the_next_one_is_not(now: datetime, zone: str) -> None:
    """For every moment, and its name leads to it again."""
    found = quarter_of(None, now, zone)
    assert found.starts < found.ends <= now < found.next.ends
    assert quarter_of(found.id, now, zone) == found
