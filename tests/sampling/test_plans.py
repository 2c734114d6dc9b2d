"""Tests of sampling plans, which are computed from strata and rates before the seed is known."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.commitment import Plan, plan_for
from include.sampling.exact.sizes import smallest_size
from include.sampling.exact.strata import smallest_stages
from include.sampling.frame import NO_STRATUM

FIVE, NINETY_FIVE, NONE = Fraction(5, 100), Fraction(95, 100), Fraction(0)


def make_plan(strata: Any, kind: Any = "single", **more: Any) -> Plan:
    rates = {"tolerable": FIVE, "expected": NONE, "confidence": NINETY_FIVE} | more
    sizes = strata if isinstance(strata, dict) else {NO_STRATUM: strata}
    return plan_for(
        kind,
        rates["tolerable"],
        rates["expected"],
        rates["confidence"],
        sizes,
        stratified=isinstance(strata, dict),
    )


def test_single_stage_plan_has_sample_size_of_hypergeometric_distribution() -> None:
    """The size of the population is known, because the frame is complete."""
    plan = make_plan(500, expected=Fraction(1, 400))
    size = smallest_size(FIVE, NINETY_FIVE, expected=Fraction(1, 400), population=500)
    assert (plan.kind, plan.method, plan.stages) == ("single", "hypergeometric", 1)
    assert (plan.n, plan.acceptable) == (size.n, size.acceptable) == (87, 1)
    assert plan.drawn == {NO_STRATUM: 87}


def test_discovery_plan_has_zero_acceptable_deviations() -> None:
    """A census of a discovery plan accepts no deviation either."""
    for items in (1_000_000, 500, 10, 1):
        plan = make_plan(items, "discovery")
        assert (plan.kind, plan.acceptable, plan.stages) == ("discovery", 0, 1)
    few = dict.fromkeys("abcdefghijklmnopqrst", 1)
    whole = make_plan(few, tolerable=Fraction(1, 5))
    assert (whole.method, whole.acceptable) == ("census", 3)
    assert make_plan(few, "discovery", tolerable=Fraction(1, 5)).acceptable == 0


def test_staged_plan_has_two_equal_stages_and_zero_acceptable_deviations() -> None:
    plan = make_plan(100_000, "staged")
    stages = smallest_stages(FIVE, NINETY_FIVE, 2, 100_000)
    assert (plan.kind, plan.stages, plan.n, plan.acceptable) == ("staged", 2, stages.n, 0)
    assert plan.drawn == {NO_STRATUM: stages.n}


@pytest.mark.parametrize("strata", [3, 20, {"a": 1, "b": 5000}])
def test_staged_plan_for_too_few_items_has_single_stage(strata: Any) -> None:
    """The plan equals the plan that is made for a single stage."""
    fallback = make_plan(strata, "staged")
    assert fallback.stages == 1
    assert fallback == make_plan(strata, "single")


def test_plan_for_small_population_draws_all_items() -> None:
    for items in (1, 5, 19):
        plan = make_plan(items)
        assert (plan.n, plan.method, plan.drawn) == (items, "census", {NO_STRATUM: items})
        assert (plan.acceptable, plan.achieved_risk) == (0, "0.000000000000")


def test_plan_draws_at_least_the_share_of_each_stratum() -> None:
    sizes = {"large": 9000, "small": 900, "tiny": 1}
    plan = make_plan(sizes)
    assert set(plan.drawn) == set(sizes)
    assert plan.drawn["tiny"] == 1
    assert plan.n == sum(plan.drawn.values()) >= 59
    thinnest = min(Fraction(plan.drawn[name], size) for name, size in sizes.items())
    assert thinnest >= Fraction(58, 9901)


def test_plan_for_small_strata_draws_all_items_of_each_stratum() -> None:
    """The plan draws all items of each stratum, in the order of the frame."""
    plan = make_plan({"b": 3, "a": 4})
    assert plan.method == "census"
    assert list(plan.drawn.items()) == [("b", 3), ("a", 4)]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 3000), min_size=1, max_size=5),
    st.sampled_from(["single", "staged", "discovery"]),
    st.sampled_from([Fraction(1, 100), FIVE, Fraction(1, 3)]),
    st.booleans(),
)
def test_plan_never_draws_more_items_than_population_has_and_never_exceeds_planned_risk(
    strata: dict[str, int], kind: Any, tolerable: Fraction, stratified: bool
) -> None:
    """The same input also gives the same plan."""
    sizes: Any = strata if stratified else sum(strata.values())
    plan = make_plan(sizes, kind, tolerable=tolerable)
    assert plan == make_plan(sizes, kind, tolerable=tolerable)
    assert Fraction(plan.achieved_risk) <= 1 - NINETY_FIVE + Fraction(1, 10**12)
    assert plan.n == sum(plan.drawn.values())
    for name, size in (strata if stratified else {NO_STRATUM: sizes}).items():
        assert 1 <= plan.drawn[name] * plan.stages <= size
