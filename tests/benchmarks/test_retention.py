"""The retention benchmark runs, and both of its deletions erase and enter the same records."""

from __future__ import annotations

import pytest

from benchmarks import _retention_bench, retention


def test_it_measures_every_target_at_a_small_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would stop where plan and counts, or the two ledgers, differ. Its figures do not count."""
    monkeypatch.setattr(_retention_bench, "IDLE", 1)
    monkeypatch.setattr("sys.argv", ["retention", "--rows", "20000", "--rounds", "1"])
    with pytest.raises(SystemExit) as ended:
        retention.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for what in (
        "records a second against one transaction",
        "p99 of updates beside against alone",
        "longest transaction",
        "peak memory against that of a tenth of the rows",
        "longest drop",
        "longest wait of a reader",
    ):
        assert f"  {what}: " in printed
