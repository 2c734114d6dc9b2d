"""Tasks do not rely on a state database that lost what bundles sealed of it."""

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
from include.services.errors import ControlFailed
from include.workflow.run_context import RunContext
from include.workplace import Workplace
from tests.evidence.register_fixtures import Company, sealed_company
from tests.support.contexts import step_record

pytestmark = pytest.mark.airflow
RUN = ("drill_restore", "r1")
ERASURES = ("DELETE FROM erasure", "DELETE FROM erasure_batch")
HOLDS = ("DELETE FROM legal_hold",)


@pytest.fixture
def sealed(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Company, Workplace]]:
    """A company with one sealed bundle; a step of a task does its work in its workplace."""
    with sealed_company(migrated_database, tmp_path) as (company, place):
        yield company, place


def drill(place: Workplace) -> StepRecord:
    return step_record(DRILL, RunContext(place, None, Run(*RUN)), "shop")


def prune(place: Workplace) -> StepRecord:
    return step_record(PRUNE, RunContext(place, None, Run(*RUN)), "shop")


def plan(place: Workplace) -> StepRecord:
    return step_record(PLAN, RunContext(place, None, Run(*RUN)), "shop")


def execute(place: Workplace) -> StepRecord:
    return step_record(EXECUTE, RunContext(place, None, Run(*RUN)), "shop")


@pytest.mark.parametrize(
    ("task", "statements", "lost"),
    [
        (drill, ERASURES, "3 of 3 sealed erasures"),
        (prune, HOLDS, "1 of 1 sealed legal holds"),
        (plan, HOLDS, "1 of 1 sealed legal holds"),
        (plan, ERASURES, "3 of 3 sealed erasures"),
        (plan, ("DELETE FROM erasure_request",), "1 of 1 sealed erasure requests"),
        (execute, HOLDS, "1 of 1 sealed legal holds"),
    ],
)
def test_task_fails_before_it_acts_when_sealed_rows_are_gone(
    sealed: tuple[Company, Workplace],
    task: Callable[[Workplace], object],
    statements: tuple[str, ...],
    lost: str,
) -> None:
    company, place = sealed
    data = Choice(restore_point="p1", of=1, latest_taken_at=company.day).as_json()
    chosen = StepRecord(step="choose", part="shop", outcome=Outcome.PASS, data=data)
    with place.state.begin() as conn:
        record_step(conn, *RUN, chosen, place.clock)
    company.harm(*statements)
    with pytest.raises(ControlFailed, match=f"The state database is not complete: {lost}"):
        task(place)


def test_prune_goes_on_without_erasures_and_with_complete_holds(
    sealed: tuple[Company, Workplace],
) -> None:
    """Pruning relies on the register of holds alone."""
    company, place = sealed
    prune(place)
    company.harm(*ERASURES)
    assert prune(place).outcome is not Outcome.FAIL
