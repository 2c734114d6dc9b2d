"""One Airflow with FAB for all tests of who may do what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from include.orchestration.access.roles import ALL
from tests.plugins.shown import Shown
from tests.support.fab import ADMIN, FabAirflow

RUN = "seen"
CONF = {"respond_to_incident": {"type": "lost_device", "what": "A scanner is gone."}}


@pytest.fixture(scope="package", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Airflow writes its configuration where it is told before its first import here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield


@pytest.fixture(scope="package")
def airflow(shown: Shown) -> FabAirflow:
    """The server, with a run of each workflow that nothing executes."""
    for dag_id in sorted(ALL):
        _trigger(shown.airflow, dag_id)
    return shown.airflow


def _trigger(airflow: FabAirflow, dag_id: str) -> None:
    answer = airflow.session(ADMIN).post(
        f"{airflow.url}/api/v2/dags/{dag_id}/dagRuns",
        json={"dag_run_id": RUN, "logical_date": None, "conf": CONF.get(dag_id, {})},
        timeout=120,
    )
    assert answer.ok, answer.text


@pytest.fixture
def session(airflow: FabAirflow) -> Iterator[Session]:
    """A transaction on Airflow's database, taken back afterwards."""
    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with Session(engine) as found:
        yield found
        found.rollback()
    engine.dispose()
