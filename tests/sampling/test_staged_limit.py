"""What two stages show together, held against SciPy."""

from __future__ import annotations

from fractions import Fraction

import pytest

from include.sampling.commitment import Committed, plan_for
from include.sampling.evaluation import evaluate
from include.sampling.samples import Drawn, Sample
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.reading import ItemAnswers

TOLERABLE, CONFIDENCE = Fraction(5, 100), Fraction(95, 100)


def accepts(items: int, deviating: int, n: int) -> float:
    """The chance of none in the first stage, or of one there and none in the second."""
    from scipy import stats  # a second of imports, which every worker would pay

    one = stats.hypergeom.pmf(1, items, deviating, n)
    none_after = stats.hypergeom.pmf(0, items - n, deviating - 1, n) if deviating else 0
    return float(stats.hypergeom.pmf(0, items, deviating, n) + one * none_after)


@pytest.mark.parametrize("items", [300, 336, 1000])
def test_the_limit_is_the_worst_population_that_is_not_excluded(items: int) -> None:
    """So a population that is accepted never has a limit at the tolerable rate or above it."""
    plan = plan_for("staged", TOLERABLE, Fraction(0), CONFIDENCE, {"": items}, stratified=False)
    committed = Committed(
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
        Drawn(
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
        ("intake", one.number): ItemAnswers(
            {"reviewed": Answer.DEVIATES if one.number == 1 else Answer.MET}, ""
        )
        for one in drawn
    }
    found = evaluate(committed, sample, answers, 2)
    assert (found.decision, found.deviating) == ("accepted", 1)
    worst = round(float(found.upper_limit) * items)
    assert worst / items < TOLERABLE
    assert accepts(items, worst, plan.n) > 1 - CONFIDENCE >= accepts(items, worst + 1, plan.n)
