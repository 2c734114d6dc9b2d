"""Tests of the retention benchmark."""

from __future__ import annotations

import pytest

from benchmarks import _retention_bench, retention


def test_benchmark_prints_a_measurement_for_every_performance_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The benchmark also compares its plan with the deleted rows, and two ledgers with each other.

    Measurements of such a small run are meaningless, so missed targets are allowed.
    """
    monkeypatch.setattr(_retention_bench, "IDLE", 1)
    monkeypatch.setattr("sys.argv", ["retention", "--rows", "20000", "--rounds", "1"])
    with pytest.raises(SystemExit) as ended:
        retention.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for target in (
        "records a second against one transaction",
        "p99 of updates beside against alone",
        "longest transaction",
        "peak memory against that of a tenth of the rows",
        "longest drop",
        "longest wait of a reader",
    ):
        assert f"  {target}: " in printed
