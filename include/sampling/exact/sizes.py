"""Exact sample sizes, and exact one-sided upper limits of the rate of deviations.

A chance is a number of sequences in which items may be drawn, of all such sequences.

Formulas: AICPA Audit Guide *Audit Sampling*, appendix A (attribute sampling, one-sided). Without a
known population, the smallest n with P(Bin(n, tolerable) <= ceil(n * expected)) <= risk; with a
population of N, ``ceil(tolerable * N)`` of which would be too many, the same of the hypergeometric
distribution. The risk is that of accepting a population that deviates at the tolerable rate.

Without a known population the limit of Clopper and Pearson (1934): the rate at which so few
deviations would have had just the risk as their chance, the beta quantile (confidence; k + 1,
n - k). With a population of N, the largest number of deviating items at which they had more than
that, over N. One-sided: the whole risk is on the side of overlooking deviations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from math import ceil, comb, perm

from include.policy.rates import HOW, between, ceiling, percent
from include.services.errors import UsageError


@dataclass(frozen=True)
class Population:
    """Items from which a sample is drawn.

    Attributes:
        deviating: how many of them deviate.
        conforming: how many do not.
        replaced: whether each drawn item is put back, so that drawing changes nothing.
    """

    deviating: int
    conforming: int
    replaced: bool

    @property
    def items(self) -> int:
        """All items."""
        return self.deviating + self.conforming

    @property
    def largest(self) -> int | None:
        """The largest sample; None if there is no largest one."""
        return None if self.replaced else self.items

    def sequences(self, n: int) -> int:
        """Return in how many ways ``n`` items may be drawn, one after the other."""
        return self._drawn(self.items, n)

    def exactly(self, n: int, k: int) -> int:
        """Return in how many of these ways exactly ``k`` items deviate."""
        if k > n:
            return 0
        return comb(n, k) * self._drawn(self.deviating, k) * self._drawn(self.conforming, n - k)

    def at_most(self, n: int, k: int) -> int:
        """Return in how many of these ways at most ``k`` items deviate."""
        k = min(k, n)
        deviating = total = 1
        for i in range(k):  # Horner's rule; the first n - k conforming items come last
            deviating = deviating * (n - i) * self.left(self.deviating, i) // (i + 1)
            total = total * self.left(self.conforming, n - i - 1) + deviating
        return total * self._drawn(self.conforming, n - k)

    def left(self, items: int, drawn: int) -> int:
        """Return how many of some items are left after so many of them were drawn."""
        return items if self.replaced else items - drawn

    def _drawn(self, items: int, n: int) -> int:
        return items**n if self.replaced else perm(items, n)


def binomial(rate: Fraction) -> Population:
    """Return a population so large that drawing does not change it.

    Args:
        rate: of deviations, from 0 to 1.
    """
    return Population(rate.numerator, rate.denominator - rate.numerator, replaced=True)


def hypergeometric(items: int, deviating: int) -> Population:
    """Return a population of known size, drawn without replacement."""
    return Population(deviating, items - deviating, replaced=False)


def at_most(population: Population, n: int, k: int) -> Fraction:
    """Return the chance of at most ``k`` deviations in ``n`` items."""
    return Fraction(population.at_most(n, k), population.sequences(n))


def no_more_than(population: Population, n: int, k: int, risk: Fraction) -> bool:
    """Decide whether the chance of at most ``k`` deviations in ``n`` items is at most the risk."""
    chance = population.at_most(n, k) * risk.denominator
    return chance <= risk.numerator * population.sequences(n)


MOST = 50_000  # items; nobody tests as many by hand
BINOMIAL, HYPERGEOMETRIC, CENSUS = "binomial", "hypergeometric", "census"


@dataclass(frozen=True)
class Size:
    """A sample to be drawn in one stage.

    Attributes:
        n: items to draw.
        acceptable: with no more deviations than these the population is accepted.
        method: ``binomial``, ``hypergeometric``, or ``census`` where only all items will do.
        achieved_risk: of accepting at the tolerable rate; at most the planned.
    """

    n: int
    acceptable: int
    method: str
    achieved_risk: Fraction


def smallest_size(
    tolerable: Fraction,
    confidence: Fraction,
    *,
    expected: Fraction | None = None,
    acceptable: int | None = None,
    population: int | None = None,
) -> Size:
    """Plan a sample of one stage.

    Args:
        tolerable: rate of deviations from which on the population is not accepted.
        confidence: one minus the risk of accepting it then.
        expected: rate of deviations that is expected; decides how many are accepted. None: none.
        acceptable: how many deviations are accepted, where that is said outright.
        population: how many items there are; None for very many.

    Raises:
        UsageError: a rate is out of range, or no sample can show it.
    """
    between(tolerable, "tolerable rate")
    risk = 1 - between(confidence, "confidence")
    expected = Fraction(0) if expected is None else expected
    if expected >= tolerable:
        raise UsageError(
            f"The expected rate {percent(expected)} is not below the tolerable rate "
            f"{percent(tolerable)}: no sample could accept it.",
            f"Expect fewer deviations or tolerate more. {HOW}",
        )
    if acceptable is not None and acceptable < 0:
        raise UsageError(f"{acceptable} deviations cannot be accepted: there are none below 0.")
    if population is None:
        return _found(binomial(tolerable), risk, expected, acceptable, BINOMIAL)
    if population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    too_many = ceil(tolerable * population)
    census = Size(population, too_many - 1, CENSUS, Fraction(0))
    if acceptable is not None and acceptable >= too_many:
        return census
    items = hypergeometric(population, too_many)
    try:
        found = _found(items, risk, expected, acceptable, HYPERGEOMETRIC)
    except UsageError:
        if population > MOST:
            raise
        return census  # only looking at all of them tells too few from too many
    return Size(found.n, found.acceptable, CENSUS, Fraction(0)) if found.n == population else found


def _found(
    population: Population, risk: Fraction, expected: Fraction, acceptable: int | None, method: str
) -> Size:
    if acceptable is None and expected:
        n, k = _by_rate(population, expected, risk)
    else:
        k = acceptable or 0
        n = doubled(lambda size: no_more_than(population, size, k, risk), k, population.largest)
    return Size(n, k, method, at_most(population, n, k))


def smallest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest number above ``low`` for which something holds, as it does for ``high``.

    What holds for a number has to hold for every greater one.
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def doubled(holds: Callable[[int], bool], low: int, largest: int | None) -> int:
    """Return the smallest number above ``low`` for which something holds, looking ever further.

    Raises:
        UsageError: it holds for none that anybody would draw.
    """
    high = max(2 * low, low + 16)
    end = MOST if largest is None else min(largest, MOST)
    while high < end:
        if holds(high):
            return smallest(holds, low, high)
        low, high = high, 2 * high
    if low < end and holds(end):
        return smallest(holds, low, end)
    raise too_large()


def too_large() -> UsageError:
    """Return the error for plans that nobody could carry out."""
    return UsageError(
        f"No sample of up to {MOST:,} items can show this.",
        "Tolerate more, expect less or ask for less confidence.",
    )


def _by_rate(population: Population, expected: Fraction, risk: Fraction) -> tuple[int, int]:
    """Return the smallest n whose own k, ceil(n * expected), is accepted with at most the risk.

    As long as k stays the same, the chance only falls with n: where it is too high at the end of
    such a stretch, it is too high in all of it. Long stretches are judged by their ends, short ones
    step by step.
    """
    end = min(population.largest or MOST, MOST)
    k = before = 0
    while before < end:
        k += 1
        last = min(int(k / expected), end)  # ceil(n * expected) == k up to here
        if 4 * k > last - before:
            return _step_by_step(population, before, end, expected, risk)
        if no_more_than(population, last, k, risk):
            accepted = partial(_accepted, population, k, risk)
            return smallest(accepted, before, last), k
        before = last
    raise too_large()


def _accepted(population: Population, k: int, risk: Fraction, n: int) -> bool:
    return no_more_than(population, n, k, risk)


def _step_by_step(
    population: Population, n: int, end: int, expected: Fraction, risk: Fraction
) -> tuple[int, int]:
    """Count the sequences of n + 1 items by those of n items."""
    k = ceil(n * expected)
    ways, exactly, accepted = (
        population.sequences(n),
        population.exactly(n, k),
        population.at_most(n, k),
    )
    while n < end:
        left = population.left(population.items, n)
        ways *= left
        # All but those in which the next item is a deviation too many.
        accepted = accepted * left - exactly * population.left(population.deviating, k)
        exactly = exactly * (n + 1) * population.left(population.conforming, n - k) // (n + 1 - k)
        n += 1
        if k < ceil(n * expected):
            if below := population.left(population.conforming, n - k - 1):
                above = (n - k) * population.left(population.deviating, k)
                exactly = exactly * above // ((k + 1) * below)
            else:
                exactly = population.exactly(n, k + 1)
            k += 1
            accepted += exactly
        if accepted * risk.denominator <= risk.numerator * ways:
            return n, k
    raise too_large()


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
