"""Sample sizes are the smallest that keep the risk, exactly."""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import ceil, comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.policy.rates import parse_rate
from include.sampling.exact.sizes import (
    CENSUS,
    MOST,
    at_most,
    binomial,
    hypergeometric,
    no_more_than,
    smallest_size,
)
from include.services.errors import UsageError
from tests.sampling.exact.published import rows

FIVE, NINETY_FIVE = Fraction(5, 100), Fraction(95, 100)


def _binomial(n: int, k: int, rate: Fraction) -> Fraction:
    return sum(
        (comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(min(k, n) + 1)), Fraction(0)
    )


def _hypergeometric(population: int, deviating: int, n: int, k: int) -> Fraction:
    found = sum(
        comb(deviating, i) * comb(population - deviating, n - i)
        for i in range(min(k, n) + 1)
        if n - i <= population - deviating
    )
    return Fraction(found, comb(population, n))


@pytest.mark.parametrize(
    "row", rows("aicpa_sample_sizes_5pct.csv"), ids=lambda row: "-".join(row.values())
)
def test_every_published_size_of_the_audit_guide(row: dict[str, str]) -> None:
    """AICPA Audit Sampling, appendix A, 5% risk: size and accepted deviations."""
    found = smallest_size(
        parse_rate(row["tolerable_rate_pct"] + "%"),
        1 - parse_rate(row["risk_of_overreliance_pct"] + "%"),
        expected=parse_rate(row["expected_rate_pct"] + "%"),
    )
    published = int(row["published_n"]), int(row["acceptable_deviations"])
    assert (found.n, found.acceptable) == published


PLANNED = [row for row in rows("cases.csv") if row["method"] == "planning"]


@pytest.mark.parametrize("row", PLANNED, ids=lambda row: "-".join(row.values()))
def test_every_published_size_of_jfa(row: dict[str, str]) -> None:
    """Binomial and hypergeometric, by expected rate and by accepted count."""
    expected = row["expected"].split()
    by_count = expected[1:] == ["(count)"]
    found = smallest_size(
        parse_rate(row["tolerable_rate"]),
        parse_rate(row["confidence"]),
        expected=None if by_count else parse_rate(expected[0]),
        acceptable=int(expected[0]) if by_count else None,
        population=int(row["N"]) if row["N"] else None,
    )
    assert found.n == int(row["value"])
    assert found.achieved_risk <= 1 - parse_rate(row["confidence"])


RATES = st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=60)


@settings(deadline=None)
@given(RATES, st.fractions(Fraction(1, 2), Fraction(49, 50), max_denominator=100), st.data())
def test_no_smaller_sample_would_do(
    tolerable: Fraction, confidence: Fraction, data: st.DataObject
) -> None:
    """Against the definition itself, tried item by item, for unknown and known populations."""
    expected = tolerable * data.draw(st.fractions(0, Fraction(3, 4), max_denominator=12))
    population = data.draw(st.none() | st.integers(1, 80))
    risk = 1 - confidence
    found = smallest_size(tolerable, confidence, expected=expected, population=population)
    for n in count(1) if population is None else range(1, population + 1):
        k = ceil(n * expected)
        if population is None:
            chance = _binomial(n, k, tolerable)
        else:
            chance = _hypergeometric(population, ceil(tolerable * population), n, k)
        if chance <= risk:
            assert (found.n, found.acceptable) == (n, k)
            return
    assert (found.n, found.method) == (population, CENSUS)


def test_a_tie_is_settled_in_whole_numbers() -> None:
    """19 of 20 items miss the one bad one with a chance of exactly 5%: that is at most 5%."""
    assert _hypergeometric(20, 1, 19, 0) == FIVE
    assert smallest_size(FIVE, NINETY_FIVE, population=20).n == 19
    assert no_more_than(hypergeometric(20, 1), 19, 0, FIVE)
    assert not no_more_than(hypergeometric(20, 1), 19, 0, FIVE - Fraction(1, 10**60))
    assert no_more_than(binomial(Fraction(1, 2)), 10, 0, Fraction(1, 1024))


def test_seven_per_cent_expects_seven_of_a_hundred() -> None:
    """With doubles it would be eight, and other sizes: the published one is met with seven."""
    found = smallest_size(Fraction(20, 100), NINETY_FIVE, expected=parse_rate("0.07"))
    assert found.acceptable == ceil(found.n * Fraction(7, 100))
    assert _binomial(100, 7, FIVE) < _binomial(100, 8, FIVE)


def test_rates_of_a_known_population_count_whole_items() -> None:
    """4.1% of 100 is 5 items that would be too many, not 4.1."""
    assert smallest_size(Fraction(41, 1000), NINETY_FIVE, population=100).n == (
        smallest_size(Fraction(5, 100), NINETY_FIVE, population=100).n
    )


