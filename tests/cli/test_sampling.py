"""``sampling size/limit/draw``: published figures through the command line, and clear refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.cli import app


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Run a command with ``--json``; its exit code, its object and what it said to people."""
    code = app._run(["sampling", *words, "--json"])
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    return code, json.loads(told.out), told.err


def test_a_size_is_told_with_its_risk(capsys: pytest.CaptureFixture[str]) -> None:
    """AICPA: 5% tolerable, 1% expected, 5% risk: 93 items, one deviation; percent or decimal."""
    percent = ("size", "--tolerable", "5%", "--expected", "1%", "--confidence", "95%")
    decimal = ("size", "--tolerable", "0.05", "--expected", "0.01", "--confidence", "0.95")
    for words in (percent, decimal):
        code, told, _said = run(capsys, *words)
        assert code == 0
        assert (told["n"], told["acceptable_deviations"], told["method"]) == (93, 1, "binomial")
        assert 0.0499 < told["achieved_risk"] <= 0.05


def test_a_known_population_needs_fewer_items(capsys: pytest.CaptureFixture[str]) -> None:
    """jfa: N 500, 5% tolerable, 0.25% expected, 95%: 87 items."""
    words = ("--tolerable", "0.05", "--expected", "0.0025", "--confidence", "0.95")
    code, told, _said = run(capsys, "size", *words, "--population", "500")
    assert (code, told["n"], told["method"]) == (0, 87, "hypergeometric")


def test_two_stages_are_planned_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Accept at none; at exactly one go on; in the last stage there has to be none."""
    words = ("--tolerable", "5%", "--expected", "0", "--confidence", "95%", "--stages", "2")
    code, told, _said = run(capsys, "size", *words)
    assert code == 0
    first, last = told["stages"]
    assert first == {"n": 61, "acceptable_deviations": 0, "go_on_at": 1}
    assert last == {"n": 61, "acceptable_deviations": 0, "go_on_at": None}
    assert told["achieved_risk"] <= 0.05
    assert told["accepted_at_expected"] == 1


@pytest.mark.parametrize("expected", ["5%", "100%"])
def test_stages_for_what_cannot_be_accepted_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], expected: str
) -> None:
    """As for a single stage."""
    words = ("--tolerable", "5%", "--expected", expected, "--confidence", "95%", "--stages", "2")
    code, told, _said = run(capsys, "size", *words)
    assert code == 2
    assert "not below the tolerable rate" in told["error"]


def test_a_limit_is_told_exactly_and_rounded_up(capsys: pytest.CaptureFixture[str]) -> None:
    """jfa: 2 of 30 at 90%."""
    words = ("limit", "--n", "30", "--deviations", "2", "--confidence", "0.9")
    code, told, _said = run(capsys, *words)
    assert (code, told["method"]) == (0, "binomial")
    assert told["upper_limit"] == pytest.approx(0.1678129437, abs=1e-10)
    assert told["upper_limit_rounded_up_pct"] == 16.8


def test_a_draw_is_repeated_by_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rivest's own vector, and what came again in its order."""
    code, told, _said = run(
        capsys, "draw", "--seed", "snowman: ☃", "--population", "1000", "--n", "3"
    )
    assert (code, told) == (0, {"items": [634, 56, 46], "rejected": []})
    code, told, _said = run(
        capsys, "draw", "--seed", "0", "--population", "2", "--n", "3", "--with-replacement"
    )
    assert told["items"] == [1, 1, 2]
    code, told, _said = run(capsys, "draw", "--seed", "0", "--population", "2", "--n", "2")
    assert told == {"items": [1, 2], "rejected": [1]}


@pytest.mark.parametrize("rate", ["0", "1", "1.5", "nan", "0,07", "-1"])
def test_a_wrong_rate_is_wrong_usage(capsys: pytest.CaptureFixture[str], rate: str) -> None:
    """Exit code 2, one line that says which rate and how to write it."""
    code, told, said = run(capsys, "size", f"--tolerable={rate}", "--confidence", "95%")
    assert code == 2
    assert "tolerable rate" in told["error"]
    assert "0.07 or 7%" in said


def test_people_read_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json."""
    assert app._run(["sampling", "size", "--tolerable", "5%"]) == 0
    assert app._run(["sampling", "limit", "--n", "59", "--deviations", "0"]) == 0
    assert app._run(["sampling", "size", "--tolerable", "5%", "--stages", "2"]) == 0
    assert app._run(["sampling", "draw", "--seed", "0", "--population", "2", "--n", "2"]) == 0
    said = capsys.readouterr().out
    assert "Draw 59 items" in said
    assert "At most 5.0%" in said
    assert "2 stages of 61 items" in said
    assert "rejected: 1" in said
