"""The plan of a population: how many items of which strata, how many deviations are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict

from include.policy.audit import Population
from include.policy.rates import ceiling
from include.sampling.frame import WHOLE
from include.sampling.sizes import CENSUS, smallest_size
from include.sampling.stages import smallest_stages
from include.sampling.strata import Allocation, stratified_size, stratified_stages
from include.services.errors import UsageError

RISK_PLACES = 12  # digits after the point of a risk, rounded up
PlanKind = Literal["single", "staged", "discovery"]


class Plan(BaseModel):
    """What will be drawn, fixed before anybody knows the seed.

    Attributes:
        kind: ``single`` stage, two ``staged`` ones planned together, or ``discovery``.
        method: ``binomial``, ``hypergeometric`` or ``census``.
        stages: how many; a later one is looked at only if the one before had exactly one deviation.
        n: items of each stage.
        acceptable: deviations of the (first) stage with which the population is accepted.
        achieved_risk: of accepting at the tolerable rate, as a decimal, rounded up.
        drawn: items of each stage by stratum; one named ``""`` where there are none.
    """

    model_config = ConfigDict(frozen=True)

    kind: PlanKind
    method: str
    stages: int
    n: int
    acceptable: int
    achieved_risk: str
    drawn: dict[str, int]


def plan_for(population: Population, strata: Mapping[str, int]) -> Plan:
    """Plan the sample of a frozen frame.

    Where a stratum is too small for two stages, the plan is a single one of the same risk.

    Args:
        population: of audit.yaml.
        strata: items of each stratum; at least one item in all.

    Raises:
        UsageError: no sample can show what the population asks for.
    """
    if population.plan == "staged":
        try:
            return _staged(population, strata)
        except UsageError:
            return _single(population, strata, "single")
    return _single(population, strata, population.plan)


def _single(population: Population, strata: Mapping[str, int], kind: PlanKind) -> Plan:
    tolerable, confidence, expected = (
        population.tolerable,
        population.confidence,
        population.expected,
    )
    if population.strata is None:
        items = strata[WHOLE]
        size = smallest_size(tolerable, confidence, expected=expected, population=items)
        allocation = Allocation(strata, {WHOLE: size.n})
    else:
        size, allocation = stratified_size(tolerable, confidence, expected, strata)
    accepted = 0 if kind == "discovery" and size.method == CENSUS else size.acceptable
    return Plan(
        kind=kind,
        method=size.method,
        stages=1,
        n=size.n,
        acceptable=accepted,
        achieved_risk=_told(size.achieved_risk),
        drawn=dict(allocation.drawn),
    )


def _staged(population: Population, strata: Mapping[str, int]) -> Plan:
    tolerable, confidence = population.tolerable, population.confidence
    if population.strata is None:
        staged = smallest_stages(tolerable, confidence, 2, strata[WHOLE])
        drawn = {WHOLE: staged.n}
    else:
        staged, allocation = stratified_stages(tolerable, confidence, 2, strata)
        drawn = dict(allocation.drawn)
    return Plan(
        kind="staged",
        method=staged.method,
        stages=staged.stages,
        n=staged.n,
        acceptable=0,
        achieved_risk=_told(staged.achieved_risk),
        drawn=drawn,
    )


def _told(risk: Fraction) -> str:
    return f"{ceiling(risk, RISK_PLACES):f}"
