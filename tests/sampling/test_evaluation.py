"""Tests of verdicts on populations: the sampling plan, made before the draw, decides."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling import closing, signed_report
from include.sampling.commitment import CommittedPopulation, PlanKind
from include.sampling.evaluation import Verdict, evaluate
from include.sampling.exact.sizes import upper_limit
from include.sampling.exact.strata import Allocation, stratified_limit
from include.sampling.workpapers.form import Answer
from include.services.errors import UsageError
from tests.sampling.draw_fixtures import (
    answers_for,
    committed_population,
    draw_sample,
    not_approved,
)

STRATA = {"east": 60, "north": 25, "west": 300}
EXPECTING = {"expected": "3%", "confidence": "90%"}


def judge_with(committed: CommittedPopulation, *deviating: int, stage: int = 1) -> Verdict:
    """Return the verdict on a population if the sample items with given numbers deviate.

    Args:
        committed: the population in the commitment.
        deviating: numbers of the items that deviate.
        stage: last stage to evaluate.
    """
    sample = draw_sample(committed)
    return evaluate(
        committed, sample, answers_for(committed, sample, not_approved(*deviating)), stage
    )


def test_item_with_two_deviating_answers_counts_as_one_deviation() -> None:
    """Each attribute that deviates is listed and counted separately."""
    committed = committed_population()
    sample = draw_sample(committed)
    deviating_answers = {"approved": Answer.DEVIATES, "bound": Answer.NOT_FOUND}
    verdict = evaluate(committed, sample, answers_for(committed, sample, {3: deviating_answers}), 1)
    assert verdict.deviating == 1
    assert verdict.by_attribute == {"approved": 1, "bound": 1}
    assert [
        (deviation.number, deviation.attribute, deviation.answer)
        for deviation in verdict.deviations
    ] == [
        (3, "approved", Answer.DEVIATES),
        (3, "bound", Answer.NOT_FOUND),
    ]
    assert {deviation.key for deviation in verdict.deviations} == {sample.items[2].key}


@pytest.mark.parametrize(
    ("answer", "deviates"),
    [
        (Answer.MET, False),
        (Answer.NOT_APPLICABLE, False),
        (Answer.DEVIATES, True),
        (Answer.NOT_FOUND, True),
        (Answer.MISSING, True),
    ],
)
def test_item_that_was_not_found_or_has_no_answer_is_deviation(
    answer: Answer, deviates: bool
) -> None:
    committed = committed_population()
    sample = draw_sample(committed)
    verdict = evaluate(committed, sample, answers_for(committed, sample, {1: {"bound": answer}}), 1)
    assert verdict.deviating == deviates
    assert verdict.decision == ("not_accepted" if deviates else "accepted")


def test_item_to_which_no_question_applies_is_deviation() -> None:
    """If such items were accepted, an audit that tests nothing would accept every population."""
    committed = committed_population()
    sample = draw_sample(committed)
    nothing = dict.fromkeys(committed.attributes, Answer.NOT_APPLICABLE)
    answers = answers_for(
        committed, sample, {1: nothing, 2: nothing, 3: {"bound": Answer.NOT_APPLICABLE}}
    )
    verdict = evaluate(committed, sample, answers, 1)
    assert (verdict.decision, verdict.untested, verdict.deviating) == ("not_accepted", 2, 2)
    assert verdict.applied == dict.fromkeys(committed.attributes, verdict.items - 2) | {
        "bound": verdict.items - 3
    }


@pytest.mark.parametrize("answer", Answer)
def test_every_answer_except_met_and_not_applicable_is_deviation(answer: Answer) -> None:
    """A new kind of answer is a deviation by default, and the reports need a text for it."""
    assert answer.deviates is (answer not in (Answer.MET, Answer.NOT_APPLICABLE))
    if answer is not Answer.MET:
        assert answer in signed_report.ANSWERS
        assert answer in closing._ANSWERS


@pytest.mark.parametrize("strata", [500, {"east": 300, "west": 700}], ids=["whole", "strata"])
def test_upper_limit_after_rejection_in_second_stage_is_calculated_from_first_stage(
    strata: dict[str, int] | int,
) -> None:
    """The upper limit of a rejected population is never below the tolerable rate."""
    committed = committed_population(strata=strata, plan="staged")
    first, second = (
        judge_with(committed, 1),
        judge_with(committed, 1, committed.plan.n + 1, stage=2),
    )
    assert second.decision == "not_accepted"
    assert second.upper_limit == first.upper_limit
    assert Fraction(second.upper_limit) >= committed.tolerable


def test_upper_limit_of_two_stages_is_below_true_rate_with_at_most_the_planned_risk() -> None:
    """The probability of an upper limit below the deviation rate is at most the planned risk."""
    committed = committed_population(strata=120, tolerable="10%", confidence="90%", plan="staged")
    n, size = committed.plan.n, committed.items

    def chance(items: int, not_approved: int, k: int) -> Fraction:
        return Fraction(comb(not_approved, k) * comb(items - not_approved, n - k), comb(items, n))

    limits = {
        (k,): Fraction(judge_with(committed, *range(1, k + 1)).upper_limit) for k in range(n + 1)
    }
    limits[1, 0] = Fraction(judge_with(committed, 1, stage=2).upper_limit)
    limits[1, 1] = Fraction(judge_with(committed, 1, n + 1, stage=2).upper_limit)
    for worse in range(1, size - n, 3):
        rate, missed = Fraction(worse, size), Fraction(0)
        for k in range(min(n, worse) + 1):
            ways = {(k,): chance(size, worse, k)}
            if k == 1:
                clean = chance(size - n, worse - 1, 0)
                ways = {(1, 0): ways[1,] * clean, (1, 1): ways[1,] * (1 - clean)}
            missed += sum(p for way, p in ways.items() if limits[way] < rate)
        assert missed <= 1 - committed.confidence


def test_evaluation_raises_key_error_if_an_item_has_no_answers() -> None:
    committed = committed_population()
    sample = draw_sample(committed)
    answers = answers_for(committed, sample)
    del answers["shares", 2]
    with pytest.raises(KeyError):
        evaluate(committed, sample, answers, 1)


@pytest.mark.parametrize(
    ("committed", "method"),
    [
        (committed_population(strata=400, **EXPECTING), "hypergeometric"),
        (committed_population(strata=STRATA, **EXPECTING), "binomial"),
        (committed_population(strata=15, expected="5%"), "census"),
    ],
    ids=["hypergeometric", "strata", "census"],
)
def test_population_is_accepted_with_acceptable_deviations_and_rejected_with_one_more(
    committed: CommittedPopulation, method: str
) -> None:
    """The upper limit is computed with the same probability distribution as the plan."""
    plan = committed.plan
    assert (plan.method, plan.stages) == (method, 1)
    assert plan.acceptable > 0
    at, above = (
        judge_with(committed, *range(1, deviating + 1))
        for deviating in (plan.acceptable, plan.acceptable + 1)
    )
    assert (at.decision, above.decision) == ("accepted", "not_accepted")
    assert Fraction(at.upper_limit) < committed.tolerable <= Fraction(above.upper_limit)
    assert at.items == plan.n
    for verdict in (at, above):
        limit = (
            stratified_limit(
                Allocation(committed.strata, plan.drawn), verdict.deviating, committed.confidence
            )
            if committed.stratified
            else upper_limit(plan.n, verdict.deviating, committed.confidence, committed.items)
        )
        assert Fraction(verdict.upper_limit) == Fraction(limit.rate)
    assert above.upper_limit_pct == f"{limit.rounded_up_pct:f}"


def test_discovery_plan_rejects_population_with_single_deviation() -> None:
    """A census is rejected too, even if its deviation rate is below the tolerable rate."""
    for size in (15, 400):
        committed = committed_population(strata=size, plan="discovery")
        assert judge_with(committed).decision == "accepted"
        assert judge_with(committed, 1).decision == "not_accepted"


@pytest.mark.parametrize("strata", [400, {"east": 300, "west": 700}], ids=["whole", "strata"])
def test_first_stage_accepts_after_0_continues_after_1_and_rejects_after_2_deviations(
    strata: dict[str, int] | int,
) -> None:
    """The second stage accepts the population only if it has no deviation."""
    committed = committed_population(strata=strata, plan="staged")
    assert committed.plan.stages == 2
    first = committed.plan.n
    clean, single, more = (
        judge_with(committed),
        judge_with(committed, 1),
        judge_with(committed, 1, 2),
    )
    assert (clean.decision, clean.items, clean.acceptable) == ("accepted", first, 0)
    assert single.decision == "next_stage"
    assert (more.decision, more.items) == ("not_accepted", first)
    after = judge_with(committed, 1, stage=2)
    assert (after.decision, after.items) == ("accepted", 2 * first)
    assert after.deviating == after.acceptable == 1
    assert Fraction(clean.upper_limit) < Fraction(after.upper_limit) < committed.tolerable
    second = judge_with(committed, 1, first + 1, stage=2)
    assert (second.decision, second.deviating) == ("not_accepted", 2)


def _accepts(population: int, deviating: int, n: int) -> Fraction:
    """Compute directly the probability that two stages accept a population.

    Args:
        population: number of items in the population.
        deviating: number of deviating items in the population.
        n: number of items in each stage.
    """

    def chance(size: int, bad_ones: int, k: int) -> Fraction:
        return Fraction(comb(bad_ones, k) * comb(size - bad_ones, n - k), comb(size, n))

    single = chance(population, deviating, 1) if deviating else Fraction(0)
    rest = chance(population - n, deviating - 1, 0) if deviating else Fraction(0)
    return chance(population, deviating, 0) + single * rest


@settings(max_examples=30, deadline=None)
@given(
    st.integers(60, 500),
    st.sampled_from(["6%", "10%", "1/7"]),
    st.sampled_from(["50%", "80%", "95%"]),
)
def test_upper_limit_of_two_stages_is_highest_rate_whose_chance_of_acceptance_exceeds_planned_risk(
    items: int, tolerable: str, confidence: str
) -> None:
    """If one more item deviates, two stages accept the population with at most the planned risk."""
    committed = committed_population(
        strata=items, plan="staged", tolerable=tolerable, confidence=confidence
    )
    if committed.plan.stages != 2:
        return
    limit = Fraction(judge_with(committed, 1, stage=2).upper_limit)
    most = int(limit * items)
    assert limit - Fraction(most, items) < Fraction(1, 10**9)
    risk = 1 - committed.confidence
    assert (
        _accepts(items, most, committed.plan.n)
        > risk
        >= _accepts(items, most + 1, committed.plan.n)
    )
    assert limit < committed.tolerable


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=4),
    st.integers(0, 3),
    st.data(),
)
def test_point_estimate_is_the_mean_of_strata_rates_weighted_by_strata_size(
    sizes: list[int], deviating: int, data: st.DataObject
) -> None:
    """The deviation rate of each stratum is estimated by the rate of its drawn items."""
    strata = {f"s{at}": size for at, size in enumerate(sizes)}
    committed = committed_population(
        strata=strata, tolerable="20%", expected="5%", confidence="70%"
    )
    sample = draw_sample(committed)
    numbers = st.integers(1, len(sample.items))
    chosen = data.draw(st.sets(numbers, max_size=min(deviating, len(sample.items))))
    naive = 0.0
    for name, size in strata.items():
        in_stratum = [item for item in sample.items if item.stratum == name]
        share = sum(item.number in chosen for item in in_stratum) / len(in_stratum)
        naive += share * size / committed.items
    verdict = evaluate(committed, sample, answers_for(committed, sample, not_approved(*chosen)), 1)
    assert naive - 1e-9 <= float(verdict.point_estimate) <= naive + 1.1e-6
    assert verdict.deviating == len(chosen)


KINDS: st.SearchStrategy[PlanKind] = st.sampled_from(["single", "staged", "discovery"])


@settings(max_examples=120, deadline=None)
@given(
    KINDS,
    st.one_of(
        st.integers(1, 3_000),
        st.lists(st.integers(1, 800), min_size=1, max_size=4).map(
            lambda sizes: {f"s{at}": size for at, size in enumerate(sizes)}
        ),
    ),
    st.sampled_from(["2%", "5%", "10%", "1/30", "25%"]),
    st.sampled_from(["0", "0.5%", "1%", "1.9%"]),
    st.sampled_from(["50%", "55%", "59%", "60%", "80%", "95%", "99%"]),
    st.data(),
)
def test_upper_limit_of_accepted_population_is_below_tolerable_rate(
    plan: PlanKind,
    strata: dict[str, int] | int,
    tolerable: str,
    expected: str,
    confidence: str,
    data: st.DataObject,
) -> None:
    """The test draws plans and acceptable numbers of deviations at random."""
    try:
        committed = committed_population(
            strata=strata,
            plan=plan,
            tolerable=tolerable,
            expected=expected if plan == "single" else "0",
            confidence=confidence,
        )
    except UsageError:  # the plan needs more items than people can test
        return
    deviating = data.draw(st.integers(0, committed.plan.acceptable))
    verdict = judge_with(committed, *range(1, deviating + 1))
    assert verdict.decision == "accepted"
    if committed.plan.stages == 2:
        after = judge_with(committed, 1, stage=2)
        assert (
            Fraction(after.upper_limit)
            <= Fraction(after.upper_limit_pct) / 100
            < committed.tolerable
        )
    assert (
        Fraction(verdict.upper_limit)
        <= Fraction(verdict.upper_limit_pct) / 100
        < committed.tolerable
    )


def test_upper_limit_just_below_tolerable_rate_of_5_percent_is_printed_as_4_95_percent() -> None:
    """A printed "5.0%" would not be below the tolerable rate of 5%, although the limit is."""
    committed = committed_population(strata=40_000, tolerable="5%", confidence="95%")
    verdict = judge_with(committed)
    assert verdict.decision == "accepted"
    assert verdict.upper_limit_pct == "4.95"


def test_upper_limit_for_strata_equals_a_whole_number_of_deviating_items() -> None:
    """Two of 22 items may deviate; at the tolerable rate of 10%, three items would deviate."""
    committed = committed_population(strata={"east": 22}, expected="0.5%", confidence="50%")
    assert (committed.plan.n, committed.plan.acceptable) == (20, 1)
    assert Fraction(judge_with(committed, 1).upper_limit) == Fraction("0.090909090910")


def test_upper_limit_for_strata_with_one_deviation_is_4_9_percent_at_55_percent_confidence() -> (
    None
):
    """Hoeffding's bound requires a mean of at least the number of deviations plus one."""
    committed = committed_population(
        strata={"east": 700, "west": 800}, tolerable="5%", expected="1%", confidence="55%"
    )
    assert committed.plan.acceptable == 1
    assert judge_with(committed, 1).upper_limit_pct == "4.9"


