"""Tests of a run that is sealed while its execution has lost the session with its lock."""

from __future__ import annotations

from typing import Any

import pytest

from include.retention.execution import execute_step
from include.retention.steps import EXECUTE
from include.retention.workflow import ENFORCE_RETENTION
from tests.retention.runner import AS_OF, DAG, NAME, RetentionRunner, fill
from tests.support.airflow_task import seal_under_work, with_services

pytestmark = pytest.mark.airflow
KEY = (DAG, "r1")


def test_execution_deletes_nothing_if_its_run_is_already_sealed(
    runner: RetentionRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No evidence would contain such a deletion. The next run deletes the records."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.tasks import run_step

    fill(runner)
    runner.plan()
    before = {table: runner.keys_in(table) for table in ("parcel", "scan", "detail", "person")}
    with_services(monkeypatch, KEY, runner.in_run().run.services)
    real = execute_step.execute

    def sealed_before(*arguments: Any, **named: Any) -> Any:
        seal_under_work(runner.engine, KEY, AS_OF)
        return real(*arguments, **named)

    monkeypatch.setattr(execute_step, "execute", sealed_before)
    with pytest.raises(AirflowFailException, match="sealed while this step was still at work"):
        run_step(ENFORCE_RETENTION, EXECUTE, NAME)
    assert {table: runner.keys_in(table) for table in before} == before
    assert runner.state_sql("SELECT count(*) FROM erasure_batch WHERE settled_at IS NOT NULL") == [
        (0,)
    ]
