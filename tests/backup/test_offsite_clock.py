"""Test that pruning is refused if the system clock is implausible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.backup.offsite import require_plausible_clock
from include.services.errors import ServiceError

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


@pytest.mark.parametrize("off", [timedelta(days=3650), timedelta(hours=25), -timedelta(minutes=6)])
def test_pruning_raises_service_error_if_clock_is_far_from_time_of_newest_restore_point(
    off: timedelta,
) -> None:
    """Pruning follows a backup in the same run, so the newest restore point is minutes old."""
    with pytest.raises(ServiceError, match="Nothing was pruned"):
        require_plausible_clock([NOW - timedelta(days=3), NOW], NOW + off)


def test_pruning_raises_no_error_for_small_clock_difference_or_empty_store() -> None:
    """Synchronised clocks differ by seconds."""
    require_plausible_clock([NOW], NOW - timedelta(minutes=4))
    require_plausible_clock([NOW], NOW + timedelta(hours=5))
    require_plausible_clock([], NOW)
