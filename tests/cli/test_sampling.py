"""The commands ``sampling size``, ``limit`` and ``draw`` print published figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.cli import app


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Run a ``sampling`` command with ``--json``. Return its exit code, JSON object and stderr."""
    code = app._run(["sampling", *words, "--json"])
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    return code, json.loads(output.out), output.err


def test_sampling_size_command_prints_number_of_items_and_achieved_risk(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """AICPA: 93 items and one acceptable deviation for 5% tolerable, 1% expected rate and 5% risk.

    A rate may be a percentage or a decimal number.
    """
    percent = ("size", "--tolerable", "5%", "--expected", "1%", "--confidence", "95%")
    decimal = ("size", "--tolerable", "0.05", "--expected", "0.01", "--confidence", "0.95")
    for words in (percent, decimal):
        code, result, _err = run(capsys, *words)
        assert code == 0
        assert (result["n"], result["acceptable_deviations"], result["method"]) == (
            93,
            1,
            "binomial",
        )
        assert 0.0499 < result["achieved_risk"] <= 0.05


def test_sample_size_is_smaller_if_population_size_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """R package jfa: 87 of 500 items for 5% tolerable, 0.25% expected rate, 95% confidence."""
    words = ("--tolerable", "0.05", "--expected", "0.0025", "--confidence", "0.95")
    code, result, _err = run(capsys, "size", *words, "--population", "500")
    assert (code, result["n"], result["method"]) == (0, 87, "hypergeometric")


def test_sampling_size_with_two_stages_prints_the_plan_of_each_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a deviation, the first stage accepts the population.

    Exactly one deviation leads to the second stage, which must have no deviation.
    """
    words = ("--tolerable", "5%", "--expected", "0", "--confidence", "95%", "--stages", "2")
    code, result, _err = run(capsys, "size", *words)
    assert code == 0
    first, last = result["stages"]
    assert first == {"n": 61, "acceptable_deviations": 0, "go_on_at": 1}
    assert last == {"n": 61, "acceptable_deviations": 0, "go_on_at": None}
    assert result["achieved_risk"] <= 0.05
    assert result["accepted_at_expected"] == 1


@pytest.mark.parametrize("expected", ["5%", "100%"])
def test_sampling_size_command_exits_with_2_if_expected_rate_is_not_below_tolerable_rate(
    capsys: pytest.CaptureFixture[str], expected: str
) -> None:
    """A sampling plan with two stages is refused like a plan with one stage."""
    words = ("--tolerable", "5%", "--expected", expected, "--confidence", "95%", "--stages", "2")
    code, result, _err = run(capsys, "size", *words)
    assert code == 2
    assert "not below the tolerable rate" in result["error"]


def test_sampling_limit_prints_the_exact_limit_and_its_rounded_up_percentage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The R package jfa computes the same limit for 2 deviations in 30 items at 90% confidence."""
    words = ("limit", "--n", "30", "--deviations", "2", "--confidence", "0.9")
    code, result, _err = run(capsys, *words)
    assert (code, result["method"]) == (0, "binomial")
    assert result["upper_limit"] == pytest.approx(0.1678129437, abs=1e-10)
    assert result["upper_limit_rounded_up_pct"] == 16.8


def test_sampling_draw_command_prints_the_items_of_the_published_test_vector(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first draw is a test vector of Rivest's sampler.

    Without replacement, repeated numbers are rejected.
    """
    code, result, _err = run(
        capsys, "draw", "--seed", "snowman: ☃", "--population", "1000", "--n", "3"
    )
    assert (code, result) == (0, {"items": [634, 56, 46], "rejected": []})
    code, result, _err = run(
        capsys, "draw", "--seed", "0", "--population", "2", "--n", "3", "--with-replacement"
    )
    assert result["items"] == [1, 1, 2]
    code, result, _err = run(capsys, "draw", "--seed", "0", "--population", "2", "--n", "2")
    assert result == {"items": [1, 2], "rejected": [1]}


@pytest.mark.parametrize("rate", ["0", "1", "1.5", "nan", "0,07", "-1"])
def test_sampling_size_with_invalid_rate_exits_with_2(
    capsys: pytest.CaptureFixture[str], rate: str
) -> None:
    """The error names the rate and the valid notations in one line."""
    code, result, err = run(capsys, "size", f"--tolerable={rate}", "--confidence", "95%")
    assert code == 2
    assert "tolerable rate" in result["error"]
    assert "0.07 or 7%" in err


def test_sampling_commands_without_json_option_print_sentences(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app._run(["sampling", "size", "--tolerable", "5%"]) == 0
    assert app._run(["sampling", "limit", "--n", "59", "--deviations", "0"]) == 0
    assert app._run(["sampling", "size", "--tolerable", "5%", "--stages", "2"]) == 0
    assert app._run(["sampling", "draw", "--seed", "0", "--population", "2", "--n", "2"]) == 0
    output = capsys.readouterr().out
    assert "Draw 59 items" in output
    assert "At most 5.0%" in output
    assert "2 stages of 61 items" in output
    assert "rejected: 1" in output
