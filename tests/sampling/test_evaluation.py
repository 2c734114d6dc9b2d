"""A population is judged by the plan that was made before the draw, and by nothing else."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sampling import closing, signed_report
from include.sampling.commitment import Committed, PlanKind
from include.sampling.evaluation import Verdict, evaluate
from include.sampling.exact.sizes import upper_limit
from include.sampling.exact.strata import Allocation, stratified_limit
from include.sampling.workpapers.form import Answer
from include.services.errors import UsageError
from tests.sampling.drawn import answered, bad, committed, drawn_of

STRATA = {"east": 60, "north": 25, "west": 300}
EXPECTING = {"expected": "3%", "confidence": "90%"}


def judged(one: Committed, *deviating: int, stage: int = 1) -> Verdict:
    """The verdict when these items deviate."""
    sample = drawn_of(one)
    return evaluate(one, sample, answered(one, sample, bad(*deviating)), stage)


def test_an_item_deviates_once_however_many_of_its_attributes_do() -> None:
    """Each attribute is told, and counted by itself."""
    one = committed()
    sample = drawn_of(one)
    both = {"approved": Answer.DEVIATES, "bound": Answer.NOT_FOUND}
    verdict = evaluate(one, sample, answered(one, sample, {3: both}), 1)
    assert verdict.deviating == 1
    assert verdict.by_attribute == {"approved": 1, "bound": 1}
    assert [(it.number, it.attribute, it.answer) for it in verdict.deviations] == [
        (3, "approved", Answer.DEVIATES),
        (3, "bound", Answer.NOT_FOUND),
    ]
    assert {it.key for it in verdict.deviations} == {sample.items[2].key}


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
def test_what_was_not_found_or_not_answered_deviates(answer: Answer, deviates: bool) -> None:
    """What does not apply does not."""
    one = committed()
    sample = drawn_of(one)
    verdict = evaluate(one, sample, answered(one, sample, {1: {"bound": answer}}), 1)
    assert verdict.deviating == deviates
    assert verdict.decision == ("not_accepted" if deviates else "accepted")


def test_items_to_which_nothing_applies_deviate() -> None:
    """They were drawn and show nothing: an audit of nothing would accept everything."""
    one = committed()
    sample = drawn_of(one)
    nothing = dict.fromkeys(one.attributes, Answer.NOT_APPLICABLE)
    answers = answered(one, sample, {1: nothing, 2: nothing, 3: {"bound": Answer.NOT_APPLICABLE}})
    verdict = evaluate(one, sample, answers, 1)
    assert (verdict.decision, verdict.untested, verdict.deviating) == ("not_accepted", 2, 2)
    assert verdict.applied == dict.fromkeys(one.attributes, verdict.items - 2) | {
        "bound": verdict.items - 3
    }


@pytest.mark.parametrize("answer", Answer)
def test_an_answer_deviates_unless_it_is_met_or_beside_the_item(answer: Answer) -> None:
    """One that is added later deviates until somebody says otherwise; reports know its words."""
    assert answer.deviates is (answer not in (Answer.MET, Answer.NOT_APPLICABLE))
    if answer is not Answer.MET:
        assert answer in signed_report.ANSWERS
        assert answer in closing._ANSWERS


@pytest.mark.parametrize("strata", [500, {"east": 300, "west": 700}], ids=["whole", "strata"])
def test_what_is_not_accepted_in_stages_may_deviate_at_the_tolerable_rate(
    strata: dict[str, int] | int,
) -> None:
    """A deviation in each stage: the limit is that of the first one, and never below tolerable."""
    one = committed(strata=strata, plan="staged")
    first, again = judged(one, 1), judged(one, 1, one.plan.n + 1, stage=2)
    assert again.decision == "not_accepted"
    assert again.upper_limit == first.upper_limit
    assert Fraction(again.upper_limit) >= one.tolerable


def test_limits_of_two_stages_cover_as_often_as_they_say() -> None:
    """Whatever the rate, all ways together: the shown limit is below it with the risk at most."""
    one = committed(strata=120, tolerable="10%", confidence="90%", plan="staged")
    n, size = one.plan.n, one.items

    def chance(items: int, bad: int, k: int) -> Fraction:
        return Fraction(comb(bad, k) * comb(items - bad, n - k), comb(items, n))

    limits = {(k,): Fraction(judged(one, *range(1, k + 1)).upper_limit) for k in range(n + 1)}
    limits[1, 0] = Fraction(judged(one, 1, stage=2).upper_limit)
    limits[1, 1] = Fraction(judged(one, 1, n + 1, stage=2).upper_limit)
    for worse in range(1, size - n, 3):
        rate, missed = Fraction(worse, size), Fraction(0)
        for k in range(min(n, worse) + 1):
            ways = {(k,): chance(size, worse, k)}
            if k == 1:
                clean = chance(size - n, worse - 1, 0)
                ways = {(1, 0): ways[1,] * clean, (1, 1): ways[1,] * (1 - clean)}
            missed += sum(p for way, p in ways.items() if limits[way] < rate)
        assert missed <= 1 - one.confidence


def test_an_item_without_answers_is_no_met_one() -> None:
    """It cannot be judged."""
    one = committed()
    sample = drawn_of(one)
    answers = answered(one, sample)
    del answers["shares", 2]
    with pytest.raises(KeyError):
        evaluate(one, sample, answers, 1)


@pytest.mark.parametrize(
    ("one", "method"),
    [
        (committed(strata=400, **EXPECTING), "hypergeometric"),
        (committed(strata=STRATA, **EXPECTING), "binomial"),
        (committed(strata=15, expected="5%"), "census"),
    ],
    ids=["hypergeometric", "strata", "census"],
)
def test_as_many_as_the_plan_accepts_are_accepted_and_one_more_is_not(
    one: Committed, method: str
) -> None:
    """The limit is that of the same probabilities by which it was planned."""
    plan = one.plan
    assert (plan.method, plan.stages) == (method, 1)
    assert plan.acceptable > 0
    at, above = (
        judged(one, *range(1, deviating + 1))
        for deviating in (plan.acceptable, plan.acceptable + 1)
    )
    assert (at.decision, above.decision) == ("accepted", "not_accepted")
    assert Fraction(at.upper_limit) < one.tolerable <= Fraction(above.upper_limit)
    assert at.items == plan.n
    for verdict in (at, above):
        limit = (
            stratified_limit(Allocation(one.strata, plan.drawn), verdict.deviating, one.confidence)
            if one.stratified
            else upper_limit(plan.n, verdict.deviating, one.confidence, one.items)
        )
        assert Fraction(verdict.upper_limit) == Fraction(limit.rate)
    assert above.upper_limit_pct == f"{limit.rounded_up_pct:f}"


def test_discovery_does_not_accept_a_single_deviation() -> None:
    """Not even where all items were looked at and one of them would be tolerable."""
    for size in (15, 400):
        one = committed(strata=size, plan="discovery")
        assert judged(one).decision == "accepted"
        assert judged(one, 1).decision == "not_accepted"


@pytest.mark.parametrize("strata", [400, {"east": 300, "west": 700}], ids=["whole", "strata"])
def test_two_stages_accept_at_none_go_on_at_one_and_reject_at_more(
    strata: dict[str, int] | int,
) -> None:
    """In the second stage there has to be none; then the limit is below the tolerable rate."""
    one = committed(strata=strata, plan="staged")
    assert one.plan.stages == 2
    first = one.plan.n
    none, single, more = judged(one), judged(one, 1), judged(one, 1, 2)
    assert (none.decision, none.items, none.acceptable) == ("accepted", first, 0)
    assert single.decision == "next_stage"
    assert (more.decision, more.items) == ("not_accepted", first)
    after = judged(one, 1, stage=2)
    assert (after.decision, after.items) == ("accepted", 2 * first)
    assert after.deviating == after.acceptable == 1
    assert Fraction(none.upper_limit) < Fraction(after.upper_limit) < one.tolerable
    again = judged(one, 1, first + 1, stage=2)
    assert (again.decision, again.deviating) == ("not_accepted", 2)


def _accepts(population: int, deviating: int, n: int) -> Fraction:
    """The chance that two stages accept, counted by hand."""

    def chance(size: int, bad_ones: int, k: int) -> Fraction:
        return Fraction(comb(bad_ones, k) * comb(size - bad_ones, n - k), comb(size, n))

    one = chance(population, deviating, 1) if deviating else Fraction(0)
    rest = chance(population - n, deviating - 1, 0) if deviating else Fraction(0)
    return chance(population, deviating, 0) + one * rest


@settings(max_examples=30, deadline=None)
@given(
    st.integers(60, 500),
    st.sampled_from(["6%", "10%", "1/7"]),
    st.sampled_from(["50%", "80%", "95%"]),
)
def test_the_limit_of_two_stages_is_the_worst_that_is_not_excluded(
    items: int, tolerable: str, confidence: str
) -> None:
    """One deviating item more, and both stages would accept with at most the risk."""
    one = committed(strata=items, plan="staged", tolerable=tolerable, confidence=confidence)
    if one.plan.stages != 2:
        return
    limit = Fraction(judged(one, 1, stage=2).upper_limit)
    most = int(limit * items)
    assert limit - Fraction(most, items) < Fraction(1, 10**9)
    risk = 1 - one.confidence
    assert _accepts(items, most, one.plan.n) > risk >= _accepts(items, most + 1, one.plan.n)
    assert limit < one.tolerable


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=4),
    st.integers(0, 3),
    st.data(),
)
def test_the_estimate_weighs_strata_by_their_size(
    sizes: list[int], deviating: int, data: st.DataObject
) -> None:
    """As if every stratum had deviated throughout as its items did."""
    strata = {f"s{at}": size for at, size in enumerate(sizes)}
    one = committed(strata=strata, tolerable="20%", expected="5%", confidence="70%")
    sample = drawn_of(one)
    numbers = st.integers(1, len(sample.items))
    chosen = data.draw(st.sets(numbers, max_size=min(deviating, len(sample.items))))
    naive = 0.0
    for name, size in strata.items():
        of_it = [item for item in sample.items if item.stratum == name]
        share = sum(item.number in chosen for item in of_it) / len(of_it)
        naive += share * size / one.items
    verdict = evaluate(one, sample, answered(one, sample, bad(*chosen)), 1)
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
def test_what_is_accepted_is_shown_to_deviate_less_than_is_tolerable(
    plan: PlanKind,
    strata: dict[str, int] | int,
    tolerable: str,
    expected: str,
    confidence: str,
    data: st.DataObject,
) -> None:
    """Whatever the plan, and however few of the acceptable deviations there were."""
    try:
        one = committed(
            strata=strata,
            plan=plan,
            tolerable=tolerable,
            expected=expected if plan == "single" else "0",
            confidence=confidence,
        )
    except UsageError:  # nobody could look at as many
        return
    deviating = data.draw(st.integers(0, one.plan.acceptable))
    verdict = judged(one, *range(1, deviating + 1))
    assert verdict.decision == "accepted"
    if one.plan.stages == 2:
        after = judged(one, 1, stage=2)
        assert Fraction(after.upper_limit) <= Fraction(after.upper_limit_pct) / 100 < one.tolerable
    assert Fraction(verdict.upper_limit) <= Fraction(verdict.upper_limit_pct) / 100 < one.tolerable


def test_a_limit_just_below_the_tolerable_rate_is_told_with_as_many_digits_as_it_needs() -> None:
    """Nobody reads "at most 5.0%" where less than 5% is tolerable."""
    one = committed(strata=40_000, tolerable="5%", confidence="95%")
    verdict = judged(one)
    assert verdict.decision == "accepted"
    assert verdict.upper_limit_pct == "4.95"


def test_the_limit_of_strata_is_a_number_of_items() -> None:
    """Of 22 items two may deviate; at 10%, which is not tolerable, there would be three."""
    one = committed(strata={"east": 22}, expected="0.5%", confidence="50%")
    assert (one.plan.n, one.plan.acceptable) == (20, 1)
    assert Fraction(judged(one, 1).upper_limit) == Fraction("0.090909090910")


def test_few_deviations_at_low_confidence_have_a_limit_too() -> None:
    """Of strata, where the bound says nothing below a mean of one more than was found."""
    one = committed(
        strata={"east": 700, "west": 800}, tolerable="5%", expected="1%", confidence="55%"
    )
    assert one.plan.acceptable == 1
    assert judged(one, 1).upper_limit_pct == "4.9"


def _risk_of_strata(one: Committed, deviating: dict[str, int]) -> Fraction:
    """The chance that two stages accept, when the strata hold so many deviating items."""

    def none_or_one(sizes: dict[str, int], bad_ones: dict[str, int]) -> tuple[Fraction, dict]:  # type: ignore[type-arg]  # one line
        none, ones = Fraction(1), {}
        for name, size in sizes.items():
            none *= Fraction(comb(size - bad_ones[name], drawn[name]), comb(size, drawn[name]))
        for name in sizes:
            chance = Fraction(1)
            for other, size in sizes.items():
                k = int(other == name)
                of_it, n = bad_ones[other], drawn[other]
                chance *= Fraction(comb(of_it, k) * comb(size - of_it, n - k), comb(size, n))
            ones[name] = chance
        return none, ones

    drawn = one.plan.drawn
    none, ones = none_or_one(one.strata, deviating)
    left = {name: size - drawn[name] for name, size in one.strata.items()}
    total = none
    for name, chance in ones.items():
        if chance:
            rest = deviating | {name: deviating[name] - 1}
            total += chance * none_or_one(left, rest)[0]
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(15, 60), st.integers(15, 60), st.sampled_from(["50%", "60%", "80%"]))
def test_the_limit_of_stages_over_strata_overlooks_nothing_worse(
    east: int, west: int, confidence: str
) -> None:
    """Wherever the deviations lie: whatever is worse than the limit had at most the risk."""
    one = committed(
        strata={"east": east, "west": west}, plan="staged", tolerable="25%", confidence=confidence
    )
    if one.plan.stages != 2:
        return
    verdict = judged(one, 1, stage=2)
    worse = int(Fraction(verdict.upper_limit) * one.items) + 1
    for of_east in range(max(0, worse - west), min(worse, east) + 1):
        spread = {"east": of_east, "west": worse - of_east}
        assert _risk_of_strata(one, spread) <= 1 - one.confidence
    assert worse <= ceil(one.tolerable * one.items)
