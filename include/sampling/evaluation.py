"""Compute the verdict on a population: deviations, point estimate, upper limit, decision.

The decision is the plan's, made before anybody knew the sample: no more deviations than it accepts.
An item deviates once, however many of its attributes do; what was not found or not answered
deviates too (AICPA Audit Guide *Audit Sampling*, attributes sampling).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Literal

from include.frozen import FrozenModel
from include.policy.rates import ceiling, exact
from include.sampling.commitment import Committed
from include.sampling.exact.sizes import PLACES, Limit, hypergeometric, smallest, upper_limit
from include.sampling.exact.strata import (
    Allocation,
    chance_of_accepting,
    chance_over_strata,
    stratified_limit,
)
from include.sampling.samples import Drawn, Sample
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers

Decision = Literal["accepted", "not_accepted", "next_stage"]


class Deviation(FrozenModel):
    """One attribute that one item does not meet.

    Attributes:
        number: of the item in the workpapers.
        key: the population's id of it.
        stratum: its stratum.
        attribute: id of the attribute.
        answer: what the auditor answered.
        note: the auditor's words, without customers' numbers.
    """

    number: int
    key: str
    stratum: str
    attribute: str
    answer: Answer
    note: str


class Verdict(FrozenModel):
    """The verdict on a population up to a stage.

    Attributes:
        population: its id.
        decision: ``accepted``, ``not_accepted``, or ``next_stage`` where the plan has one and needs
            it.
        stage: that was evaluated last.
        items: looked at in all stages.
        deviating: items that deviate.
        untested: items to which no question applies: they show nothing, so that they deviate.
        acceptable: deviations with which the plan accepts at this stage; of stages, one in each
            before it.
        point_estimate: of the rate in the population, weighted by strata, as a decimal.
        upper_limit: one-sided, at the planned confidence, as a decimal; rounded up.
        upper_limit_pct: in per cent, rounded up to a tenth; to more digits where a tenth would say
            that it is not below the tolerable rate, and it is.
        tolerable: rate that is not accepted.
        confidence: of the upper limit.
        deviations: one by one.
        by_attribute: items that do not meet an attribute, by its id.
        applied: items to which an attribute applies, by its id.
    """

    population: str
    decision: Decision
    stage: int
    items: int
    deviating: int
    untested: int
    acceptable: int
    point_estimate: str
    upper_limit: str
    upper_limit_pct: str
    tolerable: str
    confidence: str
    deviations: tuple[Deviation, ...]
    by_attribute: dict[str, int]
    applied: dict[str, int]


Answers = Mapping[tuple[str, int], ItemAnswers]


def evaluate(committed: Committed, sample: Sample, answers: Answers, stage: int) -> Verdict:
    """Judge a population by what the auditors answered.

    Args:
        committed: of the commitment.
        sample: that was drawn.
        answers: by population and number of the item, of all stages so far.
        stage: up to which they were looked at, from 1.

    Raises:
        KeyError: an item of those stages has no answers.
    """
    looked_at = [item for item in sample.items if item.stage <= stage]
    deviations = [
        deviation
        for item in looked_at
        for deviation in _deviations(item, answers[committed.population, item.number])
    ]
    bad = {deviation.number for deviation in deviations}
    by_stage = [
        sum(item.number in bad for item in looked_at if item.stage == number)
        for number in range(1, stage + 1)
    ]
    decision = decide(committed, by_stage)
    limit = _limit(committed, looked_at, by_stage, decision)
    found = [answers[committed.population, item.number] for item in looked_at]
    return Verdict(
        population=committed.population,
        decision=decision,
        stage=stage,
        items=len(looked_at),
        deviating=len(bad),
        untested=sum(map(_untested, found)),
        acceptable=committed.plan.acceptable if committed.plan.stages == 1 else stage - 1,
        point_estimate=_told(_estimate(committed, looked_at, bad)),
        upper_limit=f"{limit.rate:f}",
        upper_limit_pct=_percent(limit, committed.tolerable),
        tolerable=exact(committed.tolerable),
        confidence=exact(committed.confidence),
        deviations=tuple(deviations),
        by_attribute={
            name: sum(deviation.attribute == name for deviation in deviations)
            for name in committed.attributes
        },
        applied={
            name: sum(answered.answers[name] is not Answer.NOT_APPLICABLE for answered in found)
            for name in committed.attributes
        },
    )


def _deviations(item: Drawn, found: ItemAnswers) -> list[Deviation]:
    return [
        Deviation(
            number=item.number,
            key=item.key,
            stratum=item.stratum,
            attribute=name,
            answer=answer,
            note=found.note,
        )
        for name, answer in found.answers.items()
        if answer.deviates or _untested(found)
    ]


def _untested(found: ItemAnswers) -> bool:
    """Return whether no question applies to an item; it was drawn, and shows nothing."""
    return all(answer is Answer.NOT_APPLICABLE for answer in found.answers.values())


def decide(committed: Committed, by_stage: list[int]) -> Decision:
    """The plan's rule: of a stage, none accepts; exactly one goes on; in the last one rejects."""
    plan = committed.plan
    if plan.stages == 1:
        return "accepted" if by_stage[0] <= plan.acceptable else "not_accepted"
    for number, found in enumerate(by_stage, 1):
        if found == 0:
            return "accepted"
        if found > 1 or number == plan.stages:
            return "not_accepted"
    return "next_stage"


