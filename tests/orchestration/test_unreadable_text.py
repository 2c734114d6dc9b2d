"""A step that meets a text that is not UTF-8 ends at once, with the reason in its record."""

from __future__ import annotations

import pytest

from include.evidence.model import StepRecord
from include.evidence.step_findings import steps_of
from include.messages import verbatim
from include.workplace import Workplace
from tests.drill_sandbox.test_workplace import RUN
from tests.orchestration.test_sealed_runs import Run, run

__all__ = ["run"]
pytestmark = pytest.mark.airflow


def test_step_that_reads_a_text_that_is_not_utf8_is_not_repeated(run: Run) -> None:
    """Airflow repeats a task after each other unexpected error."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import step

    def work(place: Workplace) -> StepRecord:
        with place.state.connect() as conn:  # the error that a database of SQL_ASCII causes
            conn.exec_driver_sql(r"SELECT convert_from('\xe9ff', 'UTF8')")
        raise AssertionError

    with pytest.raises(AirflowFailException, match="cannot be read as UTF-8"):
        step("check", "", verbatim("check"), work, "4.2")
    with run.live.state.connect() as conn:
        (record,) = steps_of(conn, *RUN)
    assert "its encoding is SQL_ASCII" in record.model_dump_json()
    assert "0xe9" not in record.model_dump_json()
