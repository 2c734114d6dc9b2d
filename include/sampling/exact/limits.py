"""How bad the population may be, given what a sample held: exact one-sided upper limits.

Without a known population the limit of Clopper and Pearson (1934): the rate at which so few
deviations would have had just the risk as their chance, the beta quantile (confidence; k + 1,
n - k). With a population of N, the largest number of deviating items at which they had more than
that, over N. One-sided: the whole risk is on the side of overlooking deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from include.policy.rates import between, ceiling
from include.sampling.exact.sizes import (
    BINOMIAL,
    CENSUS,
    HYPERGEOMETRIC,
    MOST,
    binomial,
    hypergeometric,
    no_more_than,
    smallest,
)
from include.services.errors import UsageError

PLACES = 12  # digits after the point of a limit, rounded up


@dataclass(frozen=True)
class Limit:
    """The upper limit of the rate of deviations.

    Attributes:
        rate: at most this, at the confidence asked for; rounded up at ``PLACES`` digits.
        rounded_up_pct: in per cent, rounded up to a tenth, as published tables print it.
        method: ``binomial``, ``hypergeometric`` or ``census``.
    """

    rate: Decimal
    rounded_up_pct: Decimal
    method: str


def upper_limit(
    n: int, deviations: int, confidence: Fraction, population: int | None = None
) -> Limit:
    """Return the one-sided upper limit.

    Args:
        n: items examined.
        deviations: how many of them deviate; what could not be examined counts as deviating.
        confidence: one minus the risk that the population is worse than the limit.
        population: how many items there are; None for very many.

    Raises:
        UsageError: figures that cannot be together.
    """
    risk = 1 - between(confidence, "confidence")
    if n < 0 or not 0 <= deviations <= n:
        raise UsageError(f"{deviations} deviations among {n} items cannot be.")
    if n > MOST and n != population:
        raise UsageError(f"Limits are calculated for samples of up to {MOST:,} items.")
    if population is None:
        return Limit(
            _binomial(n, deviations, risk, PLACES),
            (_binomial(n, deviations, risk, 3) * 100).quantize(Decimal("0.1")),
            BINOMIAL,
        )
    if population < 1:
        raise UsageError("The population is empty: it has no rate.")
    if n > population:
        raise UsageError(f"A sample of {n:,} cannot come from a population of {population:,}.")
    most = _most_deviating(n, deviations, risk, population)
    rate = Fraction(most, population)
    method = CENSUS if n == population else HYPERGEOMETRIC
    return Limit(ceiling(rate, PLACES), (ceiling(rate, 3) * 100).quantize(Decimal("0.1")), method)


def _binomial(n: int, deviations: int, risk: Fraction, places: int) -> Decimal:
    """The smallest decimal of so many places at which so few have at most the risk."""
    if deviations == n:
        return Decimal(1)
    whole = 10**places

    def excluded(scaled: int) -> bool:
        return no_more_than(binomial(Fraction(scaled, whole)), n, deviations, risk)

    found = smallest(lambda scaled: scaled == whole or excluded(scaled), 0, whole)
    return Decimal(found).scaleb(-places)


def _most_deviating(n: int, deviations: int, risk: Fraction, population: int) -> int:
    """The largest number of deviating items that is not excluded."""
    highest = population - (n - deviations)  # what was seen to conform conforms

    def excluded(deviating: int) -> bool:
        return no_more_than(hypergeometric(population, deviating), n, deviations, risk)

    if n == population or not excluded(highest):
        return highest
    return smallest(excluded, deviations, highest) - 1
