"""Tests of the simulation that checks the risks of sampling plans."""

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
from include.sampling.frame import NO_STRATUM

# Needs 5 items; with 4 the risk is 24%.
COARSE = risks.Rates(Fraction(30, 100), confidence=Fraction(80, 100))
STRATA = {"a": 6, "b": 4, "c": 3}


def at_the_tolerable_rate(n: int) -> risks.Case:
    plan = risks.plain_plan("single", n, 0, 1)
    return next(risks.for_plan(plan, COARSE, {NO_STRATUM: 1_000}))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr("sys.argv", ["sampling_risk", *words])
    with pytest.raises(SystemExit) as ended:
        sampling_risk.main()
    return ended.value.code


def test_simulated_risk_of_each_sampling_plan_is_within_its_stated_risk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test uses few repetitions and fixed seeds.

    The exact risks do not depend on repetitions.
    """
    assert run(monkeypatch, "--repetitions", "100") == 0
    printed = capsys.readouterr().out
    for target in ("single, very many", "N 500", "14 strata", "two stages", "least seen"):
        assert target in printed
    assert "MISS" not in printed
    assert "has 5.580%, above the stated 5%: refused" in " ".join(printed.split())


def test_simulation_detects_that_a_sample_is_one_item_too_small() -> None:
    n = smallest_size(COARSE.tolerable, COARSE.confidence).n
    right, wrong = (
        sampling_risk.simulate(at_the_tolerable_rate(size), 2_000) for size in (n, n - 1)
    )
    assert list(right.faults()) == []
    assert list(wrong.faults()) == [
        "the exact risk is above the stated one",
        "the simulated risk is above the stated one",
    ]


def test_simulation_exits_with_status_1_if_a_stated_risk_is_exceeded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling_risk, "cases", lambda: iter([at_the_tolerable_rate(4)]))
    assert run(monkeypatch, "--repetitions", "10") == 1
    assert "MISS" in capsys.readouterr().out


def test_simulation_reports_fault_if_sampler_always_draws_the_same_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = at_the_tolerable_rate(5)

    def unfair(*_words: object) -> dict[str, tuple[list[int], list[int]]]:
        return {NO_STRATUM: (list(range(996, 1_001)), [])}

    monkeypatch.setattr(sampling_risk, "ordinals", unfair)
    assert list(sampling_risk.simulate(case, 100).faults()) == [
        "the simulated risk is above the stated one",
        "drawing contradicts the formula",
    ]


def test_risk_is_highest_if_all_deviations_are_in_the_least_sampled_strata() -> None:
    plan = next(risks.known_size_cases("single", COARSE, STRATA)).committed.plan
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


def test_risk_of_one_stratum_equals_risk_without_strata() -> None:
    case = next(risks.known_size_cases("staged", COARSE, {"a": 100}))
    n = case.committed.plan.n
    assert case.exact == chance_of_accepting(hypergeometric(100, case.deviating["a"]), n, 2)


@pytest.mark.parametrize("placement", risks.PLACEMENTS.values())
def test_each_placement_puts_all_deviations_into_strata_within_their_sizes(
    placement: risks.Placement,
) -> None:
    for count in range(sum(STRATA.values()) + 1):
        placed = placement(count, STRATA, {"a": 2, "b": 2, "c": 1})
        assert sum(placed.values()) == count
        assert all(0 <= placed[name] <= size for name, size in STRATA.items())
