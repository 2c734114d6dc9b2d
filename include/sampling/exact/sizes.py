"""Exact sample sizes, and exact one-sided upper limits of the deviation rate.

A probability is computed as the number of favourable sequences of draws, divided by the number of
all sequences.

Sample size (AICPA Audit Guide *Audit Sampling*, appendix A, attribute sampling, one-sided): if the
size of the population is unknown, the sample size is the smallest n with P(Bin(n, tolerable) <=
ceil(n * expected)) <= risk. If the population has N items, the distribution is hypergeometric, and
``ceil(tolerable * N)`` deviating items are already too many. In both cases, ``risk`` is the
probability of accepting a population whose deviation rate is the tolerable rate.

Upper limit: if the size of the population is unknown, the upper limit is that of Clopper and
Pearson (1934): the rate at which k or fewer deviations in n items have exactly the probability
``risk``, which is the beta quantile (confidence; k + 1, n - k). If the population has N items, the
upper limit is D / N. D is the largest number of deviating items for which k or fewer deviations in
n items have a probability above ``risk``. One-sided means that only the risk of overlooking
deviations is limited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from math import ceil, comb, perm

from include.policy.rates import HOW_TO_WRITE, percent_text, require_between_0_and_1, round_up
from include.services.errors import UsageError


@dataclass(frozen=True)
class Population:
    """A population from which a sample is drawn, described by how many of its items deviate.

    Attributes:
        deviating: number of items that deviate.
        conforming: number of items that do not deviate.
        with_replacement: whether each drawn item is put back. If so, a draw does not change the
            population.
    """

    deviating: int
    conforming: int
    with_replacement: bool

    @property
    def items(self) -> int:
        """The number of all items."""
        return self.deviating + self.conforming

    @property
    def largest(self) -> int | None:
        """The size of the largest possible sample; None if the size is unlimited."""
        return None if self.with_replacement else self.items

    def sequences(self, n: int) -> int:
        """Return how many different sequences of ``n`` items can be drawn from the population."""
        return self._drawn(self.items, n)

    def exactly(self, n: int, k: int) -> int:
        """Return how many sequences of ``n`` drawn items have exactly ``k`` deviating items."""
        if k > n:
            return 0
        return comb(n, k) * self._drawn(self.deviating, k) * self._drawn(self.conforming, n - k)

    def at_most(self, n: int, k: int) -> int:
        """Return how many sequences of ``n`` drawn items have at most ``k`` deviating items."""
        k = min(k, n)
        deviating = total = 1
        for i in range(k):  # Horner's rule; the remaining n - k conforming items come last
            deviating = deviating * (n - i) * self.remaining(self.deviating, i) // (i + 1)
            total = total * self.remaining(self.conforming, n - i - 1) + deviating
        return total * self._drawn(self.conforming, n - k)

    def remaining(self, items: int, drawn: int) -> int:
        """Return how many items of a kind remain in the population after some of them were drawn.

        With replacement, all of them remain.

        Args:
            items: number of items of this kind, such as deviating items, before the draw.
            drawn: number of items of this kind that were drawn.
        """
        return items if self.with_replacement else items - drawn

    def _drawn(self, items: int, n: int) -> int:
        return items**n if self.with_replacement else perm(items, n)


def binomial(rate: Fraction) -> Population:
    """Return a population that a draw does not change, like an infinitely large population.

    Args:
        rate: deviation rate of the population, from 0 to 1.
    """
    return Population(rate.numerator, rate.denominator - rate.numerator, with_replacement=True)


def hypergeometric(items: int, deviating: int) -> Population:
    """Return a population of known size from which items are drawn without replacement.

    Args:
        items: number of items in the population.
        deviating: number of items that deviate.
    """
    return Population(deviating, items - deviating, with_replacement=False)


def at_most(population: Population, n: int, k: int) -> Fraction:
    """Return the probability of at most ``k`` deviations in a sample of ``n`` items."""
    return Fraction(population.at_most(n, k), population.sequences(n))


def is_within_risk(population: Population, n: int, k: int, risk: Fraction) -> bool:
    """Return whether the probability of ``k`` or fewer deviations is at most ``risk``.

    Args:
        population: population from which the items are drawn.
        n: number of drawn items.
        k: largest number of deviations to which the probability refers.
        risk: largest allowed probability.
    """
    chance = population.at_most(n, k) * risk.denominator
    return chance <= risk.numerator * population.sequences(n)


MAX_SAMPLE_SIZE = 50_000  # items of a sample; people cannot test more by hand
BINOMIAL, HYPERGEOMETRIC, CENSUS = "binomial", "hypergeometric", "census"


@dataclass(frozen=True)
class Size:
    """The size of a sample that is drawn in one stage, with its risk.

    Attributes:
        n: number of items to draw.
        acceptable: largest number of deviations with which the population is accepted.
        method: ``binomial``, ``hypergeometric``, or ``census`` if all items must be examined.
        achieved_risk: risk of accepting a population with the tolerable rate; at most the planned
            risk.
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
    """Return the size of the smallest sample with which a population can be accepted.

    The sample is drawn in one stage. A population is accepted if the sample shows, at the given
    confidence, that its deviation rate is below the tolerable rate.

    Args:
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        expected: expected deviation rate, from which the acceptable number of deviations is
            calculated; None means 0.
        acceptable: acceptable number of deviations; None to calculate it from ``expected``.
        population: number of items in the population; None for a very large population.

    Raises:
        UsageError: a rate is out of range, or no sample can prove that the deviation rate is below
            the tolerable rate.
    """
    require_between_0_and_1(tolerable, "tolerable rate")
    risk = 1 - require_between_0_and_1(confidence, "confidence")
    expected = Fraction(0) if expected is None else expected
    if expected >= tolerable:
        raise UsageError(
            f"The expected rate {percent_text(expected)} is not below the tolerable rate "
            f"{percent_text(tolerable)}: no sample could accept it.",
            f"Lower the expected rate or raise the tolerable rate. {HOW_TO_WRITE}",
        )
    if acceptable is not None and acceptable < 0:
        raise UsageError(f"The number of accepted deviations cannot be negative: {acceptable}.")
    if population is None:
        return _plan_size(binomial(tolerable), risk, expected, acceptable, BINOMIAL)
    if population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    too_many = ceil(tolerable * population)
    census = Size(population, too_many - 1, CENSUS, Fraction(0))
    if acceptable is not None and acceptable >= too_many:
        return census
    items = hypergeometric(population, too_many)
    try:
        size = _plan_size(items, risk, expected, acceptable, HYPERGEOMETRIC)
    except UsageError:
        if population > MAX_SAMPLE_SIZE:
            raise
        return census  # only a census can distinguish too few from too many deviations
    return Size(size.n, size.acceptable, CENSUS, Fraction(0)) if size.n == population else size


