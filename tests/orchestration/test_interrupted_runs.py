"""Interrupted runs of `./parcelseal run` are sealed once, and by one process only."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from include.orchestration import interrupted_runs

DAG = SimpleNamespace(dag_id="drill_restore")
BEGUN = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Return a list to which each seal of the interrupted run appends the run's logical date."""
    sealed: list[datetime] = []

    def seal(_dag: object, logical_date: datetime) -> str:
        time.sleep(0.2)
        sealed.append(logical_date)
        return "run"

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(interrupted_runs, "_running", lambda _: {} if sealed else {"run": BEGUN})
    monkeypatch.setattr(interrupted_runs, "seal_run_now", seal)
    return sealed


def test_two_concurrent_calls_of_seal_interrupted_runs_seal_an_interrupted_run_only_once(
    sealed: list[datetime],
) -> None:
    starts = [
        threading.Thread(target=interrupted_runs.seal_interrupted_runs, args=(DAG, lambda _: None))
        for _ in range(2)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert sealed == [BEGUN]


def test_run_whose_process_still_runs_is_not_sealed(sealed: list[datetime]) -> None:
    with interrupted_runs.locked_run(DAG.dag_id, BEGUN):
        interrupted_runs.seal_interrupted_runs(DAG, lambda _: None)
    assert sealed == []
    interrupted_runs.seal_interrupted_runs(DAG, lambda _: None)
    assert sealed == [BEGUN]
