"""Tests of the benchmark that compares accesses with approvals, on a small log."""

from __future__ import annotations

import pytest

from benchmarks import disclosure_accesses
from benchmarks._measure import Targets


def test_benchmark_finds_the_same_numbers_as_the_queries_by_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(disclosure_accesses, "SLOWER", 1000)
    monkeypatch.setattr(disclosure_accesses, "HOURLY", 1000)
    targets = Targets()
    disclosure_accesses.measure_accesses(100_000, 1, targets)
    assert targets.missed == []
    assert "hourly comparison" in capsys.readouterr().out
