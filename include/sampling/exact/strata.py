"""Samples spread over strata in proportion, and why their risk is still the stated one.

Every stratum gives at least its share: ``ceil(n * size / N)``, so that no department is sampled
more thinly than the whole. What a stratum gives without replacement is distributed like a sum of
independent trials with unequal chances and the same mean (Vatutin and Mikhailov, *Limit theorems
for the number of empty cells in an equiprobable scheme for group allocation of particles*, Theory
of Probability and its Applications 27, 1982), and so are all strata together. Hoeffding (*On the
distribution of the number of successes in independent trials*, Annals of Mathematical Statistics
27, 1956, theorem 4) bounds the chance of at most k of them by the binomial distribution with the
same mean, for k up to the mean less one (for k = 0 always). Strata are therefore planned and judged
with the binomial distribution, however small the population: the hypergeometric one would promise a
little too much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from include.policy.rates import between, ceiling
from include.sampling.exact.chances import Population, at_most, binomial
from include.sampling.exact.limits import PLACES, Limit, upper_limit
from include.sampling.exact.sizes import (
    BINOMIAL,
    CENSUS,
    Size,
    smallest_size,
)
from include.sampling.exact.stages import StagedPlan, smallest_stages
from include.services.errors import UsageError


@dataclass(frozen=True)
class Allocation:
    """How many items each stratum gives.

    Attributes:
        sizes: items of each stratum, by its name.
        drawn: how many of them are drawn.
    """

    sizes: Mapping[str, int]
    drawn: Mapping[str, int]

    @property
    def population(self) -> int:
        """Items of all strata."""
        return sum(self.sizes.values())

    @property
    def total(self) -> int:
        """Items drawn from all strata."""
        return sum(self.drawn.values())

    @property
    def effective(self) -> Fraction:
        """The sample of the whole population that is as dense as the thinnest stratum's."""
        shares = (Fraction(self.drawn[name], size) for name, size in self.sizes.items())
        return min(shares, default=Fraction(0)) * self.population

    def trials(self, rate: Fraction) -> Population:
        """The trials of Hoeffding's bound for a population that deviates at a rate."""
        return binomial(min(self.effective * rate / self.total, Fraction(1)))


def allocate(n: int, sizes: Mapping[str, int]) -> Allocation:
    """Spread at least ``n`` items over strata in proportion, rounding up in each."""
    population = sum(sizes.values())
    drawn = {name: -(-n * size // population) for name, size in sizes.items()}
    return Allocation(sizes, drawn)


def stratified_size(
    tolerable: Fraction,
    confidence: Fraction,
    expected: Fraction,
    sizes: Mapping[str, int],
) -> tuple[Size, Allocation]:
    """Plan a sample of one stage over strata.

    Args:
        tolerable: rate of deviations from which on the population is not accepted.
        confidence: one minus the risk of accepting it then.
        expected: rate of deviations that is expected.
        sizes: items of each stratum; none is empty.

    Raises:
        UsageError: as for ``smallest_size``.
    """
    population = sum(sizes.values())
    plain = smallest_size(tolerable, confidence, expected=expected)
    risk, acceptable, n = 1 - confidence, plain.acceptable, plain.n
    while True:
        allocation = allocate(n, sizes)
        if allocation.total >= population:
            too_many = ceil(tolerable * population)
            whole = Allocation(sizes, dict(sizes))
            return Size(population, too_many - 1, CENSUS, Fraction(0)), whole
        reached = _risk_of(allocation, tolerable, acceptable)
        if reached is not None and reached <= risk:
            return Size(allocation.total, acceptable, BINOMIAL, reached), allocation
        n += 1


def _risk_of(allocation: Allocation, rate: Fraction, acceptable: int) -> Fraction | None:
    """Bound the risk of accepting; None where Hoeffding's bound says nothing."""
    if acceptable and acceptable > allocation.effective * rate - 1:
        return None
    return at_most(allocation.trials(rate), allocation.total, acceptable)


def stratified_stages(
    tolerable: Fraction, confidence: Fraction, stages: int, sizes: Mapping[str, int]
) -> tuple[StagedPlan, Allocation]:
    """Plan stages over strata; each stage draws as many from each stratum.

    A stage's chances of none and of at most one deviation are bounded one by one; the chance of
    accepting rises with each of them. Later stages meet a population with fewer deviations left.

    Raises:
        UsageError: as for ``smallest_stages``; or the strata are too small for so many stages.
    """
    population = sum(sizes.values())
    risk = 1 - between(confidence, "confidence")
    n = smallest_stages(tolerable, confidence, stages).n
    deviating = ceil(tolerable * population)
    while True:
        allocation = allocate(n, sizes)
        if any(allocation.drawn[name] * stages > size for name, size in sizes.items()):
            raise UsageError(
                f"A stratum of the population of {population:,} is too small for {stages} stages.",
                "Plan a single stage, or leave out the strata.",
            )
        accepted = chance_over_strata(allocation, deviating, stages)
        if accepted <= risk:
            return StagedPlan(allocation.total, stages, BINOMIAL, accepted), allocation
        n += 1


def chance_over_strata(allocation: Allocation, deviating: int, stages: int) -> Fraction:
    """Bound the chance that stages over strata accept, from above.

    Args:
        allocation: of each stage.
        deviating: items of the population that deviate.
        stages: in which it may be accepted.
    """
    accepted = Fraction(0)
    for left in reversed(range(stages)):
        rate = Fraction(max(deviating - left, 0), allocation.population)
        trials = allocation.trials(rate)
        none, up_to_one = (at_most(trials, allocation.total, k) for k in (0, 1))
        if allocation.effective * rate < 2:  # nothing is known of at most one: let it be sure
            up_to_one = Fraction(1)
        accepted = none * (1 - accepted) + up_to_one * accepted
    return accepted


def stratified_limit(allocation: Allocation, deviations: int, confidence: Fraction) -> Limit:
    """Return the one-sided upper limit of what was drawn over strata.

    Args:
        allocation: what was examined of each stratum.
        deviations: in all of them together.
        confidence: one minus the risk that the population is worse than the limit.
    """
    n, population = allocation.total, allocation.population
    if n == population:
        return upper_limit(n, deviations, confidence, population)
    plain = Fraction(upper_limit(n, deviations, confidence).rate)
    rate = plain * n / allocation.effective
    if deviations:  # below that mean the bound says nothing
        rate = max(rate, Fraction(deviations + 1) / allocation.effective)
    # Whole items: the last number of them that is not excluded. What was seen to conform conforms.
    most = min(ceil(rate * population) - 1, population - (n - deviations))
    rate = Fraction(most, population)
    rounded: Decimal = (ceiling(rate, 3) * 100).quantize(Decimal("0.1"))
    return Limit(ceiling(rate, PLACES), rounded, BINOMIAL)
