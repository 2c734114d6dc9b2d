"""Stages are sized together; going on without a plan costs more than is said."""

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
def test_two_stages_are_the_smallest_by_their_definition(tolerable: Fraction) -> None:
    """The first n with b(0) + b(1) b(0) <= risk, tried one by one."""
    for n in count(1):
        none = (1 - tolerable) ** n
        one = n * tolerable * (1 - tolerable) ** (n - 1)
        if none + one * none <= FIVE:
            assert smallest_stages(tolerable, NINETY_FIVE, 2).n == n
            return


def _accepting(population: int, deviating: int, n: int, stages: int) -> Fraction:
    """The chance by going through every number of deviations of each stage."""
    if stages == 0:
        return Fraction(0)
    items = hypergeometric(population, deviating)
    none = at_most(items, n, 0)
    one = at_most(items, n, 1) - none
    if not one:
        return none
    rest = _accepting(population - n, max(deviating - 1, 0), n, stages - 1)
    return none + one * rest


@settings(deadline=None)
@given(st.integers(8, 60), st.integers(2, 3), st.data())
def test_a_known_population_has_fewer_deviations_left_in_the_second_stage(
    population: int, stages: int, data: st.DataObject
) -> None:
    """The chance is the exact one, and it falls as stages grow."""
    deviating = data.draw(st.integers(1, population // 2))
    n = data.draw(st.integers(1, population // stages))
    exact = _accepting(population, deviating, n, stages)
    assert chance_of_accepting(hypergeometric(population, deviating), n, stages) == exact
    if n > 1:
        assert exact <= _accepting(population, deviating, n - 1, stages)


def test_two_planned_stages_are_larger_than_one() -> None:
    """61 twice at most, where a single stage takes 59: the price of a second chance."""
    assert smallest_size(FIVE, NINETY_FIVE).n == 59
    assert smallest_stages(FIVE, NINETY_FIVE, 2).n == 61
    assert smallest_stages(FIVE, NINETY_FIVE, 2, 300).n == 55


def unplanned_risk(tolerable: Fraction, n: int, extensions: int) -> Fraction:
    """Return the risk of drawing n more items after one deviation, without a plan."""
    none = (1 - tolerable) ** n
    one = n * tolerable * (1 - tolerable) ** (n - 1)
    risk = none
    for _turn in range(extensions):
        risk = none + one * risk
    return risk


def test_going_on_without_a_plan_has_a_higher_risk_than_stated() -> None:
    """59 items, one deviation, 'let us look at 59 more': 5.6% and not 5%; why it is refused."""
    stated = unplanned_risk(FIVE, 59, 0)
    assert stated <= FIVE < unplanned_risk(FIVE, 59, 1)
    assert chance_of_accepting(binomial(FIVE), 59, 2) == unplanned_risk(FIVE, 59, 1)


@pytest.mark.parametrize("stages", [0, 1, 5])
def test_other_numbers_of_stages_are_refused(stages: int) -> None:
    """One stage is no staged plan."""
    with pytest.raises(UsageError, match="stages"):
        smallest_stages(FIVE, NINETY_FIVE, stages)


@pytest.mark.parametrize("population", [1, 3, 19])
def test_a_population_too_small_for_its_stages_is_refused(population: int) -> None:
    """With the way out."""
    with pytest.raises(UsageError, match="single stage"):
        smallest_stages(FIVE, NINETY_FIVE, 2, population)
