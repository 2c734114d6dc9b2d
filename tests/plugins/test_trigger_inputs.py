"""Airflow's API for triggers refuses wrong parameters before a run exists."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.services.clock import SystemClock
from tests.plugins.pages_server import PagesServer
from tests.support.fab import ADMIN

pytestmark = pytest.mark.airflow
RUNS = "api/v2/dags/enforce_retention/dagRuns"
IN_TWO_DAYS = f"{SystemClock().now().date() + timedelta(days=2)}"


@pytest.mark.parametrize("as_of", ["tomorrow", "2026-02-30", "2026-01-31T03:30:00", IN_TWO_DAYS])
def test_trigger_request_with_invalid_as_of_date_gets_status_400_or_422_and_creates_no_run(
    pages_server: PagesServer, as_of: str
) -> None:
    session, url = pages_server.airflow.session(ADMIN), f"{pages_server.airflow.url}/{RUNS}"
    before = session.get(url, timeout=120).json()["total_entries"]
    body = {"logical_date": None, "conf": {"as_of": as_of}}
    answer = session.post(url, json=body, timeout=120)
    assert answer.status_code in {400, 422}, answer.text
    assert session.get(url, timeout=120).json()["total_entries"] == before


def test_trigger_request_with_as_of_date_in_the_past_creates_a_run(
    pages_server: PagesServer,
) -> None:
    url = f"{pages_server.airflow.url}/{RUNS}"
    body = {"logical_date": None, "conf": {"as_of": "2026-01-31"}}
    answer = pages_server.airflow.session(ADMIN).post(url, json=body, timeout=120)
    assert answer.ok, answer.text
    run_id = answer.json()["dag_run_id"]
    assert pages_server.airflow.session(ADMIN).delete(f"{url}/{run_id}", timeout=120).ok
