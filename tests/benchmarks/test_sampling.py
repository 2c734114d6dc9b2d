"""Tests of the sampling benchmark."""

from __future__ import annotations

import pytest

from benchmarks import _sampling_exact, sampling
from benchmarks._sampling_data import SamplingQuestion


def test_benchmark_prints_a_measurement_for_every_performance_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The benchmark also compares the digest of the export with the digest of the sampling frame.

    Measurements of such a small run are meaningless, so missed targets are allowed.
    """
    monkeypatch.setattr(_sampling_exact, "TURNS", 1)
    extremes = (SamplingQuestion("5%", "4%", "95%"),)  # the real ones take seconds each
    monkeypatch.setattr("benchmarks._sampling_data.EXTREMES", extremes)
    monkeypatch.setattr("sys.argv", ["sampling", "--rows", "5000", "--rounds", "1"])
    with pytest.raises(SystemExit) as ended:
        sampling.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for target in (
        "freeze, hash and draw against the export, numbers",
        "freeze, hash and draw against the export, texts, 14 strata",
        "peak memory",
        "draw 400 of 5,000 by the seed alone",
        "slowest size or limit at usual rates",
    ):
        assert f"  {target}: " in printed
    assert printed.count("Not usual: ") == 3 * len(extremes)


def test_sampling_benchmark_lists_the_performance_target_that_was_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "ANSWER", 0)
    monkeypatch.setattr("benchmarks._sampling_data.USUAL", (SamplingQuestion("5%", "1%", "95%"),))
    monkeypatch.setattr("benchmarks._sampling_data.EXTREMES", ())
    targets = sampling.Targets()
    sampling.measure_answers(1000, targets)
    assert targets.missed == ["slowest size or limit at usual rates"]
    assert "MISS" in capsys.readouterr().out
