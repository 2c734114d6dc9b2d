"""Test that `review_partners` runs at the interval that its reminders assume."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from include.partners.partner_status import RUN_INTERVAL

pytestmark = pytest.mark.airflow

FILE = Path(__file__).resolve().parents[2] / "dags" / "review_partners.py"


def test_review_partners_dag_runs_at_the_interval_that_partner_reminders_assume() -> None:
    """With a longer interval, a reminder could be sent after the due date."""
    from croniter import croniter

    schedule = runpy.run_path(str(FILE))["review_partners"]().schedule
    times = croniter(schedule.expression, datetime(2026, 1, 1, tzinfo=UTC))
    runs = [times.get_next(datetime) for _run in range(60)]
    assert {later - earlier for earlier, later in pairwise(runs)} == {RUN_INTERVAL}
