"""A run is sealed while its execution is cut off from the session that holds its lock."""

from __future__ import annotations

from typing import Any

import pytest

from include.retention.execution import execute_step
from include.retention.steps import EXECUTE
from include.retention.workflow import ENFORCE_RETENTION
from tests.retention.rig import AS_OF, DAG, NAME, Rig, fill
from tests.support.airflow_task import seal_under_work, with_services

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


def test_execution_deletes_nothing_once_its_run_was_sealed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be in no evidence; the next run deletes it."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.tasks import run_step

    fill(rig)
    rig.plan()
    before = {table: rig.keys_in(table) for table in ("parcel", "scan", "detail", "person")}
    with_services(monkeypatch, KEY, rig.in_run().run.services)
    real = execute_step.execute

    def sealed_before(*arguments: Any, **named: Any) -> Any:
        seal_under_work(rig.engine, KEY, AS_OF)
        return real(*arguments, **named)

    monkeypatch.setattr(execute_step, "execute", sealed_before)
    with pytest.raises(AirflowFailException, match="sealed while this step was still at work"):
        run_step(ENFORCE_RETENTION, EXECUTE, NAME)
    assert {table: rig.keys_in(table) for table in before} == before
    assert rig.state_sql("SELECT count(*) FROM erasure_batch WHERE settled_at IS NOT NULL") == [
        (0,)
    ]
