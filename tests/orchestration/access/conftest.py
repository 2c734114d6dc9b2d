"""Fixtures for tests of roles: an Airflow API server with FAB as auth manager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from include.orchestration.access.roles import ALL
from tests.plugins.pages_server import PagesServer
from tests.support.fab import ADMIN, FabAirflow

RUN = "seen"
CONF = {"respond_to_incident": {"type": "lost_device", "what": "A scanner is gone."}}


@pytest.fixture(scope="package", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set AIRFLOW_HOME before Airflow is first imported, because the import writes files there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield


@pytest.fixture(scope="package")
def airflow(pages_server: PagesServer) -> FabAirflow:
    """Return the server, with a queued run of each workflow that is never executed."""
    for dag_id in sorted(ALL):
        _trigger(pages_server.airflow, dag_id)
    return pages_server.airflow


def _trigger(airflow: FabAirflow, dag_id: str) -> None:
    answer = airflow.session(ADMIN).post(
        f"{airflow.url}/api/v2/dags/{dag_id}/dagRuns",
        json={"dag_run_id": RUN, "logical_date": None, "conf": CONF.get(dag_id, {})},
        timeout=120,
    )
    assert answer.ok, answer.text


@pytest.fixture
def session(airflow: FabAirflow) -> Iterator[Session]:
    """Yield a database session on Airflow's database that is rolled back after the test."""
    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with Session(engine) as found:
        yield found
        found.rollback()
    engine.dispose()