def _plan_size(
    population: Population, risk: Fraction, expected: Fraction, acceptable: int | None, method: str
) -> Size:
    if acceptable is None and expected:
        n, k = _by_rate(population, expected, risk)
    else:
        k = acceptable or 0
        n = smallest_by_doubling(
            lambda size: is_within_risk(population, size, k, risk), k, population.largest
        )
    return Size(n, k, method, at_most(population, n, k))


def smallest(is_true: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest number above ``low`` for which a monotonic condition is true.

    Args:
        is_true: the condition. If it is true for a number, it must be true for every larger number.
        low: number for which the condition is false.
        high: number for which the condition is true.
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_true(middle) else (middle, high)
    return high


def smallest_by_doubling(is_true: Callable[[int], bool], low: int, largest: int | None) -> int:
    """Return the smallest number above ``low`` for which a monotonic condition is true.

    The search doubles its range until the condition is true.

    Args:
        is_true: the condition. If it is true for a number, it must be true for every larger number.
        low: number for which the condition is false.
        largest: largest number to try; None for `MAX_SAMPLE_SIZE`, the largest size of a sample.

    Raises:
        UsageError: the condition is false for all numbers up to ``largest``.
    """
    high = max(2 * low, low + 16)
    end = MAX_SAMPLE_SIZE if largest is None else min(largest, MAX_SAMPLE_SIZE)
    while high < end:
        if is_true(high):
            return smallest(is_true, low, high)
        low, high = high, 2 * high
    if low < end and is_true(end):
        return smallest(is_true, low, end)
    raise too_large()


def too_large() -> UsageError:
    """Return the error that is raised if even a sample of `MAX_SAMPLE_SIZE` items is too small."""
    return UsageError(
        f"No sample of up to {MAX_SAMPLE_SIZE:,} items can prove this rate.",
        "Raise the tolerable rate, or lower the expected rate or the confidence.",
    )


def _by_rate(population: Population, expected: Fraction, risk: Fraction) -> tuple[int, int]:
    """Return the smallest sample size with an acceptable risk, and its acceptable deviations.

    The acceptable number of deviations of a sample of n items is k = ceil(n * expected). The risk
    of the sample is the probability of at most k deviations in n items, if the population has the
    tolerable rate. It must be at most ``risk``.

    Sizes with the same k form a range, in which the risk falls while n grows. If the risk is too
    high at the largest n of a range, it is too high in the whole range. Therefore the end of a long
    range is tested first, and the range is searched only if its end passes. Short ranges are tested
    size by size.

    Args:
        population: a population that has the tolerable rate.
        expected: expected deviation rate.
        risk: largest acceptable risk.

    Returns:
        The sample size n, and the acceptable number of deviations k.
    """
    end = min(population.largest or MAX_SAMPLE_SIZE, MAX_SAMPLE_SIZE)
    k = before = 0
    while before < end:
        k += 1
        last = min(int(k / expected), end)  # the largest n with ceil(n * expected) == k
        if 4 * k > last - before:
            return _step_by_step(population, before, end, expected, risk)
        if is_within_risk(population, last, k, risk):
            accepted = partial(_accepted, population, k, risk)
            return smallest(accepted, before, last), k
        before = last
    raise too_large()


def _accepted(population: Population, k: int, risk: Fraction, n: int) -> bool:
    return is_within_risk(population, n, k, risk)


def _step_by_step(
    population: Population, n: int, end: int, expected: Fraction, risk: Fraction
) -> tuple[int, int]:
    """Test the sample sizes above ``n`` one by one; return the first with an acceptable risk.

    To save time, the counts of possible samples of n + 1 items are computed from those of n items.

    Args:
        population: a population that has the tolerable rate.
        n: largest size that is known to be too small.
        end: largest size to test.
        expected: expected deviation rate.
        risk: largest acceptable risk.

    Returns:
        The sample size n, and the acceptable number of deviations k = ceil(n * expected).
    """
    k = ceil(n * expected)
    ways, exactly, accepted = (
        population.sequences(n),
        population.exactly(n, k),
        population.at_most(n, k),
    )
    while n < end:
        left = population.remaining(population.items, n)
        ways *= left
        # All sequences except those in which the next item is one deviation too many.
        accepted = accepted * left - exactly * population.remaining(population.deviating, k)
        exactly = (
            exactly * (n + 1) * population.remaining(population.conforming, n - k) // (n + 1 - k)
        )
        n += 1
        if k < ceil(n * expected):
            if below := population.remaining(population.conforming, n - k - 1):
                above = (n - k) * population.remaining(population.deviating, k)
                exactly = exactly * above // ((k + 1) * below)
            else:
                exactly = population.exactly(n, k + 1)
            k += 1
            accepted += exactly
        if accepted * risk.denominator <= risk.numerator * ways:
            return n, k
    raise too_large()


PLACES = 12  # decimal places of an upper limit, which is rounded up


@dataclass(frozen=True)
class Limit:
    """An upper limit of the deviation rate of a population.

    Attributes:
        rate: upper limit, rounded up to ``PLACES`` decimal places.
        rounded_up_pct: upper limit as a percentage, rounded up to a tenth, as in published tables.
        method: ``binomial``, ``hypergeometric`` or ``census``.
    """

    rate: Decimal
    rounded_up_pct: Decimal
    method: str


def upper_limit(
    n: int, deviations: int, confidence: Fraction, population: int | None = None
) -> Limit:
    """Return the one-sided upper limit of the deviation rate of a population.

    Args:
        n: number of sample items, including items that could not be examined.
        deviations: number of deviations. An item that could not be examined is a deviation.
        confidence: one minus the risk that the deviation rate is above the upper limit.
        population: number of items in the population; None for a very large population.

    Raises:
        UsageError: the arguments contradict each other, or one of them is out of range.
    """
    risk = 1 - require_between_0_and_1(confidence, "confidence")
    if n < 0 or not 0 <= deviations <= n:
        raise UsageError(f"{deviations} deviations among {n} items are not possible.")
    if n > MAX_SAMPLE_SIZE and n != population:
        raise UsageError(f"Limits are calculated for samples of up to {MAX_SAMPLE_SIZE:,} items.")
    if population is None:
        return Limit(
            _binomial_limit(n, deviations, risk, PLACES),
            (_binomial_limit(n, deviations, risk, 3) * 100).quantize(Decimal("0.1")),
            BINOMIAL,
        )
    if population < 1:
        raise UsageError("The population is empty: it has no rate.")
    if n > population:
        raise UsageError(f"A sample of {n:,} cannot come from a population of {population:,}.")
    most = _most_deviating(n, deviations, risk, population)
    rate = Fraction(most, population)
    method = CENSUS if n == population else HYPERGEOMETRIC
    return Limit(round_up(rate, PLACES), (round_up(rate, 3) * 100).quantize(Decimal("0.1")), method)


def _binomial_limit(n: int, deviations: int, risk: Fraction, places: int) -> Decimal:
    """Return the upper limit of the deviation rate of a population of unknown size.

    The upper limit is the smallest rate at which a sample of ``n`` items has at most ``deviations``
    deviations with a probability of at most ``risk``. If all items of the sample deviate, the upper
    limit is 1.

    Args:
        n: number of examined items.
        deviations: number of these items that deviate.
        risk: one minus the confidence of the upper limit.
        places: number of decimal places to which the upper limit is rounded up.
    """
    if deviations == n:
        return Decimal(1)
    scale = 10**places

    def excluded(scaled: int) -> bool:
        return is_within_risk(binomial(Fraction(scaled, scale)), n, deviations, risk)

    limit = smallest(lambda scaled: scaled == scale or excluded(scaled), 0, scale)
    return Decimal(limit).scaleb(-places)


def _most_deviating(n: int, deviations: int, risk: Fraction, population: int) -> int:
    """Return the largest number of deviating items in the population that fits the sample.

    A number fits the sample if, with this number, ``deviations`` or fewer deviations in ``n`` items
    have a probability above ``risk``.

    Args:
        n: number of examined items.
        deviations: number of these items that deviate.
        risk: one minus the confidence of the upper limit.
        population: number of items in the population.
    """
    highest = population - (n - deviations)  # without examined conforming items

    def excluded(deviating: int) -> bool:
        return is_within_risk(hypergeometric(population, deviating), n, deviations, risk)

    if n == population or not excluded(highest):
        return highest
    return smallest(excluded, deviations, highest) - 1
