"""Tests of upper limits, which are one-sided, exact, and rounded up."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.policy.rates import parse_rate
from include.sampling.exact.sizes import (
    MAX_SAMPLE_SIZE,
    PLACES,
    binomial,
    is_within_risk,
    upper_limit,
)
from include.services.errors import UsageError
from tests.sampling.exact.published import rows

NINETY_FIVE = Fraction(95, 100)


@pytest.mark.parametrize(
    "row", rows("aicpa_upper_limits_5pct.csv"), ids=lambda row: "-".join(row.values())
)
def test_upper_limits_match_aicpa_audit_guide(row: dict[str, str]) -> None:
    """The cases are AICPA *Audit Sampling*, appendix A, 5% risk.

    The guide rounds its limits up to a tenth.
    """
    confidence = 1 - parse_rate(row["risk_of_overreliance_pct"] + "%")
    limit = upper_limit(int(row["sample_size"]), int(row["deviations"]), confidence)
    assert limit.rounded_up_pct == Decimal(row["published_upper_limit_pct"])


JUDGED = [row for row in rows("cases.csv") if row["method"] != "planning"]


@pytest.mark.parametrize("row", JUDGED, ids=lambda row: "-".join(row.values()))
def test_upper_limits_match_r_package_jfa(row: dict[str, str]) -> None:
    """Binomial and hypergeometric limits match those of the R package jfa in ten digits."""
    population = int(row["N"]) if row["N"] else None
    limit = upper_limit(int(row["n"]), int(row["k"]), parse_rate(row["confidence"]), population)
    assert abs(limit.rate - Decimal(row["value"])) < Decimal("6e-11")
    assert limit.method == row["distribution"]


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_upper_limit_is_lowest_deviation_rate_that_the_sample_result_excludes(
    n: int, data: st.DataObject
) -> None:
    """At the upper limit, as few deviations as in the sample have at most the probability
    ``risk``.

    At the next lower rate, their probability is above ``risk``.
    """
    k = data.draw(st.integers(0, n))
    confidence = data.draw(st.fractions(Fraction(1, 2), Fraction(99, 100), max_denominator=200))
    rate = Fraction(upper_limit(n, k, confidence).rate)
    if k == n:
        assert rate == 1
        return
    assert is_within_risk(binomial(rate), n, k, 1 - confidence) or rate == 1
    assert not is_within_risk(binomial(rate - Fraction(1, 10**PLACES)), n, k, 1 - confidence)


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_upper_limit_for_known_population_size_equals_exact_hypergeometric_limit(
    population: int, data: st.DataObject
) -> None:
    """The limit is the largest number of deviating items that the sample does not exclude."""
    n = data.draw(st.integers(0, population))
    k = data.draw(st.integers(0, n))
    risk = data.draw(st.fractions(Fraction(1, 100), Fraction(1, 2), max_denominator=200))
    largest = max(
        deviating
        for deviating in range(k, population - n + k + 1)
        if sum(
            comb(deviating, i) * comb(population - deviating, n - i)
            for i in range(k + 1)
            if n - i <= population - deviating
        )
        > risk * comb(population, n)
    )
    limit = upper_limit(n, k, 1 - risk, population)
    assert 0 <= Fraction(limit.rate) - Fraction(largest, population) < Fraction(1, 10**PLACES)


def test_upper_limit_at_95_percent_confidence_is_5_percent_for_59_items_without_deviation() -> None:
    """A two-sided interval, with half of the risk on each side, would give 6.1% instead of 5.0%."""
    assert upper_limit(59, 0, NINETY_FIVE).rounded_up_pct == Decimal("5.0")
    assert upper_limit(59, 0, Fraction(975, 1000)).rounded_up_pct == Decimal("6.1")


def test_upper_limit_of_13_91_percent_is_rounded_up_to_14_0_percent() -> None:
    """For 20 items without a deviation, the limit is 13.911%, and tables print 14.0."""
    limit = upper_limit(20, 0, NINETY_FIVE)
    assert str(limit.rate).startswith("0.1391")
    assert limit.rounded_up_pct == Decimal("14.0")


def test_upper_limit_that_is_exactly_50_percent_is_not_rounded_up() -> None:
    """For 2 items without a deviation at 75% confidence, the limit is exactly 50%."""
    limit = upper_limit(2, 0, Fraction(3, 4))
    assert (limit.rate, limit.rounded_up_pct) == (Decimal("0.5"), Decimal("50.0"))


@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 1), (7, 7)])
def test_upper_limit_is_100_percent_if_all_examined_items_deviate_or_none_was_examined(
    n: int, k: int
) -> None:
    """No item was examined, or all examined items deviate."""
    assert upper_limit(n, k, NINETY_FIVE).rate == 1


def test_upper_limit_is_observed_rate_if_sample_is_whole_population() -> None:
    limit = upper_limit(40, 3, NINETY_FIVE, 40)
    assert (limit.rate, limit.method) == (Decimal("0.075"), "census")


@pytest.mark.parametrize(
    ("n", "k", "population"), [(5, 6, None), (5, -1, None), (6, 0, 5), (0, 0, 0)]
)
def test_upper_limit_raises_usage_error_if_numbers_of_items_and_deviations_are_impossible(
    n: int, k: int, population: int | None
) -> None:
    with pytest.raises(UsageError):
        upper_limit(n, k, NINETY_FIVE, population)


def test_upper_limit_raises_usage_error_if_partial_sample_exceeds_maximum_size() -> None:
    """A census may have more items than the maximum, because its limit is the observed rate."""
    with pytest.raises(UsageError, match=f"{MAX_SAMPLE_SIZE:,}"):
        upper_limit(MAX_SAMPLE_SIZE + 1, 3, NINETY_FIVE)
    assert upper_limit(
        2 * MAX_SAMPLE_SIZE, MAX_SAMPLE_SIZE, NINETY_FIVE, 2 * MAX_SAMPLE_SIZE
    ).rate == Decimal("0.5")
