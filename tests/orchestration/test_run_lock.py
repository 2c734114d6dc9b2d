"""No run is sealed while one of its steps works, and no step works while its run is sealed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from datetime import timedelta

import psycopg
import pytest

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import steps_of
from include.messages import verbatim
from include.service_container import Services
from include.services.errors import ServiceError
from tests.drill_sandbox.test_sandboxed_services import RUN
from tests.orchestration.test_sealed_runs import Run, run

__all__ = ["run"]  # the fixture
pytestmark = pytest.mark.airflow


def worked(while_working: Callable[[], None]) -> None:
    """Execute a step that calls a function during its work."""
    from include.orchestration.run import execute_step

    def work(_place: Services) -> StepRecord:
        while_working()
        return StepRecord(step="slow", outcome=Outcome.PASS)

    execute_step("slow", "", verbatim("slow"), work, "4.2")


def records(run: Run) -> list[StepRecord]:
    """Return the step records of the run."""
    with run.live.state.connect() as conn:
        return steps_of(conn, *RUN)


def cut_off(run: Run) -> None:
    """End the database sessions that hold locks, as a network failure does."""
    with psycopg.connect(run.state, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )


def test_seal_raises_service_error_if_a_step_of_the_run_does_not_end_in_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow may report a worker as dead although it is still alive."""
    from include.orchestration import run_lock

    monkeypatch.setattr(run_lock, "SEAL_PATIENCE", timedelta(seconds=1))

    def seal() -> None:
        with pytest.raises(ServiceError, match="A step of this run is still at work"):
            run.seal()

    worked(seal)
    assert run.seal()["outcome"] == "pass"
    assert [record.outcome for record in records(run)] == [Outcome.PASS]


def test_seal_waits_until_a_running_step_has_ended(run: Run) -> None:
    with futures.ThreadPoolExecutor(1) as pool:
        sealing: list[futures.Future[dict[str, object]]] = []

        def seal() -> None:
            sealing.append(pool.submit(run.seal))
            with pytest.raises(futures.TimeoutError):
                sealing[0].result(1)

        worked(seal)
        assert sealing[0].result(30)["outcome"] == "pass"
    assert [record.outcome for record in records(run)] == [Outcome.PASS]


def test_step_that_lost_its_lock_fails_if_the_run_was_sealed(run: Run) -> None:
    """The sealed record is kept."""
    from airflow.sdk.exceptions import AirflowFailException

    def seal() -> None:
        cut_off(run)
        assert run.seal()["outcome"] == "fail"

    with pytest.raises(AirflowFailException, match=r"sealed while this step was still at work"):
        worked(seal)
    assert [record.outcome for record in records(run)] == [Outcome.FAIL]


def test_step_that_lost_its_lock_continues_if_the_run_is_not_sealed(run: Run) -> None:
    """A long backup does not have to fail because its idle connection was closed."""
    worked(lambda: cut_off(run))
    assert [record.outcome for record in records(run)] == [Outcome.PASS]
    assert run.seal()["outcome"] == "pass"


def test_confirm_open_raises_airflow_fail_exception_if_the_run_was_sealed_during_the_step(
    run: Run,
) -> None:
    """Steps that delete records call `confirm_open` before each commit."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import confirm_open

    committed: list[str] = []

    def work() -> None:
        confirm_open(run.live)
        committed.append("first")
        cut_off(run)
        run.seal()
        confirm_open(run.live)
        committed.append("second")

    with pytest.raises(AirflowFailException, match=r"sealed while this step was still at work"):
        worked(work)
    assert committed == ["first"]
