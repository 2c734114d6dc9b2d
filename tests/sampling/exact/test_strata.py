"""Strata give at least their share; the risk is at most the stated one wherever deviations lie."""

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
def test_no_stratum_is_sampled_more_thinly_than_the_whole(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    """And none gives more than a single item above its share."""
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
        one
        for one in product(*(range(size + 1) for size in sizes.values()))
        if sum(one) == deviating
    ]


def _chances(allocation: Allocation, placed: tuple[int, ...], most: int) -> Fraction:
    """P(at most so many deviations), by going through every outcome."""
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
def test_the_risk_holds_wherever_the_deviations_lie(
    sizes: dict[str, int], tolerable: Fraction, expected: Fraction
) -> None:
    """Every way of spreading the tolerable number of deviations over the strata is tried."""
    plan, allocation = stratified_size(tolerable, Fraction(4, 5), expected, sizes)
    deviating = ceil(tolerable * allocation.population)
    for placed in _ways(sizes, deviating):
        assert _chances(allocation, placed, plan.acceptable) <= Fraction(1, 5)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.data())
def test_the_limit_covers_wherever_the_deviations_lie(
    sizes: dict[str, int], data: st.DataObject
) -> None:
    """Populations that are worse than the limit would have shown more, but for the risk."""
    n = data.draw(st.integers(1, sum(sizes.values())))
    allocation = allocate(n, sizes)
    k = data.draw(st.integers(0, min(2, allocation.total)))
    limit = Fraction(stratified_limit(allocation, k, Fraction(4, 5)).rate)
    for deviating in range(allocation.population + 1):
        if Fraction(deviating, allocation.population) > limit:
            for placed in _ways(sizes, deviating):
                assert _chances(allocation, placed, k) <= Fraction(1, 5)


def test_a_tiny_department_still_gives_an_item() -> None:
    """Rounding to the nearest would let 30 of 9,030 never be looked at."""
    sizes = {"a": 5000, "b": 3000, "c": 1000, "d": 30}
    plan, allocation = stratified_size(FIVE, NINETY_FIVE, Fraction(0), sizes)
    assert allocation.drawn == {"a": 33, "b": 20, "c": 7, "d": 1}
    assert plan.n == 61


def test_small_strata_are_looked_at_whole() -> None:
    """A sample as large as the population is a census."""
    plan, allocation = stratified_size(FIVE, NINETY_FIVE, Fraction(0), {"a": 20, "b": 10})
    assert (plan.n, plan.method, plan.acceptable) == (30, CENSUS, 1)
    assert allocation.drawn == {"a": 20, "b": 10}


def test_stages_over_strata_keep_the_risk_and_room_for_both() -> None:
    """A stratum has to hold all stages."""
    plan, allocation = stratified_stages(FIVE, NINETY_FIVE, 2, {"a": 5000, "b": 3000})
    assert plan.achieved_risk <= FIVE
    assert plan.n == allocation.total >= 61
    with pytest.raises(UsageError, match="too small for 2 stages"):
        stratified_stages(FIVE, NINETY_FIVE, 2, {"a": 5000, "b": 1})
