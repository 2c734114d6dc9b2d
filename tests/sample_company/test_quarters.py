"""Test that every sample has the records from which an audit draws its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from include.sample_company import staff
from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.chance import Ints
from include.sample_company.governance import openings, sharings
from include.sample_company.world import Rates, World

SEED = 20260101
SMALL = 300  # customers; with 100, two of five quarters have no accesses
ZONES = 14 * 3600  # seconds; largest difference of a quarter's start in another timezone


@pytest.mark.parametrize("logged", [openings, sharings])
def test_sample_has_logged_accesses_and_data_shares_in_the_quarter_before_any_load_date(
    logged: Callable[[World], Iterator[tuple[Ints, Ints, Ints]]],
) -> None:
    """Tests of audits must not depend on the current date or timezone."""
    for day in range(0, 366, 5):
        as_of = datetime(2026, 11, 27, 11, 33, tzinfo=UTC) + timedelta(days=day)
        first = datetime(as_of.year, (as_of.month - 1) // 3 * 3 + 1, 1, tzinfo=UTC)
        before = (first - timedelta(days=80)).replace(day=1)
        world = World(SMALL, SEED, as_of, Rates())
        staff.build(world, AnswerSheetBuilder())
        starts, ends = before.timestamp() + ZONES, first.timestamp() - ZONES
        moments = [at for _who, _whom, at in logged(world)]
        assert any(((at >= starts) & (at < ends)).any() for at in moments), as_of
