"""Upper limits are one-sided, exact, and rounded up."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.policy.rates import parse_rate
from include.sampling.exact.sizes import MOST, PLACES, binomial, no_more_than, upper_limit
from include.services.errors import UsageError
from tests.sampling.exact.published import rows

NINETY_FIVE = Fraction(95, 100)


@pytest.mark.parametrize(
    "row", rows("aicpa_upper_limits_5pct.csv"), ids=lambda row: "-".join(row.values())
)
def test_every_published_limit_of_the_audit_guide(row: dict[str, str]) -> None:
    """AICPA Audit Sampling, appendix A, 5% risk, as printed: rounded up to a tenth."""
    confidence = 1 - parse_rate(row["risk_of_overreliance_pct"] + "%")
    found = upper_limit(int(row["sample_size"]), int(row["deviations"]), confidence)
    assert found.rounded_up_pct == Decimal(row["published_upper_limit_pct"])


JUDGED = [row for row in rows("cases.csv") if row["method"] != "planning"]


@pytest.mark.parametrize("row", JUDGED, ids=lambda row: "-".join(row.values()))
def test_every_published_limit_of_jfa(row: dict[str, str]) -> None:
    """Binomial and hypergeometric, to ten digits."""
    population = int(row["N"]) if row["N"] else None
    found = upper_limit(int(row["n"]), int(row["k"]), parse_rate(row["confidence"]), population)
    assert abs(found.rate - Decimal(row["value"])) < Decimal("6e-11")
    assert found.method == row["distribution"]


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_limit_is_the_first_rate_that_is_excluded(n: int, data: st.DataObject) -> None:
    """One digit less would still have had more than the risk."""
    k = data.draw(st.integers(0, n))
    confidence = data.draw(st.fractions(Fraction(1, 2), Fraction(99, 100), max_denominator=200))
    rate = Fraction(upper_limit(n, k, confidence).rate)
    if k == n:
        assert rate == 1
        return
    assert no_more_than(binomial(rate), n, k, 1 - confidence) or rate == 1
    assert not no_more_than(binomial(rate - Fraction(1, 10**PLACES)), n, k, 1 - confidence)


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_limit_of_a_known_population_by_its_definition(
    population: int, data: st.DataObject
) -> None:
    """The largest number of deviating items under which so few are likelier than the risk."""
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
    found = upper_limit(n, k, 1 - risk, population)
    assert 0 <= Fraction(found.rate) - Fraction(largest, population) < Fraction(1, 10**PLACES)


def test_the_limit_is_one_sided() -> None:
    """Half of the risk on each side (the usual confidence interval) would give 6.1%, not 4.9%."""
    assert upper_limit(59, 0, NINETY_FIVE).rounded_up_pct == Decimal("5.0")
    assert upper_limit(59, 0, Fraction(975, 1000)).rounded_up_pct == Decimal("6.1")


def test_a_limit_is_rounded_up_not_to_the_nearest() -> None:
    """20 items without a deviation: 13.911%, printed as 14.0."""
    found = upper_limit(20, 0, NINETY_FIVE)
    assert str(found.rate).startswith("0.1391")
    assert found.rounded_up_pct == Decimal("14.0")


def test_an_even_limit_is_not_rounded_away() -> None:
    """Of 2 items none at 75%: the limit is exactly 50%."""
    found = upper_limit(2, 0, Fraction(3, 4))
    assert (found.rate, found.rounded_up_pct) == (Decimal("0.5"), Decimal("50.0"))


@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 1), (7, 7)])
def test_what_shows_nothing_excludes_nothing(n: int, k: int) -> None:
    """No items, or nothing but deviations."""
    assert upper_limit(n, k, NINETY_FIVE).rate == 1


def test_a_census_knows_the_rate() -> None:
    """All items were looked at: no more deviate than were seen."""
    found = upper_limit(40, 3, NINETY_FIVE, 40)
    assert (found.rate, found.method) == (Decimal("0.075"), "census")


@pytest.mark.parametrize(
    ("n", "k", "population"), [(5, 6, None), (5, -1, None), (6, 0, 5), (0, 0, 0)]
)
def test_figures_that_cannot_be_together_are_refused(
    n: int, k: int, population: int | None
) -> None:
    """Instead of a limit of nothing."""
    with pytest.raises(UsageError):
        upper_limit(n, k, NINETY_FIVE, population)


def test_a_limit_of_more_items_than_anybody_examines_is_refused() -> None:
    """Unless they are all items."""
    with pytest.raises(UsageError, match=f"{MOST:,}"):
        upper_limit(MOST + 1, 3, NINETY_FIVE)
    assert upper_limit(2 * MOST, MOST, NINETY_FIVE, 2 * MOST).rate == Decimal("0.5")
