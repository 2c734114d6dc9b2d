"""The simulation of risks runs, and notices plans and samplers that break their promise."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest

from benchmarks import _sampling_risk_cases as risks
from benchmarks import sampling_risk
from include.sampling.commitment import Plan
from include.sampling.exact.sizes import hypergeometric, smallest_size
from include.sampling.exact.strata import chance_of_accepting
from include.sampling.frame import WHOLE

COARSE = risks.Rates(Fraction(30, 100), confidence=Fraction(80, 100))  # 5 items; 4 accept 24%
STRATA = {"a": 6, "b": 4, "c": 3}


def at_the_tolerable_rate(n: int) -> risks.Case:
    plan = risks.plain_plan("single", n, 0, 1)
    return next(risks.for_plan(plan, COARSE, {WHOLE: 1_000}))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr("sys.argv", ["sampling_risk", *words])
    with pytest.raises(SystemExit) as ended:
        sampling_risk.main()
    return ended.value.code


def test_every_plan_keeps_its_risk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few repetitions: the exact risks are those of the whole run. Seeds are fixed."""
    assert run(monkeypatch, "--repetitions", "100") == 0
    printed = capsys.readouterr().out
    for what in ("single, very many", "N 500", "14 strata", "two stages", "least seen"):
        assert what in printed
    assert "MISS" not in printed
    assert "has 5.580%, above the stated 5%: refused" in " ".join(printed.split())


def test_a_plan_one_item_too_small_is_noticed() -> None:
    """By the formula and by drawing; the right size is not complained about."""
    n = smallest_size(COARSE.tolerable, COARSE.confidence).n
    right, wrong = (
        sampling_risk.simulate(at_the_tolerable_rate(size), 2_000) for size in (n, n - 1)
    )
    assert list(right.faults()) == []
    assert list(wrong.faults()) == [
        "the exact risk is above the stated one",
        "the simulated risk is above the stated one",
    ]


def test_a_broken_promise_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says which plan broke it."""
    monkeypatch.setattr(sampling_risk, "cases", lambda: iter([at_the_tolerable_rate(4)]))
    assert run(monkeypatch, "--repetitions", "10") == 1
    assert "MISS" in capsys.readouterr().out


def test_a_sampler_that_leaves_out_deviations_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula holds for fair samplers only."""
    case = at_the_tolerable_rate(5)

    def unfair(*_words: object) -> dict[str, tuple[list[int], list[int]]]:
        return {WHOLE: (list(range(996, 1_001)), [])}

    monkeypatch.setattr(sampling_risk, "ordinals", unfair)
    assert list(sampling_risk.simulate(case, 100).faults()) == [
        "the simulated risk is above the stated one",
        "drawing contradicts the formula",
    ]


def test_least_seen_hides_deviations_best() -> None:
    """Every way of placing four deviations is tried."""
    plan = next(risks.known("single", COARSE, STRATA)).committed.plan
    cases = {
        ways: _placed(plan, ways)
        for ways in product(*(range(size + 1) for size in STRATA.values()))
        if sum(ways) == 4
    }
    hidden = risks.least_seen(4, STRATA, plan.drawn)
    assert plan.acceptable == 0
    assert _placed(plan, tuple(hidden.values())) == max(cases.values())


def _placed(plan: Plan, ways: tuple[int, ...]) -> Fraction:
    case = next(risks.for_plan(plan, COARSE, STRATA))
    deviating = dict(zip(STRATA, ways, strict=True))
    return replace(case, deviating=deviating).exact


def test_one_stratum_is_the_whole_population() -> None:
    """The formula over strata comes to that without, in two stages too."""
    case = next(risks.known("staged", COARSE, {"a": 100}))
    n = case.committed.plan.n
    assert case.exact == chance_of_accepting(hypergeometric(100, case.deviating["a"]), n, 2)


@pytest.mark.parametrize("place", risks.PLACINGS.values())
def test_all_deviations_are_placed_and_fit(place: risks.Placing) -> None:
    """However many there are."""
    for count in range(sum(STRATA.values()) + 1):
        placed = place(count, STRATA, {"a": 2, "b": 2, "c": 1})
        assert sum(placed.values()) == count
        assert all(0 <= placed[name] <= size for name, size in STRATA.items())
