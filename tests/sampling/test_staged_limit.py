"""Tests that compare the upper limit of two stages with SciPy."""

from __future__ import annotations

from fractions import Fraction

import pytest

from include.sampling.commitment import CommittedPopulation, plan_for
from include.sampling.evaluation import evaluate
from include.sampling.samples import Sample, SampleItem
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers

TOLERABLE, CONFIDENCE = Fraction(5, 100), Fraction(95, 100)


def accepts(items: int, deviating: int, n: int) -> float:
    """Return the probability that two stages accept a population.

    They accept if the first stage has no deviation, or if it has one and the second stage has none.
    """
    from scipy import stats  # imported here, because the import takes a second

    one_deviation = stats.hypergeom.pmf(1, items, deviating, n)
    none_after = stats.hypergeom.pmf(0, items - n, deviating - 1, n) if deviating else 0
    return float(stats.hypergeom.pmf(0, items, deviating, n) + one_deviation * none_after)


@pytest.mark.parametrize("items", [300, 336, 1000])
def test_upper_limit_of_two_stages_equals_the_limit_that_scipy_computes(
    items: int,
) -> None:
    """The limit of an accepted population is always below the tolerable rate."""
    plan = plan_for("staged", TOLERABLE, Fraction(0), CONFIDENCE, {"": items}, stratified=False)
    committed = CommittedPopulation(
        population="intake",
        file="frames/intake.tsv",
        sha256="ab" * 32,
        items=items,
        strata={"": items},
        stratified=False,
        tolerable=TOLERABLE,
        expected=Fraction(0),
        confidence=CONFIDENCE,
        planned_as="staged",
        plan=plan,
        attributes=("reviewed",),
    )
    drawn = tuple(
        SampleItem(
            number=number,
            stage=1 + (number > plan.n),
            line=number,
            ordinal=number,
            key=str(number),
            stratum="",
        )
        for number in range(1, 2 * plan.n + 1)
    )
    sample = Sample(
        audit="2026Q3", population="intake", frame_sha256="ab" * 32, items=drawn, rejected={}
    )
    answers = {
        ("intake", item.number): ItemAnswers(
            {"reviewed": Answer.DEVIATES if item.number == 1 else Answer.MET}, ""
        )
        for item in drawn
    }
    verdict = evaluate(committed, sample, answers, 2)
    assert (verdict.decision, verdict.deviating) == ("accepted", 1)
    worst = round(float(verdict.upper_limit) * items)
    assert worst / items < TOLERABLE
    assert accepts(items, worst, plan.n) > 1 - CONFIDENCE >= accepts(items, worst + 1, plan.n)
