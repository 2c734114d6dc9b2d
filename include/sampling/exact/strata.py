"""Samples in several stages and samples from several strata, with exact risks.

Stages (AICPA Audit Guide *Audit Sampling*, sequential sampling): a stage without deviations accepts
the population. A stage with exactly one deviation requires another stage of the same size, which
must have no deviation. A stage with more deviations rejects the population. All stages are planned
together. So the total risk of accepting a population with the tolerable rate is at most the planned
risk. Additional stages without such a plan would have a much higher risk, so this module does not
support them.

Strata: every stratum contributes at least its share, ``ceil(n * size / N)``, so no stratum is
sampled less than the population on average. The number of deviations drawn from a stratum without
replacement is distributed like a sum of independent trials with unequal probabilities and the same
mean. Vatutin and Mikhailov proved this (*Limit theorems for the number of empty cells in an
equiprobable scheme for group allocation of particles*, Theory of Probability and its Applications
27, 1982). The same is true for the number of deviations from all strata together. The binomial
distribution with the same mean gives an upper bound for the probability of at most k deviations.
The bound is valid if k is 0 or at most the mean minus one. Hoeffding proved this (*On the
distribution of the number of successes in independent trials*, Annals of Mathematical Statistics
27, 1956, theorem 4). Therefore samples from strata are planned and evaluated with the binomial
distribution, even in small populations. The hypergeometric distribution would give an upper limit
that is slightly too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from include.policy.rates import require_between_0_and_1, round_up
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
    hypergeometric,
    smallest_by_doubling,
    smallest_size,
    upper_limit,
)
from include.services.errors import UsageError

MOST_STAGES = 4


@dataclass(frozen=True)
class StagedPlan:
    """A sampling plan with several stages of equal size.

    Attributes:
        n: number of items to draw in each stage.
        stages: maximum number of stages.
        method: ``binomial`` or ``hypergeometric``.
        achieved_risk: risk of accepting a population with the tolerable rate; at most the planned
            risk.
    """

    n: int
    stages: int
    method: str
    achieved_risk: Fraction


def smallest_stages(
    tolerable: Fraction, confidence: Fraction, stages: int, population: int | None = None
) -> StagedPlan:
    """Return the sampling plan with the smallest possible number of items in each stage.

    Each stage draws the same number of items. The plan is for a population without strata.

    Args:
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        stages: maximum number of stages, from 2 to ``MOST_STAGES``.
        population: number of items in the population; None for a very large population.

    Raises:
        UsageError: a rate or number is out of range, or the population is too small for this number
            of stages.
    """
    require_between_0_and_1(tolerable, "tolerable rate")
    risk = 1 - require_between_0_and_1(confidence, "confidence")
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
        n = smallest_by_doubling(lambda size: _accepts(items, size, stages, risk), 0, largest)
    except UsageError:
        if population is None:
            raise
        raise UsageError(
            f"A population of {population:,} is too small for {stages} stages.",
            "Plan a single stage.",
        ) from None
    return StagedPlan(n, stages, method, chance_of_accepting(items, n, stages))


def chance_of_accepting(population: Population, n: int, stages: int) -> Fraction:
    """Return the probability that a plan with stages of ``n`` items accepts a population.

    The probability falls while ``n`` grows, because a larger sample finds more deviations.

    Args:
        population: population from which the items are drawn.
        n: number of items to draw in each stage.
        stages: maximum number of stages.
    """
    return Fraction(*_accepting(population, n, stages))


def _accepts(population: Population, n: int, stages: int, risk: Fraction) -> bool:
    accepting, ways = _accepting(population, n, stages)
    return accepting * risk.denominator <= risk.numerator * ways


def _accepting(population: Population, n: int, stages: int) -> tuple[int, int]:
    """Return the number of sequences of draws that lead to acceptance, and of all sequences.

    Args:
        population: population from which the items are drawn.
        n: number of items to draw in each stage.
        stages: maximum number of stages.
    """
    if stages == 0:
        return 0, 1
    without_deviation, with_one_deviation = (population.exactly(n, k) for k in (0, 1))
    ways = population.sequences(n)
    if not with_one_deviation:
        return without_deviation, ways
    accepting, rest = _accepting(_rest(population, n), n, stages - 1)
    return without_deviation * rest + with_one_deviation * accepting, ways * rest


def _rest(population: Population, n: int) -> Population:
    """Return the population that remains after a draw of ``n`` items with exactly one deviation."""
    if population.with_replacement:
        return population
    return hypergeometric(population.items - n, population.deviating - 1)


def accepted_at(planned: StagedPlan, rate: Fraction, population: int | None = None) -> Fraction:
    """Return the probability that a plan accepts a population with a given deviation rate.

    Args:
        planned: the sampling plan.
        rate: deviation rate of the population, at least 0 and below 1.
        population: number of items in the population; None for a very large population.
    """
    if population is None:
        items = binomial(rate)
    else:
        items = hypergeometric(population, ceil(rate * population))
    return chance_of_accepting(items, planned.n, planned.stages)


@dataclass(frozen=True)
class Allocation:
    """The allocation of a sample to the strata of a population.

    Attributes:
        sizes: stratum -> number of its items.
        drawn: stratum -> number of items to draw from it.
    """

    sizes: Mapping[str, int]
    drawn: Mapping[str, int]

    @property
    def population(self) -> int:
        """The number of items in all strata."""
        return sum(self.sizes.values())

    @property
    def total(self) -> int:
        """The number of items to draw from all strata."""
        return sum(self.drawn.values())

    @property
    def effective(self) -> Fraction:
        """The size that the sample would have if all strata had the lowest sampling fraction.

        The sampling fraction of a stratum is the number of its drawn items, divided by the number
        of its items.
        """
        shares = (Fraction(self.drawn[name], size) for name, size in self.sizes.items())
        return min(shares, default=Fraction(0)) * self.population

    def trials(self, rate: Fraction) -> Population:
        """Return the population without strata that replaces the strata in Hoeffding's bound.

        It is sampled with replacement. If the strata have the deviation rate `rate`, a sample that
        is drawn with the allocation of this object has on average at least as many deviations as an
        equally large sample from the returned population.

        Args:
            rate: deviation rate of the stratified population.
        """
        return binomial(min(self.effective * rate / self.total, Fraction(1)))


def allocate(n: int, sizes: Mapping[str, int]) -> Allocation:
    """Allocate at least ``n`` items to strata in proportion to the sizes of the strata.

    The number of items to draw from each stratum is rounded up.

    Args:
        n: minimum number of items to draw from all strata together.
        sizes: stratum -> number of its items.
    """
    population = sum(sizes.values())
    drawn = {name: -(-n * size // population) for name, size in sizes.items()}
    return Allocation(sizes, drawn)


def stratified_size(
    tolerable: Fraction,
    confidence: Fraction,
    expected: Fraction,
    sizes: Mapping[str, int],
) -> tuple[Size, Allocation]:
    """Return the smallest size of a one-stage sample from several strata, and its allocation.

    Args:
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        expected: expected deviation rate.
        sizes: stratum -> number of its items; no stratum is empty.

    Raises:
        UsageError: a rate is out of range, or no sample can prove that the deviation rate is below
            the tolerable rate.
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
    """Return an upper bound of the risk of accepting a population with the given deviation rate.

    The result is None if Hoeffding's bound is not valid for ``acceptable`` deviations.

    Args:
        allocation: allocation of the sample to the strata.
        rate: deviation rate of the population.
        acceptable: largest number of deviations with which the population is accepted.
    """
    if acceptable and acceptable > allocation.effective * rate - 1:
        return None
    return at_most(allocation.trials(rate), allocation.total, acceptable)


