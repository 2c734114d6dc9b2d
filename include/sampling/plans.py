"""The plan of a population: how many items of which strata, how many deviations are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict

from include.policy.rates import ceiling
from include.sampling.exact.sizes import CENSUS, smallest_size
from include.sampling.exact.strata import (
    Allocation,
    smallest_stages,
    stratified_size,
    stratified_stages,
)
from include.sampling.frame import WHOLE
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


def plan_for(
    kind: PlanKind,
    tolerable: Fraction,
    expected: Fraction,
    confidence: Fraction,
    strata: Mapping[str, int],
    *,
    stratified: bool,
) -> Plan:
    """Plan the sample of a frozen frame.

    Where a stratum is too small for two stages, the plan is a single one of the same risk.

    Args:
        kind: as audit.yaml asks.
        tolerable: rate of deviations from which on the population is not accepted.
        expected: rate that is expected.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
        strata: items of each stratum; at least one item in all.
        stratified: whether every stratum has to give its share.

    Raises:
        UsageError: no sample can show what the population asks for.
    """
    if kind == "staged":
        try:
            return _staged(tolerable, confidence, strata, stratified)
        except UsageError:
            kind = "single"
    if stratified:
        size, allocation = stratified_size(tolerable, confidence, expected, strata)
    else:
        items = strata[WHOLE]
        size = smallest_size(tolerable, confidence, expected=expected, population=items)
        allocation = Allocation(strata, {WHOLE: size.n})
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


def _staged(
    tolerable: Fraction, confidence: Fraction, strata: Mapping[str, int], stratified: bool
) -> Plan:
    if stratified:
        staged, allocation = stratified_stages(tolerable, confidence, 2, strata)
        drawn = dict(allocation.drawn)
    else:
        staged = smallest_stages(tolerable, confidence, 2, strata[WHOLE])
        drawn = {WHOLE: staged.n}
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
