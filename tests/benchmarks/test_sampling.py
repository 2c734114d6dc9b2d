"""The sampling benchmark runs, and its export comes to the same digest as the frame."""

from __future__ import annotations

import pytest

from benchmarks import _sampling_exact, sampling
from benchmarks._sampling_data import Asked


def test_it_measures_every_target_at_a_small_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would stop where export and frame differ. Its figures do not count."""
    monkeypatch.setattr(_sampling_exact, "TURNS", 1)
    extremes = (Asked("5%", "4%", "95%"),)  # those that are measured take seconds each
    monkeypatch.setattr("benchmarks._sampling_data.EXTREMES", extremes)
    monkeypatch.setattr("sys.argv", ["sampling", "--rows", "5000", "--rounds", "1"])
    with pytest.raises(SystemExit) as ended:
        sampling.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for what in (
        "freeze, hash and draw against the export, numbers",
        "freeze, hash and draw against the export, texts, 14 strata",
        "peak memory",
        "draw 400 of 5,000 by the seed alone",
        "slowest size or limit at usual rates",
    ):
        assert f"  {what}: " in printed
    assert printed.count("Not usual: ") == 3 * len(extremes)


def test_a_missed_target_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A benchmark that cannot fail shows nothing."""
    monkeypatch.setattr(sampling, "ANSWER", 0)
    monkeypatch.setattr("benchmarks._sampling_data.USUAL", (Asked("5%", "1%", "95%"),))
    monkeypatch.setattr("benchmarks._sampling_data.EXTREMES", ())
    targets = sampling.Targets()
    sampling.measure_answers(1000, targets)
    assert targets.missed == ["slowest size or limit at usual rates"]
    assert "MISS" in capsys.readouterr().out
