"""Plans: made from the frozen strata and the rates alone, before anybody knows the seed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.commitment import Plan, plan_for
from include.sampling.exact.sizes import smallest_size
from include.sampling.exact.strata import smallest_stages
from include.sampling.frame import WHOLE

FIVE, NINETY_FIVE, NONE = Fraction(5, 100), Fraction(95, 100), Fraction(0)


def planned(strata: Any, kind: Any = "single", **more: Any) -> Plan:
    given = {"tolerable": FIVE, "expected": NONE, "confidence": NINETY_FIVE} | more
    sizes = strata if isinstance(strata, dict) else {WHOLE: strata}
    return plan_for(
        kind,
        given["tolerable"],
        given["expected"],
        given["confidence"],
        sizes,
        stratified=isinstance(strata, dict),
    )


def test_a_single_stage_is_the_exact_size_of_its_population() -> None:
    """The hypergeometric one, since the frame says how many items there are."""
    plan = planned(500, expected=Fraction(1, 400))
    size = smallest_size(FIVE, NINETY_FIVE, expected=Fraction(1, 400), population=500)
    assert (plan.kind, plan.method, plan.stages) == ("single", "hypergeometric", 1)
    assert (plan.n, plan.acceptable) == (size.n, size.acceptable) == (87, 1)
    assert plan.drawn == {WHOLE: 87}


def test_discovery_accepts_nothing() -> None:
    """Also where all items are looked at."""
    for items in (1_000_000, 500, 10, 1):
        plan = planned(items, "discovery")
        assert (plan.kind, plan.acceptable, plan.stages) == ("discovery", 0, 1)
    few = dict.fromkeys("abcdefghijklmnopqrst", 1)
    whole = planned(few, tolerable=Fraction(1, 5))
    assert (whole.method, whole.acceptable) == ("census", 3)
    assert planned(few, "discovery", tolerable=Fraction(1, 5)).acceptable == 0


def test_two_stages_are_planned_together() -> None:
    """Each of as many items, none of which may deviate in the first."""
    plan = planned(100_000, "staged")
    stages = smallest_stages(FIVE, NINETY_FIVE, 2, 100_000)
    assert (plan.kind, plan.stages, plan.n, plan.acceptable) == ("staged", 2, stages.n, 0)
    assert plan.drawn == {WHOLE: stages.n}


@pytest.mark.parametrize("strata", [3, 20, {"a": 1, "b": 5000}])
def test_two_stages_of_too_few_items_are_a_single_one(strata: Any) -> None:
    """Of the same risk: the same plan as if a single one had been asked for."""
    fallen = planned(strata, "staged")
    assert fallen.stages == 1
    assert fallen == planned(strata, "single")


def test_a_population_smaller_than_the_sample_is_looked_at_whole() -> None:
    """A census has no risk, and accepts fewer than would be too many."""
    for items in (1, 5, 19):
        plan = planned(items)
        assert (plan.n, plan.method, plan.drawn) == (items, "census", {WHOLE: items})
        assert (plan.acceptable, plan.achieved_risk) == (0, "0.000000000000")


def test_every_stratum_gives_its_share() -> None:
    """Rounded up: none is sampled more thinly than the whole."""
    sizes = {"large": 9000, "small": 900, "tiny": 1}
    plan = planned(sizes)
    assert set(plan.drawn) == set(sizes)
    assert plan.drawn["tiny"] == 1
    assert plan.n == sum(plan.drawn.values()) >= 59
    thinnest = min(Fraction(plan.drawn[one], size) for one, size in sizes.items())
    assert thinnest >= Fraction(58, 9901)


def test_strata_of_few_items_are_looked_at_whole() -> None:
    """All of each, in the names' order of the frame."""
    plan = planned({"b": 3, "a": 4})
    assert plan.method == "census"
    assert list(plan.drawn.items()) == [("b", 3), ("a", 4)]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 3000), min_size=1, max_size=5),
    st.sampled_from(["single", "staged", "discovery"]),
    st.sampled_from([Fraction(1, 100), FIVE, Fraction(1, 3)]),
    st.booleans(),
)
def test_no_plan_draws_more_than_there_is_or_risks_more_than_was_asked(
    strata: dict[str, int], kind: Any, tolerable: Fraction, stratified: bool
) -> None:
    """Whatever the strata; and it is the same when it is made again."""
    sizes: Any = strata if stratified else sum(strata.values())
    plan = planned(sizes, kind, tolerable=tolerable)
    assert plan == planned(sizes, kind, tolerable=tolerable)
    assert Fraction(plan.achieved_risk) <= 1 - NINETY_FIVE + Fraction(1, 10**12)
    assert plan.n == sum(plan.drawn.values())
    for name, size in (strata if stratified else {WHOLE: sizes}).items():
        assert 1 <= plan.drawn[name] * plan.stages <= size
