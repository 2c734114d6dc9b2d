"""Tasks fail if the state database has lost rows whose figures a bundle has sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.backup.drill import DRILL, Choice
from include.backup.offsite import PRUNE
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import record_step
from include.notify.outbox import Run
from include.retention.steps import EXECUTE, PLAN
from include.service_container import Services
from include.services.errors import ControlFailed
from include.workflow.run_context import RunContext
from tests.evidence.register_fixtures import Company, sealed_company
from tests.support.contexts import step_record

pytestmark = pytest.mark.airflow
RUN = ("drill_restore", "r1")
ERASURES = ("DELETE FROM erasure", "DELETE FROM erasure_batch")
HOLDS = ("DELETE FROM legal_hold",)


@pytest.fixture
def sealed(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Company, Services]]:
    """Yield a company with a sealed bundle, and the services that its tasks use."""
    with sealed_company(migrated_database, tmp_path) as (company, services):
        yield company, services


def drill(services: Services) -> StepRecord:
    return step_record(DRILL, RunContext(services, None, Run(*RUN)), "shop")


def prune(services: Services) -> StepRecord:
    return step_record(PRUNE, RunContext(services, None, Run(*RUN)), "shop")


def plan(services: Services) -> StepRecord:
    return step_record(PLAN, RunContext(services, None, Run(*RUN)), "shop")


def execute(services: Services) -> StepRecord:
    return step_record(EXECUTE, RunContext(services, None, Run(*RUN)), "shop")


@pytest.mark.parametrize(
    ("task", "statements", "lost"),
    [
        (
            drill,
            ERASURES,
            "3 of 3 entries of the erasure ledger are missing",
        ),
        (prune, HOLDS, "1 of 1 legal holds are missing"),
        (plan, HOLDS, "1 of 1 legal holds are missing"),
        (
            plan,
            ERASURES,
            "3 of 3 entries of the erasure ledger are missing",
        ),
        (
            plan,
            ("DELETE FROM erasure_request",),
            "1 of 1 erasure requests are missing",
        ),
        (execute, HOLDS, "1 of 1 legal holds are missing"),
    ],
)
def test_task_raises_control_failed_error_if_the_state_database_has_lost_register_rows(
    sealed: tuple[Company, Services],
    task: Callable[[Services], object],
    statements: tuple[str, ...],
    lost: str,
) -> None:
    company, services = sealed
    data = Choice(restore_point="p1", of=1, latest_taken_at=company.day).as_json()
    lost_rows = StepRecord(step="choose", part="shop", outcome=Outcome.PASS, data=data)
    with services.state.begin() as conn:
        record_step(conn, *RUN, lost_rows, services.clock)
    company.harm(*statements)
    with pytest.raises(ControlFailed, match=f"The state database is not complete: {lost}"):
        task(services)


def test_pruning_does_not_fail_if_rows_of_the_erasure_ledger_are_lost(
    sealed: tuple[Company, Services],
) -> None:
    """Pruning uses no other register."""
    company, services = sealed
    prune(services)
    company.harm(*ERASURES)
    assert prune(services).outcome is not Outcome.FAIL
