"""Tests of sample sizes: the smallest sizes within the risk, computed exactly."""

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
    MAX_SAMPLE_SIZE,
    at_most,
    binomial,
    hypergeometric,
    is_within_risk,
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
    favourable = sum(
        comb(deviating, i) * comb(population - deviating, n - i)
        for i in range(min(k, n) + 1)
        if n - i <= population - deviating
    )
    return Fraction(favourable, comb(population, n))


@pytest.mark.parametrize(
    "row", rows("aicpa_sample_sizes_5pct.csv"), ids=lambda row: "-".join(row.values())
)
def test_sample_sizes_match_aicpa_audit_guide(row: dict[str, str]) -> None:
    """Sizes and acceptable deviations are those of AICPA *Audit Sampling*, appendix A, 5% risk."""
    size = smallest_size(
        parse_rate(row["tolerable_rate_pct"] + "%"),
        1 - parse_rate(row["risk_of_overreliance_pct"] + "%"),
        expected=parse_rate(row["expected_rate_pct"] + "%"),
    )
    published = int(row["published_n"]), int(row["acceptable_deviations"])
    assert (size.n, size.acceptable) == published


PLANNED = [row for row in rows("cases.csv") if row["method"] == "planning"]


@pytest.mark.parametrize("row", PLANNED, ids=lambda row: "-".join(row.values()))
def test_sample_sizes_match_r_package_jfa(row: dict[str, str]) -> None:
    """Sizes of the R package jfa for an expected rate or an acceptable number of deviations."""
    expected = row["expected"].split()
    by_count = expected[1:] == ["(count)"]
    size = smallest_size(
        parse_rate(row["tolerable_rate"]),
        parse_rate(row["confidence"]),
        expected=None if by_count else parse_rate(expected[0]),
        acceptable=int(expected[0]) if by_count else None,
        population=int(row["N"]) if row["N"] else None,
    )
    assert size.n == int(row["value"])
    assert size.achieved_risk <= 1 - parse_rate(row["confidence"])


RATES = st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=60)


@settings(deadline=None)
@given(RATES, st.fractions(Fraction(1, 2), Fraction(49, 50), max_denominator=100), st.data())
def test_smallest_size_is_the_first_sample_size_whose_exact_risk_is_within_planned_risk(
    tolerable: Fraction, confidence: Fraction, data: st.DataObject
) -> None:
    """The test tries one size after the other, for unknown and known population sizes."""
    expected = tolerable * data.draw(st.fractions(0, Fraction(3, 4), max_denominator=12))
    population = data.draw(st.none() | st.integers(1, 80))
    risk = 1 - confidence
    size = smallest_size(tolerable, confidence, expected=expected, population=population)
    for n in count(1) if population is None else range(1, population + 1):
        k = ceil(n * expected)
        if population is None:
            chance = _binomial(n, k, tolerable)
        else:
            chance = _hypergeometric(population, ceil(tolerable * population), n, k)
        if chance <= risk:
            assert (size.n, size.acceptable) == (n, k)
            return
    assert (size.n, size.method) == (population, CENSUS)


def test_sample_size_whose_risk_equals_planned_risk_is_accepted() -> None:
    """A sample of 19 of 20 items misses the only deviating item with exactly 5% probability."""
    assert _hypergeometric(20, 1, 19, 0) == FIVE
    assert smallest_size(FIVE, NINETY_FIVE, population=20).n == 19
    assert is_within_risk(hypergeometric(20, 1), 19, 0, FIVE)
    assert not is_within_risk(hypergeometric(20, 1), 19, 0, FIVE - Fraction(1, 10**60))
    assert is_within_risk(binomial(Fraction(1, 2)), 10, 0, Fraction(1, 1024))


def test_acceptable_deviations_are_computed_from_expected_rate_without_float_rounding() -> None:
    """With floats, 7% of 100 would be rounded up to eight deviations."""
    size = smallest_size(Fraction(20, 100), NINETY_FIVE, expected=parse_rate("0.07"))
    assert size.acceptable == ceil(size.n * Fraction(7, 100))
    assert _binomial(100, 7, FIVE) < _binomial(100, 8, FIVE)


