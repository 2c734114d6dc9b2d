"""Samples in stages, planned together: accept at none, go on at exactly one.

The rule (AICPA Audit Guide *Audit Sampling*, sequential sampling): no deviation in a stage accepts,
exactly one calls for the next stage of as many items, in which there has to be none; more reject.
All stages are sized together, so that the risk of accepting at the tolerable rate by any way is at
most the planned one. Going on without such a plan has a risk far above the stated one, and no
function here does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, comb

from include.policy.rates import between
from include.sampling.exact.chances import Population, binomial, hypergeometric
from include.sampling.exact.sizes import BINOMIAL, HYPERGEOMETRIC, doubled
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


def unplanned_risk(tolerable: Fraction, n: int, extensions: int) -> Fraction:
    """The true risk of going on by n items whenever one deviation was found, without a plan."""
    none = (1 - tolerable) ** n
    one = comb(n, 1) * tolerable * (1 - tolerable) ** (n - 1)
    risk = none
    for _turn in range(extensions):
        risk = none + one * risk
    return risk


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
