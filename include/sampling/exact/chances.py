"""Chances of deviations in a sample, bounded from both sides by whole numbers.

A chance is kept as two integers over a power of two, one rounded down and one rounded up, so that a
comparison is either proven or known to be open. Open ones (ties, in practice) are settled by exact
integers. No float takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb, prod
from typing import Protocol

BITS = 128  # of the mantissas; a sum of a million terms still has 100 of them right
_BLOCK = 16  # factors multiplied before the product is shortened again


@dataclass(frozen=True)
class Bounds:
    """A number from 0: ``low * 2**-shift <= number <= high * 2**-shift``."""

    low: int
    high: int
    shift: int

    @classmethod
    def one(cls) -> Bounds:
        """The number 1, exactly."""
        return cls(1 << BITS, 1 << BITS, BITS)

    def times(self, above: int, below: int) -> Bounds:
        """Multiply with a fraction of whole numbers from 0."""
        return Bounds(self.low * above // below, -(-self.high * above // below), self.shift)

    def shortened(self) -> Bounds:
        """The same number with mantissas of at least ``BITS`` bits, and hardly more."""
        spare = self.high.bit_length() - BITS
        if spare > 0:
            return Bounds(self.low >> spare, -(-self.high >> spare), self.shift - spare)
        return Bounds(self.low << -spare, self.high << -spare, self.shift - spare)

    @property
    def lowest(self) -> Fraction:
        """The lower bound."""
        return _scaled(self.low, self.shift)

    @property
    def highest(self) -> Fraction:
        """The upper bound."""
        return _scaled(self.high, self.shift)

    def at_most(self, limit: Fraction) -> bool | None:
        """Say whether the number is at most the limit; None when the bounds do not tell."""
        above, below = limit.numerator, limit.denominator
        if self.shift >= 0:
            above <<= self.shift
        else:
            below <<= -self.shift
        if self.high * below <= above:
            return True
        return False if self.low * below > above else None


def _scaled(number: int, shift: int) -> Fraction:
    return Fraction(number, 1 << shift) if shift >= 0 else Fraction(number << -shift)


class Model(Protocol):
    """How many deviations a sample may hold, when the population deviates at one rate."""

    @property
    def largest(self) -> int | None:
        """The largest sample; None when there is no largest one."""
        ...

    def none(self, n: int) -> Bounds:
        """The chance of no deviation in ``n`` items."""
        ...

    def none_roughly(self, n: int) -> Bounds:
        """The same within wider bounds, where that is quicker."""
        ...

    def next(self, n: int, k: int) -> tuple[int, int]:
        """P(k + 1 of n) / P(k of n), as a fraction."""
        ...

    def longer(self, n: int, k: int) -> tuple[int, int]:
        """P(k of n + 1) / P(k of n), as a fraction."""
        ...

    def hit(self, n: int, k: int) -> tuple[int, int]:
        """The chance that item n + 1 deviates, when k of n did, as a fraction."""
        ...

    def exactly(self, n: int, k: int) -> Fraction:
        """P(at most k of n), exactly; slow."""
        ...

    def flipped(self, n: int, k: int) -> tuple[Model, int, int]:
        """The same chance told of what was not drawn, where this one cannot begin at none."""
        ...


@dataclass(frozen=True)
class Binomial:
    """A population so large that drawing does not change it.

    Attributes:
        rate: of deviations, from 0 to 1.
    """

    rate: Fraction

    @property
    def largest(self) -> int | None:
        """There is no largest sample."""
        return None

    def none(self, n: int) -> Bounds:
        """(1 - rate)**n."""
        return _power(1 - self.rate, n)

    def none_roughly(self, n: int) -> Bounds:
        """No quicker way is needed."""
        return self.none(n)

    def next(self, n: int, k: int) -> tuple[int, int]:
        """(n - k) / (k + 1) * rate / (1 - rate)."""
        above, below = self.rate.numerator, self.rate.denominator
        return (n - k) * above, (k + 1) * (below - above)

    def longer(self, n: int, k: int) -> tuple[int, int]:
        """(n + 1) / (n + 1 - k) * (1 - rate)."""
        above, below = self.rate.numerator, self.rate.denominator
        return (n + 1) * (below - above), (n + 1 - k) * below

    def hit(self, n: int, k: int) -> tuple[int, int]:
        """Always the rate."""
        del n, k
        return self.rate.numerator, self.rate.denominator

    def exactly(self, n: int, k: int) -> Fraction:
        """The sum of C(n, i) rate**i (1 - rate)**(n - i) over i up to k."""
        above, below = self.rate.numerator, self.rate.denominator
        rest = below - above
        return Fraction(
            sum(comb(n, i) * above**i * rest ** (n - i) for i in range(k + 1)), below**n
        )

    def flipped(self, n: int, k: int) -> tuple[Model, int, int]:
        """Itself: the rest of the population is never drawn out."""
        return self, n, k


@dataclass(frozen=True)
class Hypergeometric:
    """A population of known size, drawn without replacement.

    Attributes:
        population: how many items.
        deviating: how many of them deviate.
    """

    population: int
    deviating: int

    @property
    def largest(self) -> int | None:
        """The whole population."""
        return self.population

    def none(self, n: int) -> Bounds:
        """C(N - K, n) / C(N, n): a product over the items or over the deviations, the shorter."""
        count, other = sorted((n, self.deviating))
        result = Bounds.one()
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            left = self.population - other
            above = prod(range(left - stop + 1, left - start + 1))
            below = prod(range(self.population - stop + 1, self.population - start + 1))
            result = result.times(above, below).shortened()
        return result

    def none_roughly(self, n: int) -> Bounds:
        """Between the powers of the product's last factor and of its first."""
        count, other = sorted((n, self.deviating))
        if not count:
            return Bounds.one()
        end = self.population - count + 1
        least = _power(Fraction(end - other, end), count)
        most = _power(Fraction(self.population - other, self.population), count)
        shift = max(least.shift, most.shift)
        high = most.high << (shift - most.shift)
        return Bounds(least.low << (shift - least.shift), high, shift)

    def next(self, n: int, k: int) -> tuple[int, int]:
        """(K - k)(n - k) / ((k + 1)(N - K - n + k + 1))."""
        rest = self.population - self.deviating - n + k + 1
        return (self.deviating - k) * (n - k), (k + 1) * rest

    def longer(self, n: int, k: int) -> tuple[int, int]:
        """(n + 1)(N - K - n + k) / ((n + 1 - k)(N - n))."""
        rest = self.population - self.deviating - n + k
        return (n + 1) * max(rest, 0), (n + 1 - k) * (self.population - n)

    def hit(self, n: int, k: int) -> tuple[int, int]:
        """What deviates among the rest."""
        return max(self.deviating - k, 0), self.population - n

    def exactly(self, n: int, k: int) -> Fraction:
        """The sum of C(K, i) C(N - K, n - i) / C(N, n) over i up to k."""
        rest = self.population - self.deviating
        found = (
            comb(self.deviating, i) * comb(rest, n - i) for i in range(max(0, n - rest), k + 1)
        )
        return Fraction(sum(found), comb(self.population, n))

    def flipped(self, n: int, k: int) -> tuple[Model, int, int]:
        """What conforms and was not drawn, where more was drawn than conforms."""
        more = n + self.deviating - self.population
        if more <= 0:
            return self, n, k
        other = Hypergeometric(self.population, self.population - self.deviating)
        return other, self.population - n, k - more


