"""The trigger form's API refuses wrong parameters before a run exists."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.services.clock import SystemClock
from tests.plugins.shown import Shown
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
RUNS = "api/v2/dags/enforce_retention/dagRuns"
IN_TWO_DAYS = f"{SystemClock().now().date() + timedelta(days=2)}"


@pytest.mark.parametrize("as_of", ["tomorrow", "2026-02-30", "2026-01-31T03:30:00", IN_TWO_DAYS])
def test_trigger_with_wrong_as_of_is_refused_without_a_run(shown: Shown, as_of: str) -> None:
    """Airflow answers with an error, and has no run whose evidence would fail."""
    session, url = shown.airflow.session(ADMIN), f"{shown.airflow.url}/{RUNS}"
    before = session.get(url, timeout=120).json()["total_entries"]
    body = {"logical_date": None, "conf": {"as_of": as_of}}
    answer = session.post(url, json=body, timeout=120)
    assert answer.status_code in {400, 422}, answer.text
    assert session.get(url, timeout=120).json()["total_entries"] == before


def test_trigger_with_past_day_is_accepted(shown: Shown) -> None:
    """A day that has begun is an input that the form takes."""
    url = f"{shown.airflow.url}/{RUNS}"
    body = {"logical_date": None, "conf": {"as_of": "2026-01-31"}}
    answer = shown.airflow.session(ADMIN).post(url, json=body, timeout=120)
    assert answer.ok, answer.text
    run_id = answer.json()["dag_run_id"]
    assert shown.airflow.session(ADMIN).delete(f"{url}/{run_id}", timeout=120).ok
