"""Populations that should not be accepted, and the plans that look at them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

from include.policy.rates import percent
from include.sampling.commitment import Committed, Plan, PlanKind, plan_for
from include.sampling.exact.sizes import at_most, binomial, hypergeometric, smallest_size
from include.sampling.exact.strata import chance_of_accepting, smallest_stages
from include.sampling.frame import WHOLE

VERY_MANY = 1_000_000_000  # items of a population whose size the plan does not know
TIMES = (Fraction(1), Fraction(5, 4), Fraction(3, 2))  # of the tolerable rate
# Two strata lose hardly anything by rounding up, so that the risk comes near to the stated one.
TWO = (6000, 4000)
FOURTEEN = (5000, 2400, 1200, 600, 300, 150, 90, 80, 60, 40, 30, 25, 15, 10)
FOURTEEN_SMALL = (180, 90, 60, 45, 30, 25, 20, 15, 10, 8, 6, 5, 4, 2)


@dataclass(frozen=True)
class Rates:
    """What a population of audit.yaml says.

    Attributes:
        tolerable: rate of deviations from which on it is not accepted.
        expected: rate that is expected.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
    """

    tolerable: Fraction
    expected: Fraction = Fraction(0)
    confidence: Fraction = Fraction(95, 100)


@dataclass(frozen=True)
class Case:
    """A plan that looks at a population with too many deviations.

    Attributes:
        title: of the plan.
        rates: that it was planned with.
        committed: what is drawn from and how, as the workflow commits to it.
        known: whether the plan knows how many items there are.
        times: how many times the tolerable rate deviates.
        placed: where the deviations are, for people.
        deviating: how many deviate in each stratum.
    """

    title: str
    rates: Rates
    committed: Committed
    known: bool
    times: Fraction
    placed: str
    deviating: Mapping[str, int]

    @property
    def stated(self) -> Fraction:
        """The risk that the plan promises to keep."""
        return 1 - self.rates.confidence

    @property
    def exact(self) -> Fraction:
        """The chance that the plan accepts the population, by formula."""
        plan = self.committed.plan
        if self.committed.stratified:
            strata = [
                _Stratum(size, self.deviating[name], plan.drawn[name])
                for name, size in self.committed.strata.items()
            ]
            if plan.kind == "staged":
                return _two_stages(strata)
            return sum(_counts(strata, plan.acceptable), Fraction(0))
        items = (
            hypergeometric(self.committed.items, self.deviating[WHOLE])
            if self.known
            else binomial(self.rates.tolerable * self.times)
        )
        if plan.kind == "staged":
            return chance_of_accepting(items, plan.n, plan.stages)
        return at_most(items, plan.n, plan.acceptable)


@dataclass(frozen=True)
class _Stratum:
    size: int
    deviating: int
    drawn: int

    def chance(self, k: int) -> Fraction:
        """P(exactly k of those that are drawn deviate)."""
        if self.deviating > self.size:  # after a stage that cannot happen
            return Fraction(0)
        items = hypergeometric(self.size, self.deviating)
        return Fraction(items.exactly(self.drawn, k), items.sequences(self.drawn))

    def after(self, found: int) -> _Stratum:
        """What is left for the next stage."""
        return _Stratum(self.size - self.drawn, max(self.deviating - found, 0), self.drawn)


def _counts(strata: list[_Stratum], most: int) -> list[Fraction]:
    """P(exactly 0, 1, ... ``most`` deviations) in all strata, which are drawn independently."""
    total = [Fraction(1)] + [Fraction(0)] * most
    for one in strata:
        chances = [one.chance(k) for k in range(most + 1)]
        total = [
            sum((total[at] * chances[k - at] for at in range(k + 1)), Fraction(0))
            for k in range(most + 1)
        ]
    return total


def _two_stages(strata: list[_Stratum]) -> Fraction:
    """P(none) and P(one, in whichever stratum, and none in the second stage)."""
    none = [one.chance(0) for one in strata]
    accepted = prod(none, start=Fraction(1))
    for at, one in enumerate(strata):
        others = [chance for place, chance in enumerate(none) if place != at]
        second = [other.after(int(place == at)).chance(0) for place, other in enumerate(strata)]
        accepted += (
            one.chance(1) * prod(others, start=Fraction(1)) * prod(second, start=Fraction(1))
        )
    return accepted


def evenly(count: int, sizes: Mapping[str, int], _drawn: Mapping[str, int]) -> dict[str, int]:
    """Place deviations in proportion; what is left over by the largest fractions."""
    population = sum(sizes.values())
    placed = {name: count * size // population for name, size in sizes.items()}
    left = sorted(sizes, key=lambda name: count * sizes[name] % population, reverse=True)
    for name in left[: count - sum(placed.values())]:
        placed[name] += 1
    return placed


def largest(count: int, sizes: Mapping[str, int], _drawn: Mapping[str, int]) -> dict[str, int]:
    """Place all in the largest stratum; what it cannot hold in the next."""
    return _filled(count, sizes, sorted(sizes, key=lambda name: -sizes[name]))


def smallest(count: int, sizes: Mapping[str, int], _drawn: Mapping[str, int]) -> dict[str, int]:
    """Fill the smallest strata one by one."""
    return _filled(count, sizes, sorted(sizes, key=lambda name: sizes[name]))


def least_seen(count: int, sizes: Mapping[str, int], drawn: Mapping[str, int]) -> dict[str, int]:
    """Place each where it is least likely to be drawn after those before it.

    The chance that none is drawn is a product over the strata, and each one more in a stratum
    lowers its factor by more than the one before: so no placement hides them all better.
    """
    placed = dict.fromkeys(sizes, 0)

    def seen(name: str) -> Fraction:
        return Fraction(drawn[name], sizes[name] - placed[name])

    waiting = [(seen(name), name) for name in sizes]
    heapq.heapify(waiting)
    for _one in range(count):
        _chance, name = heapq.heappop(waiting)
        placed[name] += 1
        if placed[name] < sizes[name]:
            heapq.heappush(waiting, (seen(name), name))
    return placed


Placing = Callable[[int, Mapping[str, int], Mapping[str, int]], dict[str, int]]
PLACINGS: Mapping[str, Placing] = {
    "evenly": evenly,
    "largest": largest,
    "smallest": smallest,
    "least seen": least_seen,
}


def _filled(count: int, sizes: Mapping[str, int], order: list[str]) -> dict[str, int]:
    placed = dict.fromkeys(sizes, 0)
    for name in order:
        placed[name] = min(count - sum(placed.values()), sizes[name])
    return placed


def cases() -> Iterator[Case]:
    """Every plan at the tolerable rate and above it."""
    five, none, one = Fraction(5, 100), Fraction(0), Fraction(1, 100)
    for rates in (
        Rates(five),
        Rates(five, one),
        Rates(Fraction(10, 100), Fraction(2, 100)),
        Rates(five, none, Fraction(90, 100)),
    ):
        yield from unknown("single", rates)
    for items in (500, 2_000):
        for rates in (Rates(five), Rates(five, one), Rates(Fraction(4, 100), one)):
            yield from known("single", rates, {WHOLE: items})
    for sizes in (TWO, FOURTEEN, FOURTEEN_SMALL):
        for rates in (Rates(five), Rates(five, one)):
            yield from known("single", rates, named(sizes))
    yield from unknown("staged", Rates(five))
    for items in (500, 2_000):
        yield from known("staged", Rates(five), {WHOLE: items})
    yield from known("staged", Rates(five), named(TWO))
    yield from known("staged", Rates(five), named(FOURTEEN))
    yield from known("staged", Rates(Fraction(10, 100)), named(FOURTEEN))


def named(sizes: tuple[int, ...]) -> dict[str, int]:
    """Strata with names, in the order of their names."""
    return {f"d{at:02}": size for at, size in enumerate(sizes, 1)}


def unknown(kind: PlanKind, rates: Rates) -> Iterator[Case]:
    """A plan that does not know how many items there are."""
    if kind == "staged":
        stages = smallest_stages(rates.tolerable, rates.confidence, 2)
        n, acceptable, count = stages.n, 0, stages.stages
    else:
        size = smallest_size(rates.tolerable, rates.confidence, expected=rates.expected)
        n, acceptable, count = size.n, size.acceptable, 1
    yield from for_plan(plain_plan(kind, n, acceptable, count), rates, {WHOLE: VERY_MANY})


def plain_plan(kind: PlanKind, n: int, acceptable: int, stages: int) -> Plan:
    """A plan of so many items, right or wrong, for a population of unknown size."""
    return Plan(
        kind=kind,
        method="binomial",
        stages=stages,
        n=n,
        acceptable=acceptable,
        achieved_risk="",
        drawn={WHOLE: n},
    )


def known(kind: PlanKind, rates: Rates, strata: Mapping[str, int]) -> Iterator[Case]:
    """The workflow's own plan for a frozen frame."""
    stratified = WHOLE not in strata
    plan = plan_for(
        kind,
        rates.tolerable,
        rates.expected,
        rates.confidence,
        strata,
        stratified=stratified,
    )
    if plan.kind != kind:
        raise ValueError(f"the strata are too small for a plan in {kind} form")
    yield from for_plan(plan, rates, strata)