def stratified_stages(
    tolerable: Fraction, confidence: Fraction, stages: int, sizes: Mapping[str, int]
) -> tuple[StagedPlan, Allocation]:
    """Return the plan with the smallest possible stages for a population with several strata.

    The result also contains the allocation of each stage to the strata. All stages draw the same
    number of items from a given stratum.

    Args:
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        confidence: one minus the risk of accepting a population with the tolerable rate.
        stages: maximum number of stages.
        sizes: stratum -> number of its items; no stratum is empty.

    Raises:
        UsageError: a rate or number is out of range, or a stratum is too small for this number of
            stages.
    """
    population = sum(sizes.values())
    risk = 1 - require_between_0_and_1(confidence, "confidence")
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
    """Return an upper bound of the probability that a staged plan accepts a stratified population.

    The result is calculated from the probabilities that a stage has no deviation and that it has at
    most one deviation. An upper bound of each probability is used. The bounds of a later stage take
    into account that each earlier stage removed one deviating item from the population.

    Args:
        allocation: allocation of each stage to the strata.
        deviating: number of deviating items in the population.
        stages: maximum number of stages.
    """
    accepted = Fraction(0)
    for left in reversed(range(stages)):
        rate = Fraction(max(deviating - left, 0), allocation.population)
        trials = allocation.trials(rate)
        no_deviation, up_to_one = (at_most(trials, allocation.total, k) for k in (0, 1))
        if allocation.effective * rate < 2:  # Hoeffding's bound is invalid: assume 1
            up_to_one = Fraction(1)
        accepted = no_deviation * (1 - accepted) + up_to_one * accepted
    return accepted


def stratified_limit(allocation: Allocation, deviations: int, confidence: Fraction) -> Limit:
    """Return the one-sided upper limit of the deviation rate for a sample from several strata.

    Args:
        allocation: allocation of the examined items to the strata.
        deviations: number of deviations in all strata.
        confidence: one minus the risk that the deviation rate is above the upper limit.
    """
    n, population = allocation.total, allocation.population
    if n == population:
        return upper_limit(n, deviations, confidence, population)
    plain = Fraction(upper_limit(n, deviations, confidence).rate)
    rate = plain * n / allocation.effective
    if deviations:  # Hoeffding's bound is invalid below this mean
        rate = max(rate, Fraction(deviations + 1) / allocation.effective)
    # The largest number of deviating items that is not excluded; examined conforming items conform.
    most = min(ceil(rate * population) - 1, population - (n - deviations))
    rate = Fraction(most, population)
    rounded: Decimal = (round_up(rate, 3) * 100).quantize(Decimal("0.1"))
    return Limit(round_up(rate, PLACES), rounded, BINOMIAL)
