"""Chances of deviations in a sample, in whole numbers: no float takes part, nothing is rounded.

A chance is a number of sequences in which items may be drawn, of all such sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb, perm


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
