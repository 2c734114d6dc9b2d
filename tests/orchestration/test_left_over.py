"""Runs of `./parcelseal run` without a process: one process seals each of them, once."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from include.orchestration import left_over

DAG = SimpleNamespace(dag_id="drill_restore")
BEGUN = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """A run that was interrupted; gets its date each time that it is sealed."""
    sealed: list[datetime] = []

    def seal(_dag: object, logical_date: datetime) -> str:
        time.sleep(0.2)
        sealed.append(logical_date)
        return "run"

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(left_over, "_running", lambda _: {} if sealed else {"run": BEGUN})
    monkeypatch.setattr(left_over, "seal_run_now", seal)
    return sealed


def test_two_starts_seal_a_left_over_run_once(sealed: list[datetime]) -> None:
    starts = [
        threading.Thread(target=left_over.seal_left_over, args=(DAG, lambda _: None))
        for _ in range(2)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert sealed == [BEGUN]


def test_run_with_a_process_is_not_sealed(sealed: list[datetime]) -> None:
    with left_over.locked_run(DAG.dag_id, BEGUN):
        left_over.seal_left_over(DAG, lambda _: None)
    assert sealed == []
    left_over.seal_left_over(DAG, lambda _: None)
    assert sealed == [BEGUN]
