"""What an audit draws from is in every sample that tests and first commands use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from include.sample_company import staff
from include.sample_company.answers import Notes
from include.sample_company.chance import Ints
from include.sample_company.governance import openings, sharings
from include.sample_company.world import Rates, World

SEED = 20260101
SMALL = 300  # customers; of 100, two quarters in five have no record opened
ZONES = 14 * 3600  # seconds by which a quarter may begin or end elsewhere


@pytest.mark.parametrize("logged", [openings, sharings])
def test_the_quarter_before_any_day_has_records_that_were_opened_and_shared(
    logged: Callable[[World], Iterator[tuple[Ints, Ints, Ints]]],
) -> None:
    """Whatever the day and the timezone: else a test of an audit would fail by the calendar."""
    for day in range(0, 366, 5):
        as_of = datetime(2026, 11, 27, 11, 33, tzinfo=UTC) + timedelta(days=day)
        first = datetime(as_of.year, (as_of.month - 1) // 3 * 3 + 1, 1, tzinfo=UTC)
        before = (first - timedelta(days=80)).replace(day=1)
        world = World(SMALL, SEED, as_of, Rates())
        staff.build(world, Notes())
        starts, ends = before.timestamp() + ZONES, first.timestamp() - ZONES
        moments = [at for _who, _whom, at in logged(world)]
        assert any(((at >= starts) & (at < ends)).any() for at in moments), as_of