def _estimate(committed: Committed, looked_at: list[Drawn], bad: set[int]) -> Fraction:
    """The rate in the population: of each stratum, weighted by its size."""
    rate = Fraction(0)
    for stratum, size in committed.strata.items():
        of_it = [item for item in looked_at if item.stratum == stratum]
        if of_it:
            found = sum(item.number in bad for item in of_it)
            rate += Fraction(size, committed.items) * Fraction(found, len(of_it))
    return rate


def _limit(
    committed: Committed, looked_at: list[Drawn], by_stage: list[int], decision: Decision
) -> Limit:
    """The upper limit at the planned confidence, whatever way the stages went.

    Of what was not accepted in stages it is that of the first one. Outcomes are ordered by what
    that stage held, then by the later ones: "no worse than one deviation, then another" is just "at
    most one in the first stage". All items together would promise too much.
    """
    if len(by_stage) > 1 and decision == "accepted":
        return _staged_limit(committed, len(by_stage))
    first, confidence = by_stage[0], committed.confidence
    if committed.stratified:
        return stratified_limit(
            Allocation(committed.strata, committed.plan.drawn), first, confidence
        )
    drawn = sum(item.stage == 1 for item in looked_at)
    return upper_limit(drawn, first, confidence, committed.items)


def _staged_limit(committed: Committed, stages: int) -> Limit:
    """The largest rate at which the plan would accept by this stage with more than the risk.

    At the tolerable rate it does with at most the risk, so that the limit is below it.
    """
    risk = 1 - committed.confidence
    excluded = smallest(
        lambda deviating: _chance(committed, deviating, stages) <= risk,
        0,
        ceil(committed.tolerable * committed.items),
    )
    rate = Fraction(excluded - 1, committed.items)
    rounded = (ceiling(rate, 3) * 100).quantize(Decimal("0.1"))
    return Limit(ceiling(rate, PLACES), rounded, committed.plan.method)


def _chance(committed: Committed, deviating: int, stages: int) -> Fraction:
    """Bound the chance of being accepted with so many deviating items."""
    plan = committed.plan
    if committed.stratified:
        return chance_over_strata(Allocation(committed.strata, plan.drawn), deviating, stages)
    return chance_of_accepting(hypergeometric(committed.items, deviating), plan.n, stages)


def _percent(limit: Limit, tolerable: Fraction) -> str:
    rate = Fraction(limit.rate)
    if rate < tolerable <= Fraction(limit.rounded_up_pct) / 100:
        told = (ceiling(rate * 100, places) for places in range(2, PLACES - 1))
        return next(f"{one:f}" for one in told if one < tolerable * 100)
    return f"{limit.rounded_up_pct:f}"


def _told(rate: Fraction) -> str:
    return f"{ceiling(rate, 6):f}"
