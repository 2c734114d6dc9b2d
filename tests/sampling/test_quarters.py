"""Tests of quarters in the policy pack's timezone. Only completed quarters can be audited."""

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
    ("now", "quarter"),
    [
        ("2026-10-05T00:00+00:00", "2026Q3"),
        ("2026-09-30T15:59:59+00:00", "2026Q2"),
        ("2026-09-30T16:00:00+00:00", "2026Q3"),
        ("2025-12-31T16:00:00+00:00", "2025Q4"),
        ("2026-03-31T15:59:59+00:00", "2025Q4"),
    ],
)
def test_quarter_of_empty_text_is_last_completed_quarter(now: str, quarter: str) -> None:
    """The policy pack's timezone decides, which is ahead of UTC here."""
    for empty in (None, ""):
        assert quarter_of(empty, datetime.fromisoformat(now), SHANGHAI).id == quarter


def test_quarter_starts_and_ends_at_midnight_in_pack_timezone() -> None:
    """The end of a quarter is the start of the next quarter, also at the end of a year."""
    now = datetime(2026, 10, 5, tzinfo=UTC)
    last = quarter_of("2025Q4", now, SHANGHAI)
    assert last.starts == datetime(2025, 10, 1, tzinfo=ZoneInfo(SHANGHAI))
    assert last.starts.astimezone(UTC) == datetime(2025, 9, 30, 16, tzinfo=UTC)
    assert last.ends == quarter_of("2026Q1", now, SHANGHAI).starts
    assert last.next.id == "2026Q1"


def test_quarter_starts_at_local_midnight_in_timezone_with_daylight_saving_time() -> None:
    """In New York, the first quarter starts at 05:00 UTC and the second at 04:00 UTC."""
    now = datetime(2026, 10, 5, tzinfo=UTC)
    hours = [
        quarter_of(text, now, "America/New_York").starts.astimezone(UTC).hour
        for text in ("2026Q1", "2026Q2")
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
def test_quarter_of_raises_usage_error_if_text_is_no_valid_quarter(text: str) -> None:
    """The corrective action shows a valid quarter."""
    with pytest.raises(UsageError, match="is not a quarter") as caught:
        quarter_of(text, datetime(2026, 10, 5, tzinfo=UTC), SHANGHAI)
    assert caught.value.action == "Write 2026Q3."


def test_quarter_of_raises_usage_error_if_quarter_has_not_ended() -> None:
    ends = datetime(2026, 9, 30, 16, tzinfo=UTC)
    with pytest.raises(UsageError, match="2026Q3 has not ended") as caught:
        quarter_of("2026Q3", ends - timedelta(microseconds=1), SHANGHAI)
    assert "2026-10-01" in caught.value.action
    assert quarter_of("2026Q3", ends, SHANGHAI).id == "2026Q3"


@given(MOMENTS, ZONES)
def test_default_quarter_has_ended_and_next_quarter_has_not(now: datetime, zone: str) -> None:
    """The test tries random times. Parsing the id of the quarter gives the same quarter."""
    quarter = quarter_of(None, now, zone)
    assert quarter.starts < quarter.ends <= now < quarter.next.ends
    assert quarter_of(quarter.id, now, zone) == quarter
