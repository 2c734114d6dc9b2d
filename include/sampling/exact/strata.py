"""Samples in stages and samples spread over strata, with exact risks.

The rule (AICPA Audit Guide *Audit Sampling*, sequential sampling): no deviation in a stage accepts,
exactly one calls for the next stage of as many items, in which there has to be none; more reject.
All stages are sized together, so that the risk of accepting at the tolerable rate by any way is at
most the planned one. Going on without such a plan has a risk far above the stated one, and no
function here does it.

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
from include.sampling.exact.sizes import (
    BINOMIAL,
    CENSUS,
    HYPERGEOMETRIC,
    PLACES,
    Limit,
    Population,
    Size,
    at_most,
    binomial,
    doubled,
    hypergeometric,
    smallest_size,
    upper_limit,
)
from include.services.errors import UsageError

MOST_STAGES = 4


@dataclass(frozen=True)
class StagedPlan:
    """Stages of equal size.

    Attributes:
        n: items of each stage.
        stages: how many at most.
        method: ``binomial`` or ``hypergeometric``.
        achieved_risk: of accepting at the tolerable rate; at most the planned.
    """

    n: int
    stages: int
    method: str
    achieved_risk: Fraction


def smallest_stages(
    tolerable: Fraction, confidence: Fraction, stages: int, population: int | None = None
) -> StagedPlan:
    """Plan stages of equal size.

    Args:
        tolerable: rate of deviations from which on the population is not accepted.
        confidence: one minus the risk of accepting it then.
        stages: how many at most, from 2 to ``MOST_STAGES``.
        population: how many items there are; None for very many.

    Raises:
        UsageError: a figure is out of range, or the population is too small for so many stages.
    """
    between(tolerable, "tolerable rate")
    risk = 1 - between(confidence, "confidence")
    if not 2 <= stages <= MOST_STAGES:
        raise UsageError(f"{stages} stages are not possible.", f"Plan 2 to {MOST_STAGES}.")
    if population is None:
        items, largest, method = binomial(tolerable), None, BINOMIAL
    elif population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    else:
        items, method = hypergeometric(population, ceil(tolerable * population)), HYPERGEOMETRIC
        largest = population // stages
    try:
        n = doubled(lambda size: _accepts(items, size, stages, risk), 0, largest)
    except UsageError:
        if population is None:
            raise
        raise UsageError(
            f"A population of {population:,} is too small for {stages} stages.",
            "Plan a single stage.",
        ) from None
    return StagedPlan(n, stages, method, chance_of_accepting(items, n, stages))


def chance_of_accepting(population: Population, n: int, stages: int) -> Fraction:
    """Return the chance that stages of ``n`` items accept a population.

    It falls with n: whoever draws more sees whatever fewer items would have shown.
    """
    return Fraction(*_accepting(population, n, stages))


def _accepts(population: Population, n: int, stages: int, risk: Fraction) -> bool:
    accepting, ways = _accepting(population, n, stages)
    return accepting * risk.denominator <= risk.numerator * ways


def _accepting(population: Population, n: int, stages: int) -> tuple[int, int]:
    """Return in how many ways items may be drawn that accept, and in how many in all."""
    if stages == 0:
        return 0, 1
    none, one = (population.exactly(n, k) for k in (0, 1))
    ways = population.sequences(n)
    if not one:
        return none, ways
    accepting, rest = _accepting(_rest(population, n), n, stages - 1)
    return none * rest + one * accepting, ways * rest


def _rest(population: Population, n: int) -> Population:
    """Return a population after n items of which one deviated."""
    if population.replaced:
        return population
    return hypergeometric(population.items - n, population.deviating - 1)


def accepted_at(planned: StagedPlan, rate: Fraction, population: int | None = None) -> Fraction:
    """Return the chance that a plan accepts a population that deviates at a rate.

    Args:
        planned: the stages.
        rate: from 0, below 1.
        population: how many items there are; None for very many.
    """
    if population is None:
        items = binomial(rate)
    else:
        items = hypergeometric(population, ceil(rate * population))
    return chance_of_accepting(items, planned.n, planned.stages)


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