def for_plan(plan: Plan, rates: Rates, strata: Mapping[str, int]) -> Iterator[Case]:
    """A plan at every rate and, where there are strata, with every placement."""
    items = sum(strata.values())
    stratified = WHOLE not in strata
    committed = Committed(
        population="risk",
        file="",
        sha256="",
        items=items,
        strata=dict(strata),
        stratified=stratified,
        tolerable=rates.tolerable,
        expected=rates.expected,
        confidence=rates.confidence,
        planned_as=plan.kind,
        plan=plan,
        attributes=(),
    )
    for name, place in PLACINGS.items() if stratified else (("", largest),):
        for times in TIMES:
            deviating = place(ceil(rates.tolerable * times * items), strata, plan.drawn)
            yield Case(
                _title(plan, rates, strata),
                rates,
                committed,
                items != VERY_MANY,
                times,
                name,
                deviating,
            )


def _title(plan: Plan, rates: Rates, strata: Mapping[str, int]) -> str:
    items = sum(strata.values())
    kind = "two stages" if plan.kind == "staged" else "single"
    parts = [f"{kind}, {'very many' if items == VERY_MANY else f'N {items:,}'}"]
    if len(strata) > 1:
        parts.append(f"{len(strata)} strata")
    parts.append(percent(rates.tolerable))
    if rates.expected:
        parts.append(f"{percent(rates.expected)} expected")
    if rates.confidence != Rates.confidence:
        parts.append(f"{percent(rates.confidence)} confidence")
    return ", ".join(parts)
