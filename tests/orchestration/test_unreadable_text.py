"""A step that reads invalid UTF-8 fails without retry, with the reason in its record."""

from __future__ import annotations

import pytest

from include.evidence.model import StepRecord
from include.evidence.step_findings import steps_of
from include.messages import verbatim
from include.service_container import Services
from tests.drill_sandbox.test_sandboxed_services import RUN
from tests.orchestration.test_sealed_runs import Run, run

__all__ = ["run"]
pytestmark = pytest.mark.airflow


def test_step_that_reads_invalid_utf8_is_not_retried(run: Run) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import execute_step

    def work(services: Services) -> StepRecord:
        with services.state.connect() as conn:  # the error of a database with encoding SQL_ASCII
            conn.exec_driver_sql(r"SELECT convert_from('\xe9ff', 'UTF8')")
        raise AssertionError

    with pytest.raises(AirflowFailException, match="cannot be read as UTF-8"):
        execute_step("check", "", verbatim("check"), work, "4.2")
    with run.live.state.connect() as conn:
        (record,) = steps_of(conn, *RUN)
    assert "its encoding is SQL_ASCII" in record.model_dump_json()
    assert "0xe9" not in record.model_dump_json()
