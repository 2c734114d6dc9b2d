"""Compute the verdict on a population: deviations, point estimate, upper limit, decision.

The sampling plan decides whether a population is accepted. The plan was made before the seed was
known, and fixes the acceptable number of deviations. An item counts as one deviation, even if
several of its attributes deviate. An item that was not found is a deviation, and so is an item with
a question that has no answer (AICPA Audit Guide *Audit Sampling*, attributes sampling).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Literal

from include.frozen import FrozenModel
from include.policy.rates import exact_text, round_up
from include.sampling.commitment import CommittedPopulation
from include.sampling.exact.sizes import PLACES, Limit, hypergeometric, smallest, upper_limit
from include.sampling.exact.strata import (
    Allocation,
    chance_of_accepting,
    chance_over_strata,
    stratified_limit,
)
from include.sampling.samples import Sample, SampleItem
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers

Decision = Literal["accepted", "not_accepted", "next_stage"]


class Deviation(FrozenModel):
    """An attribute that a sample item does not meet.

    Attributes:
        number: number of the item in the workpapers.
        key: id of the item in the population.
        stratum: stratum of the item.
        attribute: id of the attribute.
        answer: answer of the auditor.
        note: note of the auditor, in which mobile and ID numbers of customers are redacted.
    """

    number: int
    key: str
    stratum: str
    attribute: str
    answer: Answer
    note: str


class Verdict(FrozenModel):
    """The verdict on a population after one or more stages were evaluated.

    Attributes:
        population: id of the population.
        decision: ``accepted``, ``not_accepted``, or ``next_stage`` if the plan requires another
            stage.
        stage: last evaluated stage; the first stage is 1.
        items: number of sample items in all evaluated stages.
        deviating: number of these items that deviate.
        untested: number of items to which no question applies. These items prove nothing and
            therefore count as deviations.
        acceptable: largest number of deviations, in all evaluated stages together, with which the
            population is accepted. In a staged plan, this is ``stage - 1``: each earlier stage had
            exactly one deviation, and the last stage may have none.
        point_estimate: estimated deviation rate of the population, weighted by the sizes of the
            strata, as a decimal.
        upper_limit: one-sided upper limit of the deviation rate at the planned confidence, as a
            decimal, rounded up.
        upper_limit_pct: upper limit as a percentage, rounded up to a tenth. It has more digits if
            rounding to a tenth would reach the tolerable rate although the upper limit is below it.
        tolerable: tolerable rate. A population with this or a higher deviation rate is not
            accepted.
        confidence: confidence of the upper limit.
        deviations: all deviations of the evaluated stages.
        by_attribute: id of the attribute -> number of items that do not meet it.
        applied: id of the attribute -> number of items to which it applies.
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


def evaluate(
    committed: CommittedPopulation, sample: Sample, answers: Answers, stage: int
) -> Verdict:
    """Compute the verdict on a population from the auditors' answers.

    Args:
        committed: the population in the commitment.
        sample: the drawn sample.
        answers: (population, number of the item) -> answers, for all stages up to ``stage``.
        stage: last stage to evaluate; the first stage is 1.

    Raises:
        KeyError: an item of the evaluated stages has no answers.
    """
    examined = [item for item in sample.items if item.stage <= stage]
    deviations = [
        deviation
        for item in examined
        for deviation in _deviations(item, answers[committed.population, item.number])
    ]
    bad = {deviation.number for deviation in deviations}
    by_stage = [
        sum(item.number in bad for item in examined if item.stage == number)
        for number in range(1, stage + 1)
    ]
    decision = decide(committed, by_stage)
    limit = _limit(committed, examined, by_stage, decision)
    item_answers = [answers[committed.population, item.number] for item in examined]
    return Verdict(
        population=committed.population,
        decision=decision,
        stage=stage,
        items=len(examined),
        deviating=len(bad),
        untested=sum(map(_untested, item_answers)),
        acceptable=committed.plan.acceptable if committed.plan.stages == 1 else stage - 1,
        point_estimate=_as_decimal(_estimate(committed, examined, bad)),
        upper_limit=f"{limit.rate:f}",
        upper_limit_pct=_percent(limit, committed.tolerable),
        tolerable=exact_text(committed.tolerable),
        confidence=exact_text(committed.confidence),
        deviations=tuple(deviations),
        by_attribute={
            name: sum(deviation.attribute == name for deviation in deviations)
            for name in committed.attributes
        },
        applied={
            name: sum(
                answered.answers[name] is not Answer.NOT_APPLICABLE for answered in item_answers
            )
            for name in committed.attributes
        },
    )


def _deviations(item: SampleItem, item_answers: ItemAnswers) -> list[Deviation]:
    return [
        Deviation(
            number=item.number,
            key=item.key,
            stratum=item.stratum,
            attribute=name,
            answer=answer,
            note=item_answers.note,
        )
        for name, answer in item_answers.answers.items()
        if answer.deviates or _untested(item_answers)
    ]


