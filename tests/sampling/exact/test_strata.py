"""Tests of samples over strata: each stratum gets its share, and the risk stays within the plan."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, comb, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.exact.sizes import CENSUS
from include.sampling.exact.strata import (
    Allocation,
    allocate,
    stratified_limit,
    stratified_size,
    stratified_stages,
)
from include.services.errors import UsageError

FIVE, NINETY_FIVE = Fraction(5, 100), Fraction(95, 100)
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(
    lambda sizes: {f"s{at}": size for at, size in enumerate(sizes)}
)


@given(SIZES, st.data())
def test_allocation_draws_proportional_share_of_each_stratum_rounded_up_to_whole_items(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    """The share is rounded up, so a stratum contributes less than one item more than its share."""
    population = sum(sizes.values())
    n = data.draw(st.integers(1, population))
    allocation = allocate(n, sizes)
    for name, size in sizes.items():
        share = Fraction(n * size, population)
        assert share <= allocation.drawn[name] < share + 1
        assert allocation.drawn[name] <= size
    assert allocation.effective >= n


def _ways(sizes: dict[str, int], deviating: int) -> list[tuple[int, ...]]:
    return [
        counts
        for counts in product(*(range(size + 1) for size in sizes.values()))
        if sum(counts) == deviating
    ]


def _chances(allocation: Allocation, placed: tuple[int, ...], most: int) -> Fraction:
    """Return the probability of at most ``most`` deviations by enumerating all samples.

    Args:
        allocation: items to draw from each stratum.
        placed: number of deviating items in each stratum.
        most: maximum number of deviations.
    """
    strata = [
        (size, bad, allocation.drawn[name])
        for (name, size), bad in zip(allocation.sizes.items(), placed, strict=True)
    ]
    total = sum(
        prod(
            comb(bad, x) * comb(size - bad, n - x)
            for (size, bad, n), x in zip(strata, xs, strict=True)
        )
        for xs in product(*(range(n + 1) for _size, _bad, n in strata))
        if sum(xs) <= most
    )
    return Fraction(total, prod(comb(size, n) for size, _bad, n in strata))


@settings(deadline=None, max_examples=60)
@given(
    SIZES,
    st.fractions(Fraction(1, 5), Fraction(3, 5), max_denominator=10),
    st.sampled_from([Fraction(0), Fraction(1, 10)]),
)
def test_stratified_sample_size_has_at_most_planned_risk_for_any_distribution_of_deviations(
    sizes: dict[str, int], tolerable: Fraction, expected: Fraction
) -> None:
    """The test tries all distributions of the deviating items over the strata."""
    plan, allocation = stratified_size(tolerable, Fraction(4, 5), expected, sizes)
    deviating = ceil(tolerable * allocation.population)
    for placed in _ways(sizes, deviating):
        assert _chances(allocation, placed, plan.acceptable) <= Fraction(1, 5)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.data())
def test_stratified_upper_limit_has_at_most_planned_risk_for_any_distribution_of_deviations(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    """If the deviation rate is above the limit, as few deviations as in the sample are improbable.

    Their probability is at most the planned risk, for any distribution over the strata.
    """
    n = data.draw(st.integers(1, sum(sizes.values())))
    allocation = allocate(n, sizes)
    k = data.draw(st.integers(0, min(2, allocation.total)))
    limit = Fraction(stratified_limit(allocation, k, Fraction(4, 5)).rate)
    for deviating in range(allocation.population + 1):
        if Fraction(deviating, allocation.population) > limit:
            for placed in _ways(sizes, deviating):
                assert _chances(allocation, placed, k) <= Fraction(1, 5)


def test_at_least_one_item_is_drawn_from_a_small_stratum() -> None:
    """Rounding to the nearest integer would draw no item from a stratum of 30 in 9,030."""
    sizes = {"a": 5000, "b": 3000, "c": 1000, "d": 30}
    plan, allocation = stratified_size(FIVE, NINETY_FIVE, Fraction(0), sizes)
    assert allocation.drawn == {"a": 33, "b": 20, "c": 7, "d": 1}
    assert plan.n == 61


def test_stratified_sample_of_small_population_is_whole_population() -> None:
    plan, allocation = stratified_size(FIVE, NINETY_FIVE, Fraction(0), {"a": 20, "b": 10})
    assert (plan.n, plan.method, plan.acceptable) == (30, CENSUS, 1)
    assert allocation.drawn == {"a": 20, "b": 10}


def test_stratified_stages_keep_planned_risk_and_refuse_strata_too_small_for_all_stages() -> None:
    """Each stratum must have enough items for all stages."""
    plan, allocation = stratified_stages(FIVE, NINETY_FIVE, 2, {"a": 5000, "b": 3000})
    assert plan.achieved_risk <= FIVE
    assert plan.n == allocation.total >= 61
    with pytest.raises(UsageError, match="too small for 2 stages"):
        stratified_stages(FIVE, NINETY_FIVE, 2, {"a": 5000, "b": 1})
