"""Tasks do not rely on a state database that lost what bundles sealed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import record_step
from include.services.errors import ControlFailed
from include.workplace import Workplace
from tests.evidence.register_fixtures import Company, sealed_company

pytestmark = pytest.mark.airflow
RUN = ("drill_restore", "r1")
ERASURES = ("DELETE FROM erasure", "DELETE FROM erasure_batch")
HOLDS = ("DELETE FROM legal_hold",)


@pytest.fixture
def sealed(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Company, Workplace]]:
    """A company with one sealed bundle; a step of a task does its work in its workplace."""
    from include.orchestration import backup, retention

    with sealed_company(migrated_database, tmp_path) as (company, place):

        def step(_name: str, _part: str, _title: Any, work: Any, _clause: str) -> dict[str, Any]:
            return {"record": work(place)}

        for module in (backup, retention):
            monkeypatch.setattr(module, "step", step)
            monkeypatch.setattr(module, "run_key", lambda: RUN)
        monkeypatch.setattr(retention, "started_by", lambda: None)
        yield company, place


def drill() -> dict[str, Any]:
    from include.orchestration import backup

    return backup.drill("shop")


def prune() -> dict[str, Any]:
    from include.orchestration import backup

    return backup.prune("shop")


def plan() -> dict[str, Any]:
    from include.orchestration import retention

    return retention.plan("shop", None)


def execute() -> dict[str, Any]:
    from include.orchestration import retention

    return retention.execute("shop")


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
    task: Callable[[], dict[str, Any]],
    statements: tuple[str, ...],
    lost: str,
) -> None:
    company, place = sealed
    data = {"restore_point": "p1", "latest_taken_at": company.day.isoformat()}
    chosen = StepRecord(step="choose", part="shop", outcome=Outcome.PASS, data=data)
    with place.state.begin() as conn:
        record_step(conn, *RUN, chosen, place.clock)
    company.harm(*statements)
    with pytest.raises(ControlFailed, match=f"The state database is not complete: {lost}"):
        task()


def test_prune_goes_on_without_erasures_and_with_complete_holds(
    sealed: tuple[Company, Workplace],
) -> None:
    """Pruning relies on the register of holds alone."""
    company, _place = sealed
    prune()
    company.harm(*ERASURES)
    assert prune()["record"].outcome is not Outcome.FAIL