def _untested(item_answers: ItemAnswers) -> bool:
    """Return whether the auditor answered *not applicable* to every question about an item."""
    return all(answer is Answer.NOT_APPLICABLE for answer in item_answers.answers.values())


def decide(committed: CommittedPopulation, by_stage: list[int]) -> Decision:
    """Return the decision of the sampling plan for the number of deviations in each stage.

    A plan with one stage accepts a population if the deviations do not exceed the acceptable
    number. In a staged plan, a stage without deviations accepts the population, exactly one
    deviation requires the next stage, and more deviations reject the population. In the last stage,
    one deviation rejects the population.

    Args:
        committed: the population in the commitment.
        by_stage: number of deviations in each evaluated stage.
    """
    plan = committed.plan
    if plan.stages == 1:
        return "accepted" if by_stage[0] <= plan.acceptable else "not_accepted"
    for number, deviations in enumerate(by_stage, 1):
        if deviations == 0:
            return "accepted"
        if deviations > 1 or number == plan.stages:
            return "not_accepted"
    return "next_stage"


def _estimate(
    committed: CommittedPopulation, examined: list[SampleItem], bad: set[int]
) -> Fraction:
    """Return the estimated deviation rate of the population, weighted by strata sizes.

    Args:
        committed: the population in the commitment.
        examined: the sample items of all evaluated stages.
        bad: numbers of the sample items that deviate.
    """
    rate = Fraction(0)
    for stratum, size in committed.strata.items():
        in_stratum = [item for item in examined if item.stratum == stratum]
        if in_stratum:
            deviations = sum(item.number in bad for item in in_stratum)
            rate += Fraction(size, committed.items) * Fraction(deviations, len(in_stratum))
    return rate


def _limit(
    committed: CommittedPopulation,
    examined: list[SampleItem],
    by_stage: list[int],
    decision: Decision,
) -> Limit:
    """Return the upper limit of the deviation rate at the planned confidence.

    If a staged plan did not accept the population, the upper limit is calculated from the first
    stage alone. The limit depends on the probability of the actual result and of all better
    results. Results are ordered first by the deviations in the first stage, then by those in later
    stages. Suppose a population is rejected after exactly one deviation in the first stage. Of all
    results with at most one deviation in that stage, this result is the worst, so the later stages
    do not matter. An upper limit from the items of all stages together would be too low.

    Args:
        committed: the population in the commitment.
        examined: the sample items of all evaluated stages.
        by_stage: number of deviations in each evaluated stage.
        decision: decision of the sampling plan on the population.
    """
    if len(by_stage) > 1 and decision == "accepted":
        return _staged_limit(committed, len(by_stage))
    first, confidence = by_stage[0], committed.confidence
    if committed.stratified:
        return stratified_limit(
            Allocation(committed.strata, committed.plan.drawn), first, confidence
        )
    drawn = sum(item.stage == 1 for item in examined)
    return upper_limit(drawn, first, confidence, committed.items)


def _staged_limit(committed: CommittedPopulation, stages: int) -> Limit:
    """Return the upper limit of the deviation rate of a population that a staged plan accepted.

    This is the largest deviation rate at which the plan accepts a population with a probability
    above the planned risk. At the tolerable rate, this probability is at most the planned risk.
    Therefore the upper limit is below the tolerable rate.

    Args:
        committed: the population in the commitment.
        stages: number of stages after which the plan accepted the population.
    """
    risk = 1 - committed.confidence
    excluded = smallest(
        lambda deviating: _chance(committed, deviating, stages) <= risk,
        0,
        ceil(committed.tolerable * committed.items),
    )
    rate = Fraction(excluded - 1, committed.items)
    rounded = (round_up(rate, 3) * 100).quantize(Decimal("0.1"))
    return Limit(round_up(rate, PLACES), rounded, committed.plan.method)


def _chance(committed: CommittedPopulation, deviating: int, stages: int) -> Fraction:
    """Return the probability that the sampling plan accepts a population.

    If the population has strata, the result is an upper bound of this probability.

    Args:
        committed: the population in the commitment.
        deviating: assumed number of deviating items in the population.
        stages: number of stages within which the population must be accepted.
    """
    plan = committed.plan
    if committed.stratified:
        return chance_over_strata(Allocation(committed.strata, plan.drawn), deviating, stages)
    return chance_of_accepting(hypergeometric(committed.items, deviating), plan.n, stages)


def _percent(limit: Limit, tolerable: Fraction) -> str:
    rate = Fraction(limit.rate)
    if rate < tolerable <= Fraction(limit.rounded_up_pct) / 100:
        percentages = (round_up(rate * 100, places) for places in range(2, PLACES - 1))
        return next(f"{percentage:f}" for percentage in percentages if percentage < tolerable * 100)
    return f"{limit.rounded_up_pct:f}"


def _as_decimal(rate: Fraction) -> str:
    return f"{round_up(rate, 6):f}"
