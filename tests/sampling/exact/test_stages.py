"""Tests of staged plans.

Stages are planned together, because unplanned stages have a higher risk.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling.exact.sizes import at_most, binomial, hypergeometric, smallest_size
from include.sampling.exact.strata import chance_of_accepting, smallest_stages
from include.services.errors import UsageError

FIVE, NINETY_FIVE = Fraction(5, 100), Fraction(95, 100)


@settings(deadline=None)
@given(st.fractions(Fraction(1, 20), Fraction(1, 2), max_denominator=40))
def test_size_of_each_of_two_stages_is_the_first_size_whose_risk_is_within_planned_risk(
    tolerable: Fraction,
) -> None:
    """The size is the first n with b(0) + b(1) * b(0) <= risk.

    b(k) is the probability of k deviations in a stage.
    """
    for n in count(1):
        no_deviation = (1 - tolerable) ** n
        single = n * tolerable * (1 - tolerable) ** (n - 1)
        if no_deviation + single * no_deviation <= FIVE:
            assert smallest_stages(tolerable, NINETY_FIVE, 2).n == n
            return


def _accepting(population: int, deviating: int, n: int, stages: int) -> Fraction:
    """Return the probability of acceptance by enumerating the deviations of each stage."""
    if stages == 0:
        return Fraction(0)
    items = hypergeometric(population, deviating)
    no_deviation = at_most(items, n, 0)
    single = at_most(items, n, 1) - no_deviation
    if not single:
        return no_deviation
    rest = _accepting(population - n, max(deviating - 1, 0), n, stages - 1)
    return no_deviation + single * rest


@settings(deadline=None)
@given(st.integers(8, 60), st.integers(2, 3), st.data())
def test_chance_of_accepting_population_equals_exact_enumeration_and_falls_with_sample_size(
    population: int, stages: int, data: st.DataObject
) -> None:
    deviating = data.draw(st.integers(1, population // 2))
    n = data.draw(st.integers(1, population // stages))
    exact = _accepting(population, deviating, n, stages)
    assert chance_of_accepting(hypergeometric(population, deviating), n, stages) == exact
    if n > 1:
        assert exact <= _accepting(population, deviating, n - 1, stages)


def test_two_planned_stages_need_61_items_each_and_a_single_stage_needs_59() -> None:
    """Two stages need 61 items each; a single stage needs 59 items."""
    assert smallest_size(FIVE, NINETY_FIVE).n == 59
    assert smallest_stages(FIVE, NINETY_FIVE, 2).n == 61
    assert smallest_stages(FIVE, NINETY_FIVE, 2, 300).n == 55


def unplanned_risk(tolerable: Fraction, n: int, extensions: int) -> Fraction:
    """Return the risk of a stage of n items that is extended by n items after each deviation.

    Args:
        tolerable: deviation rate of the population.
        n: number of items in each stage.
        extensions: number of further stages, which the plan does not contain.
    """
    no_deviation = (1 - tolerable) ** n
    single = n * tolerable * (1 - tolerable) ** (n - 1)
    risk = no_deviation
    for _turn in range(extensions):
        risk = no_deviation + single * risk
    return risk


def test_risk_exceeds_planned_5_percent_if_second_stage_is_added_without_plan() -> None:
    """If one of 59 items deviates and 59 more items are drawn, the risk is 5.6% instead of 5%."""
    stated = unplanned_risk(FIVE, 59, 0)
    assert stated <= FIVE < unplanned_risk(FIVE, 59, 1)
    assert chance_of_accepting(binomial(FIVE), 59, 2) == unplanned_risk(FIVE, 59, 1)


@pytest.mark.parametrize("stages", [0, 1, 5])
def test_smallest_stages_raises_usage_error_if_number_of_stages_is_0_1_or_5(stages: int) -> None:
    """A staged plan has at least two stages."""
    with pytest.raises(UsageError, match="stages"):
        smallest_stages(FIVE, NINETY_FIVE, stages)


@pytest.mark.parametrize("population", [1, 3, 19])
def test_smallest_stages_raises_usage_error_if_population_is_too_small_for_two_stages(
    population: int,
) -> None:
    """The corrective action in the error suggests a single stage."""
    with pytest.raises(UsageError, match="single stage"):
        smallest_stages(FIVE, NINETY_FIVE, 2, population)