def _risk_of_strata(committed: CommittedPopulation, deviating: dict[str, int]) -> Fraction:
    """Return the probability that two stages accept a population with strata.

    Args:
        committed: the population.
        deviating: number of deviating items in each stratum.
    """

    def no_or_one_deviation(
        sizes: dict[str, int], bad_ones: dict[str, int]
    ) -> tuple[Fraction, dict]:  # type: ignore[type-arg]  # one line
        no_deviation, single = Fraction(1), {}
        for name, size in sizes.items():
            no_deviation *= Fraction(
                comb(size - bad_ones[name], drawn[name]), comb(size, drawn[name])
            )
        for name in sizes:
            chance = Fraction(1)
            for other, size in sizes.items():
                k = int(other == name)
                bad_count, n = bad_ones[other], drawn[other]
                chance *= Fraction(
                    comb(bad_count, k) * comb(size - bad_count, n - k), comb(size, n)
                )
            single[name] = chance
        return no_deviation, single

    drawn = committed.plan.drawn
    no_deviation, single = no_or_one_deviation(committed.strata, deviating)
    left = {name: size - drawn[name] for name, size in committed.strata.items()}
    total = no_deviation
    for name, chance in single.items():
        if chance:
            rest = deviating | {name: deviating[name] - 1}
            total += chance * no_or_one_deviation(left, rest)[0]
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(15, 60), st.integers(15, 60), st.sampled_from(["50%", "60%", "80%"]))
def test_upper_limit_of_two_stages_with_strata_is_below_true_rate_with_at_most_planned_risk(
    east: int, west: int, confidence: str
) -> None:
    """A population with a rate above the upper limit is accepted with at most the planned risk.

    This holds for any distribution of the deviating items over the strata.
    """
    committed = committed_population(
        strata={"east": east, "west": west}, plan="staged", tolerable="25%", confidence=confidence
    )
    if committed.plan.stages != 2:
        return
    verdict = judge_with(committed, 1, stage=2)
    worse = int(Fraction(verdict.upper_limit) * committed.items) + 1
    for of_east in range(max(0, worse - west), min(worse, east) + 1):
        spread = {"east": of_east, "west": worse - of_east}
        assert _risk_of_strata(committed, spread) <= 1 - committed.confidence
    assert worse <= ceil(committed.tolerable * committed.items)
