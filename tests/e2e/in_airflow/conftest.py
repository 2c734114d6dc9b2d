"""One running Airflow and one browser for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from tests.e2e.browsing import chromium
from tests.e2e.running import Running, running_airflow

CUSTOMERS = (
    300  # of 100, some quarters have no record opened: tests/sample_company/test_quarters.py
)
WORKFLOWS = len(list((Path(__file__).parents[3] / "dags").glob("*.py")))
ON_DEMAND = {"respond_to_incident", "update_incident"}  # have no schedule
REVIEWER = "E00003"
OTHER_REVIEWER = "E00017"  # entered one record of the first batch
ENTERER = "E00002"  # of the second batch; logs in with the same role as the reviewers
TECHNICIAN, MANAGER = "E00004", "E00001"  # of the incident team only
REST = "IN-000003"  # the first batch


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    """Airflow; one of its reviewers entered a record of the first batch."""
    with running_airflow(CUSTOMERS, [ENTERER]) as made:
        assert {REVIEWER, OTHER_REVIEWER, ENTERER, ADMIN} <= set(made.airflow.passwords)
        assert {TECHNICIAN, MANAGER} <= set(made.airflow.passwords)
        with made.courier() as conn:
            conn.execute(
                "UPDATE intake_record SET entered_by = (SELECT employee_id FROM employee "
                "WHERE number = %s) WHERE intake_id = "
                "(SELECT min(intake_id) FROM intake_record WHERE batch_id = %s)",
                [OTHER_REVIEWER, REST],
            )
        yield made


@pytest.fixture(scope="package")
def api(running: Running) -> AirflowApi:
    """Airflow's REST API as the administrator, who may start everything."""
    made = running.airflow.api()
    scheduled = made.scheduled_workflows(wanted=WORKFLOWS)
    assert len({*scheduled, *ON_DEMAND}) == WORKFLOWS
    return made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with chromium() as made:
        yield made
