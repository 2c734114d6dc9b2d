"""Pruning trusts no clock that cannot be right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.backup.offsite import require_plausible_clock
from include.services.errors import ServiceError

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


@pytest.mark.parametrize("off", [timedelta(days=3650), timedelta(hours=25), -timedelta(minutes=6)])
def test_a_clock_far_from_the_newest_restore_point_prunes_nothing(off: timedelta) -> None:
    """Pruning follows a backup of the same run, so the newest point is minutes old."""
    with pytest.raises(ServiceError, match="Nothing was pruned"):
        require_plausible_clock([NOW - timedelta(days=3), NOW], NOW + off)


def test_a_clock_a_little_off_and_an_empty_store_are_fine() -> None:
    """Clocks that are kept right differ by seconds."""
    require_plausible_clock([NOW], NOW - timedelta(minutes=4))
    require_plausible_clock([NOW], NOW + timedelta(hours=5))
    require_plausible_clock([], NOW)