def _power(base: Fraction, n: int) -> Bounds:
    """Bound a power by squaring."""
    result = Bounds.one()
    square = Bounds.one().times(base.numerator, base.denominator)
    while n:
        if n & 1:
            result = _product(result, square)
        square = _product(square, square)
        n >>= 1
    return result


def _product(one: Bounds, other: Bounds) -> Bounds:
    both = Bounds(one.low * other.low, one.high * other.high, one.shift + other.shift)
    return both.shortened()


def at_most(model: Model, n: int, k: int) -> Bounds:
    """Bound the chance of at most ``k`` deviations in ``n`` items."""
    return point_and_sum(model, n, k)[1]


def point_and_sum(model: Model, n: int, k: int) -> tuple[Bounds, Bounds]:
    """Bound the chances of ``k`` and of at most ``k`` deviations in ``n`` items."""
    model, n, k = model.flipped(n, k)
    if k < 0:
        return Bounds(0, 0, BITS), Bounds(0, 0, BITS)
    if isinstance(model, Binomial) and model.rate == 1:  # there is no ratio to go on by
        sure = Bounds.one() if k >= n else Bounds(0, 0, BITS)
        return (sure if k == n else Bounds(0, 0, BITS)), sure
    return _summed(model, n, k, model.none(n))


def _summed(model: Model, n: int, k: int, none: Bounds) -> tuple[Bounds, Bounds]:
    low = sum_low = none.low
    high = sum_high = none.high
    for i in range(k):
        above, below = model.next(n, i)
        if above <= 0:  # no sample of n holds more
            return Bounds(0, 0, BITS), Bounds(sum_low, sum_high, none.shift)
        low, high = low * above // below, -(-high * above // below)
        sum_low, sum_high = sum_low + low, sum_high + high
    return Bounds(low, high, none.shift), Bounds(sum_low, sum_high, none.shift)


def no_more_than(model: Model, n: int, k: int, risk: Fraction) -> bool:
    """Decide whether P(at most ``k`` deviations in ``n`` items) <= ``risk``."""
    model, n, k = model.flipped(n, k)
    if k < 0:
        return True
    if isinstance(model, Binomial) and model.rate == 1:
        return k < n or risk >= 1
    for none in (model.none_roughly, model.none):
        told = _summed(model, n, k, none(n))[1].at_most(risk)
        if told is not None:
            return told
    return model.exactly(n, k) <= risk
