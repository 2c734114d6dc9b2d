"""How often `review_partners` runs, and what its ladder takes that to be, are one thing."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from include.partners.partner_status import RUNS_EVERY

pytestmark = pytest.mark.airflow

FILE = Path(__file__).resolve().parents[2] / "dags" / "review_partners.py"


def test_two_runs_are_as_far_apart_as_the_ladder_counts_with() -> None:
    """Else a rung would come after the day by which people are to be told."""
    from croniter import croniter

    schedule = runpy.run_path(str(FILE))["review_partners"]().schedule
    times = croniter(schedule.expression, datetime(2026, 1, 1, tzinfo=UTC))
    runs = [times.get_next(datetime) for _run in range(60)]
    assert {later - earlier for earlier, later in pairwise(runs)} == {RUNS_EVERY}
