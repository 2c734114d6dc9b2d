"""A running Airflow and a browser for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from include import registry
from include.local.airflow import ADMIN
from include.local.airflow_api import AirflowApi
from include.workflow.declaration import Cadence
from tests.e2e.browsing import chromium
from tests.e2e.running import Running, running_airflow

CUSTOMERS = 300  # with 100, some quarters have no accesses: tests/sample_company/test_quarters.py
ON_DEMAND = {  # workflows without a schedule
    workflow.id for workflow in registry.workflows() if workflow.cadence is Cadence.ON_DEMAND
}
REVIEWER = "E00003"
OTHER_REVIEWER = "E00017"  # entered one record of the first batch
ENTERER = "E00002"  # entered the second batch; has the same role as the reviewers
TECHNICIAN, MANAGER = "E00004", "E00001"  # belong only to the incident team
REST = "IN-000003"  # first batch, answered over REST


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    """A running Airflow. One of the reviewers entered a record of the first batch."""
    with running_airflow(CUSTOMERS, [ENTERER]) as running_instance:
        assert {REVIEWER, OTHER_REVIEWER, ENTERER, ADMIN} <= set(running_instance.airflow.passwords)
        assert {TECHNICIAN, MANAGER} <= set(running_instance.airflow.passwords)
        with running_instance.courier() as conn:
            conn.execute(
                "UPDATE intake_record SET entered_by = (SELECT employee_id FROM employee "
                "WHERE number = %s) WHERE intake_id = "
                "(SELECT min(intake_id) FROM intake_record WHERE batch_id = %s)",
                [OTHER_REVIEWER, REST],
            )
        yield running_instance


@pytest.fixture(scope="package")
def api(running: Running) -> AirflowApi:
    """Airflow's REST API with the administrator's login, which may trigger every workflow."""
    client = running.airflow.api()
    scheduled = client.scheduled_workflows(expected_dags=len(registry.WORKFLOWS))
    assert {*scheduled, *ON_DEMAND} == set(registry.WORKFLOWS)
    return client


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with chromium() as running_instance:
        yield running_instance
