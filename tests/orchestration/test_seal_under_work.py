"""A step that is at work and the seal of its run exclude each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from datetime import timedelta

import psycopg
import pytest

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import steps_of
from include.messages import verbatim
from include.services.errors import ServiceError
from include.workplace import Workplace
from tests.drill_sandbox.test_workplace import RUN
from tests.orchestration.test_sealed_runs import Run, run

__all__ = ["run"]  # the fixture
pytestmark = pytest.mark.airflow


def worked(while_working: Callable[[], None]) -> None:
    """Do a step that calls a function while it is at work."""
    from include.orchestration.run import step

    def work(_place: Workplace) -> StepRecord:
        while_working()
        return StepRecord(step="slow", outcome=Outcome.PASS)

    step("slow", "", verbatim("slow"), work, "4.2")


def records(run: Run) -> list[StepRecord]:
    """Return the records of the run."""
    with run.live.state.connect() as conn:
        return steps_of(conn, *RUN)


def cut_off(run: Run) -> None:
    """End the sessions in which locks are held, as a cut network does in the end."""
    with psycopg.connect(run.state, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )


def test_seal_is_refused_while_a_step_is_at_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow reported a live worker as dead; evidence would not show its later work."""
    from include.orchestration import run_lock

    monkeypatch.setattr(run_lock, "SEAL_PATIENCE", timedelta(seconds=1))

    def seal() -> None:
        with pytest.raises(ServiceError, match="A step of this run is still at work"):
            run.seal()

    worked(seal)
    assert run.seal()["outcome"] == "pass"
    assert [record.outcome for record in records(run)] == [Outcome.PASS]


def test_seal_waits_for_a_step_that_is_at_work(run: Run) -> None:
    """The step keeps its result without waiting for the seal that waits for it."""
    with futures.ThreadPoolExecutor(1) as pool:
        sealing: list[futures.Future[dict[str, object]]] = []

        def seal() -> None:
            sealing.append(pool.submit(run.seal))
            with pytest.raises(futures.TimeoutError):
                sealing[0].result(1)

        worked(seal)
        assert sealing[0].result(30)["outcome"] == "pass"
    assert [record.outcome for record in records(run)] == [Outcome.PASS]


def test_step_that_lost_its_lock_fails_where_the_run_was_sealed(run: Run) -> None:
    """The error names the cause, and the sealed record stays."""
    from airflow.sdk.exceptions import AirflowFailException

    def seal() -> None:
        cut_off(run)
        assert run.seal()["outcome"] == "fail"

    with pytest.raises(AirflowFailException, match=r"sealed while this step was still at work"):
        worked(seal)
    assert [record.outcome for record in records(run)] == [Outcome.FAIL]


def test_step_that_lost_its_lock_goes_on_where_the_run_is_not_sealed(run: Run) -> None:
    """A long backup need not fail because an idle connection was ended."""
    worked(lambda: cut_off(run))
    assert [record.outcome for record in records(run)] == [Outcome.PASS]
    assert run.seal()["outcome"] == "pass"


def test_confirm_open_stops_work_in_a_run_that_was_sealed_meanwhile(run: Run) -> None:
    """Deletions ask before each commit."""
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