@pytest.mark.parametrize("population", [1, 2, 10, 58])
def test_a_small_population_never_needs_more_than_all(population: int) -> None:
    """Where only all items will do, all are looked at."""
    found = smallest_size(FIVE, NINETY_FIVE, population=population)
    assert found.n <= population
    assert smallest_size(FIVE, NINETY_FIVE, population=1).method == CENSUS


def test_an_expectation_of_all_too_many_is_a_census() -> None:
    """Where expected and tolerable rate are the same number of items, a sample decides nothing."""
    found = smallest_size(Fraction(6, 100), NINETY_FIVE, expected=FIVE, population=10)
    assert (found.n, found.acceptable, found.method) == (10, 0, CENSUS)


@pytest.mark.parametrize(
    ("population", "milliseconds"), [(10**3, 50), (10**6, 50), (10**9, 50), (None, 50)]
)
def test_large_populations_give_the_size_of_very_large_ones(
    population: int | None, milliseconds: int
) -> None:
    """The hypergeometric size comes near the binomial one from below."""
    del milliseconds
    found = smallest_size(FIVE, NINETY_FIVE, expected=Fraction(1, 100), population=population)
    assert found.n <= 93
    if population is None or population > 10**5:
        assert found.n == 93


@pytest.mark.parametrize(
    ("tolerable", "expected", "confidence", "words"),
    [
        ("0", "0", "0.95", "tolerable rate is 0"),
        ("1", "0", "0.95", "tolerable rate is 1"),
        ("0.05", "0", "0", "confidence is 0"),
        ("0.05", "0", "1", "confidence is 1"),
        ("0.05", "0.05", "0.95", "not below the tolerable rate"),
        ("0.05", "0.2", "0.95", "not below the tolerable rate"),
    ],
)
def test_figures_that_no_sample_could_show_are_refused(
    tolerable: str, expected: str, confidence: str, words: str
) -> None:
    """Each with what is wrong with it."""
    with pytest.raises(UsageError, match=words):
        smallest_size(parse_rate(tolerable), parse_rate(confidence), expected=parse_rate(expected))


def test_an_empty_population_is_refused() -> None:
    """Of nothing, nothing can be drawn."""
    with pytest.raises(UsageError, match="empty"):
        smallest_size(FIVE, NINETY_FIVE, population=0)


def test_a_plan_that_nobody_could_carry_out_is_refused() -> None:
    """Instead of a search without end."""
    with pytest.raises(UsageError, match=f"{MOST:,}"):
        smallest_size(Fraction(1, 10**9), NINETY_FIVE)


def test_the_ceiling_holds_for_expected_rates_too() -> None:
    """A long stretch ends where nobody would go on."""
    for population in (None, 10**9):
        with pytest.raises(UsageError, match=f"{MOST:,}"):
            smallest_size(
                Fraction(1, 10**7),
                NINETY_FIVE,
                expected=Fraction(1, 10**9),
                population=population,
            )


def test_where_everything_deviates_fewer_are_impossible() -> None:
    """There is no ratio between chances of nothing."""
    model = binomial(Fraction(1))
    assert at_most(model, 5, 4) == 0
    assert at_most(model, 5, 5) == 1
    assert no_more_than(model, 5, 4, FIVE)
    assert not no_more_than(model, 5, 5, FIVE)


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_chances_are_those_of_the_definition(population: int, data: st.DataObject) -> None:
    """Also where nearly everything deviates or nearly everything is drawn."""
    deviating, n = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    k = data.draw(st.integers(0, n))
    exact = _hypergeometric(population, deviating, n, k)
    assert at_most(hypergeometric(population, deviating), n, k) == exact
    rate = Fraction(deviating, population)
    assert at_most(binomial(rate), n, k) == _binomial(n, k, rate)


@settings(deadline=None)
@given(
    st.integers(2, 60),
    st.sampled_from([None, 150, 400, 3000]),
    st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=40),
)
def test_stretches_and_steps_find_the_size_of_the_definition(
    percent: int, population: int | None, share: Fraction
) -> None:
    """The first n of all whose own accepted number has at most the risk, with larger sizes."""
    tolerable = Fraction(percent, 100)
    expected = tolerable * share * Fraction(4, 5)
    found = smallest_size(tolerable, NINETY_FIVE, expected=expected, population=population)
    if population is None:
        items = binomial(tolerable)
    else:
        items = hypergeometric(population, ceil(tolerable * population))
    if found.method == CENSUS:
        return
    assert no_more_than(items, found.n, ceil(found.n * expected), FIVE)
    for n in range(1, min(found.n, 300)):
        assert not no_more_than(items, n, ceil(n * expected), FIVE)