def test_tolerable_rate_of_known_population_is_rounded_up_to_whole_items() -> None:
    """A tolerable rate of 4.1% of 100 items means that 5 deviating items are too many."""
    assert smallest_size(Fraction(41, 1000), NINETY_FIVE, population=100).n == (
        smallest_size(Fraction(5, 100), NINETY_FIVE, population=100).n
    )


@pytest.mark.parametrize("population", [1, 2, 10, 58])
def test_sample_size_never_exceeds_population(population: int) -> None:
    """If no sample is large enough, the plan is a census."""
    size = smallest_size(FIVE, NINETY_FIVE, population=population)
    assert size.n <= population
    assert smallest_size(FIVE, NINETY_FIVE, population=1).method == CENSUS


def test_smallest_sample_is_whole_population_if_expected_rate_is_close_to_tolerable_rate() -> None:
    """If both rates are the same number of items, no sample can decide between them."""
    size = smallest_size(Fraction(6, 100), NINETY_FIVE, expected=FIVE, population=10)
    assert (size.n, size.acceptable, size.method) == (10, 0, CENSUS)


@pytest.mark.parametrize(
    ("population", "milliseconds"), [(10**3, 50), (10**6, 50), (10**9, 50), (None, 50)]
)
def test_sample_size_for_very_large_population_equals_size_for_unknown_population(
    population: int | None, milliseconds: int
) -> None:
    """The hypergeometric size approaches the binomial size from below."""
    del milliseconds
    size = smallest_size(FIVE, NINETY_FIVE, expected=Fraction(1, 100), population=population)
    assert size.n <= 93
    if population is None or population > 10**5:
        assert size.n == 93


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
def test_smallest_size_raises_usage_error_if_a_rate_or_the_confidence_is_impossible(
    tolerable: str, expected: str, confidence: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        smallest_size(parse_rate(tolerable), parse_rate(confidence), expected=parse_rate(expected))


def test_smallest_size_raises_usage_error_if_population_is_empty() -> None:
    with pytest.raises(UsageError, match="empty"):
        smallest_size(FIVE, NINETY_FIVE, population=0)


def test_smallest_size_raises_usage_error_if_tolerable_rate_needs_more_than_maximum_size() -> None:
    """The search for a size ends at the maximum size of a sample."""
    with pytest.raises(UsageError, match=f"{MAX_SAMPLE_SIZE:,}"):
        smallest_size(Fraction(1, 10**9), NINETY_FIVE)


def test_smallest_size_raises_usage_error_if_expected_rate_needs_more_than_maximum_size() -> None:
    """The search with an expected rate ends at the same maximum size."""
    for population in (None, 10**9):
        with pytest.raises(UsageError, match=f"{MAX_SAMPLE_SIZE:,}"):
            smallest_size(
                Fraction(1, 10**7),
                NINETY_FIVE,
                expected=Fraction(1, 10**9),
                population=population,
            )


def test_probability_of_fewer_deviations_is_zero_if_all_items_deviate() -> None:
    model = binomial(Fraction(1))
    assert at_most(model, 5, 4) == 0
    assert at_most(model, 5, 5) == 1
    assert is_within_risk(model, 5, 4, FIVE)
    assert not is_within_risk(model, 5, 5, FIVE)


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_probability_of_at_most_k_deviations_equals_exact_binomial_and_hypergeometric_sums(
    population: int, data: st.DataObject
) -> None:
    """In some cases, nearly all items deviate or nearly all items are drawn."""
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
def test_search_returns_smallest_sufficient_sample_size_although_it_skips_ranges_of_sizes(
    percent: int, population: int | None, share: Fraction
) -> None:
    """The search skips whole ranges of sizes, and still finds the first sufficient size."""
    tolerable = Fraction(percent, 100)
    expected = tolerable * share * Fraction(4, 5)
    size = smallest_size(tolerable, NINETY_FIVE, expected=expected, population=population)
    if population is None:
        items = binomial(tolerable)
    else:
        items = hypergeometric(population, ceil(tolerable * population))
    if size.method == CENSUS:
        return
    assert is_within_risk(items, size.n, ceil(size.n * expected), FIVE)
    for n in range(1, min(size.n, 300)):
        assert not is_within_risk(items, n, ceil(n * expected), FIVE)
