"""How many items to draw, and how many deviations to accept among them: exact sample sizes.

Formulas: AICPA Audit Guide *Audit Sampling*, appendix A (attribute sampling, one-sided). Without a
known population, the smallest n with P(Bin(n, tolerable) <= ceil(n * expected)) <= risk; with a
population of N, ``ceil(tolerable * N)`` of which would be too many, the same of the hypergeometric
distribution. The risk is that of accepting a population that deviates at the tolerable rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil

from include.policy.rates import HOW, between, percent
from include.sampling.exact.chances import (
    Binomial,
    Bounds,
    Hypergeometric,
    Model,
    at_most,
    no_more_than,
    point_and_sum,
)
from include.services.errors import UsageError

MOST = 2_000_000  # items; nobody tests as many by hand
BINOMIAL, HYPERGEOMETRIC, CENSUS = "binomial", "hypergeometric", "census"


@dataclass(frozen=True)
class Size:
    """A sample to be drawn in one stage.

    Attributes:
        n: items to draw.
        acceptable: with no more deviations than these the population is accepted.
        method: ``binomial``, ``hypergeometric``, or ``census`` where only all items will do.
        achieved_risk: of accepting at the tolerable rate, or a little above; at most the planned.
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
        return _found(Binomial(tolerable), risk, expected, acceptable, BINOMIAL)
    if population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    too_many = ceil(tolerable * population)
    census = Size(population, too_many - 1, CENSUS, Fraction(0))
    if acceptable is not None and acceptable >= too_many:
        return census
    model = Hypergeometric(population, too_many)
    try:
        found = _found(model, risk, expected, acceptable, HYPERGEOMETRIC)
    except UsageError:
        if population > MOST:
            raise
        return census  # only looking at all of them tells too few from too many
    return Size(found.n, found.acceptable, CENSUS, Fraction(0)) if found.n == population else found


def _found(
    model: Model, risk: Fraction, expected: Fraction, acceptable: int | None, method: str
) -> Size:
    if acceptable is not None:
        n, k = _bisect(model, acceptable, acceptable, risk), acceptable
    elif expected == 0:
        n, k = _bisect(model, 0, 0, risk), 0
    else:
        n, k = _by_rate(model, expected, risk)
    return Size(n, k, method, at_most(model, n, k).highest)


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


def _bisect(model: Model, k: int, low: int, risk: Fraction) -> int:
    return doubled(partial(_accepted, model, k, risk), low, model.largest)


def _accepted(model: Model, k: int, risk: Fraction, n: int) -> bool:
    return no_more_than(model, n, k, risk)


def _by_rate(model: Model, expected: Fraction, risk: Fraction) -> tuple[int, int]:
    """The smallest n whose own ceil(n * expected) is accepted with at most the risk.

    As long as k stays the same, the chance only falls with n: what does not hold at the end of such
    a stretch holds nowhere in it. Long stretches are judged by their ends, short ones step by step.
    """
    k = before = 0
    while before < MOST:
        k += 1
        end = min(int(k / expected), MOST)  # ceil(n * expected) == k up to here
        if model.largest is not None:
            end = min(end, model.largest)
        if 4 * k > end - before:
            return _walk(model, before, k - 1, expected, risk)
        if no_more_than(model, end, k, risk):
            accepted = partial(_accepted, model, k, risk)
            return smallest(accepted, before, end), k
        before = end
        if before == model.largest:
            break
    raise too_large()


def _walk(model: Model, n: int, k: int, expected: Fraction, risk: Fraction) -> tuple[int, int]:
    """Go on item by item: P(k of n) and P(at most k of n) from those of n - 1."""
    point, total = point_and_sum(model, n, k)
    while n < MOST and n != model.largest:
        above, below = model.hit(n, k)
        lost = point.times(above, below)
        total = Bounds(max(total.low - lost.high, 0), max(total.high - lost.low, 0), total.shift)
        point = point.times(*model.longer(n, k))
        n += 1
        if k < ceil(n * expected):
            above, below = model.next(n, k)
            k += 1
            if below > 0:
                point = point.times(above, below)
                total = Bounds(total.low + point.low, total.high + point.high, total.shift)
            else:  # fewer were impossible: there is nothing to go on from
                point, total = point_and_sum(model, n, k)
        told = total.at_most(risk)
        if model.exactly(n, k) <= risk if told is None else told:
            return n, k
    raise too_large()
