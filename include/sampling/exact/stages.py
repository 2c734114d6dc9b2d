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
from include.sampling.exact.chances import Binomial, Hypergeometric, Model, point_and_sum
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
        achieved_risk: of accepting at the tolerable rate, or a little above; at most the planned.
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
        model: Model = Binomial(tolerable)
        n = doubled(lambda size: _accepts(model, size, stages, risk), 0, None)
        return StagedPlan(n, stages, BINOMIAL, chance_of_accepting(model, n, stages)[1])
    if population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    model = Hypergeometric(population, ceil(tolerable * population))
    try:
        n = doubled(lambda size: _accepts(model, size, stages, risk), 0, population // stages)
    except UsageError:
        raise UsageError(
            f"A population of {population:,} is too small for {stages} stages.",
            "Plan a single stage.",
        ) from None
    return StagedPlan(n, stages, HYPERGEOMETRIC, chance_of_accepting(model, n, stages)[1])


def chance_of_accepting(model: Model, n: int, stages: int) -> tuple[Fraction, Fraction]:
    """Bound the chance that stages of ``n`` items accept a population, from below and above.

    It falls with n: whoever draws more sees whatever fewer items would have shown.
    """
    if stages == 0:
        return Fraction(0), Fraction(0)
    none = point_and_sum(model, n, 0)[0]
    one = point_and_sum(model, n, 1)[0] if n else none.times(0, 1)
    low, high = chance_of_accepting(_rest(model, n), n, stages - 1)
    return none.lowest + one.lowest * low, none.highest + one.highest * high


def _rest(model: Model, n: int) -> Model:
    """What is left of a population after n items of which one deviated."""
    if isinstance(model, Hypergeometric):
        return Hypergeometric(model.population - n, max(model.deviating - 1, 0))
    return model


def _accepts(model: Model, n: int, stages: int, risk: Fraction) -> bool:
    low, high = chance_of_accepting(model, n, stages)
    if high <= risk:
        return True
    return low <= risk and _exactly(model, n, stages) <= risk


def _exactly(model: Model, n: int, stages: int) -> Fraction:
    """The chance of accepting, exactly; slow, for ties."""
    if stages == 0:
        return Fraction(0)
    none = model.exactly(n, 0)
    one = model.exactly(n, 1) - none
    return none + one * _exactly(_rest(model, n), n, stages - 1)


def unplanned_risk(tolerable: Fraction, n: int, extensions: int) -> Fraction:
    """The true risk of going on by n items whenever one deviation was found, without a plan."""
    none = (1 - tolerable) ** n
    one = comb(n, 1) * tolerable * (1 - tolerable) ** (n - 1)
    risk = none
    for _turn in range(extensions):
        risk = none + one * risk
    return risk


def accepted_at(planned: StagedPlan, rate: Fraction, population: int | None = None) -> Fraction:
    """Bound from below the chance that a plan accepts a population that deviates at a rate.

    Args:
        planned: the stages.
        rate: from 0, below 1.
        population: how many items there are; None for very many.
    """
    model: Model = (
        Binomial(rate)
        if population is None
        else Hypergeometric(population, ceil(rate * population))
    )
    return chance_of_accepting(model, planned.n, planned.stages)[0]
