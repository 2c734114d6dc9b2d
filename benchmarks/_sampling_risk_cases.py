"""Populations that should not be accepted, and the sampling plans that are applied to them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

from include.policy.rates import percent_text
from include.sampling.commitment import CommittedPopulation, Plan, PlanKind, plan_for
from include.sampling.exact.sizes import at_most, binomial, hypergeometric, smallest_size
from include.sampling.exact.strata import chance_of_accepting, smallest_stages
from include.sampling.frame import NO_STRATUM

VERY_MANY = 1_000_000_000  # items of a population whose size the plan does not use
# Deviation rates as multiples of the tolerable rate.
TIMES = (Fraction(1), Fraction(5, 4), Fraction(3, 2))
# Rounding up hardly changes two strata, so that the risk is close to the stated one.
TWO = (6000, 4000)
FOURTEEN = (5000, 2400, 1200, 600, 300, 150, 90, 80, 60, 40, 30, 25, 15, 10)
FOURTEEN_SMALL = (180, 90, 60, 45, 30, 25, 20, 15, 10, 8, 6, 5, 4, 2)


@dataclass(frozen=True)
class Rates:
    """The rates of a population in `audit.yaml`.

    Attributes:
        tolerable: tolerable deviation rate.
        expected: expected deviation rate.
        confidence: one minus the risk of accepting a population that deviates at the tolerable
            rate.
    """

    tolerable: Fraction
    expected: Fraction = Fraction(0)
    confidence: Fraction = Fraction(95, 100)


@dataclass(frozen=True)
class Case:
    """A sampling plan, and a population with too many deviations.

    Attributes:
        title: title of the plan.
        rates: rates for which the plan was made.
        committed: the population and the plan, as the workflow commits to them.
        known_size: whether the plan uses the number of items.
        times: deviation rate of the population as a multiple of the tolerable rate.
        placed: name of the placement of the deviations.
        deviating: number of deviating items in each stratum.
    """

    title: str
    rates: Rates
    committed: CommittedPopulation
    known_size: bool
    times: Fraction
    placed: str
    deviating: Mapping[str, int]

    @property
    def stated(self) -> Fraction:
        """The risk that the plan promises not to exceed."""
        return 1 - self.rates.confidence

    @property
    def exact(self) -> Fraction:
        """The exact probability that the plan accepts the population."""
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
            hypergeometric(self.committed.items, self.deviating[NO_STRATUM])
            if self.known_size
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
        """Return the probability that exactly k drawn items deviate."""
        if self.deviating > self.size:  # after an impossible first stage
            return Fraction(0)
        items = hypergeometric(self.size, self.deviating)
        return Fraction(items.exactly(self.drawn, k), items.sequences(self.drawn))

    def after(self, deviations: int) -> _Stratum:
        """Return the items that remain for the next stage.

        Args:
            deviations: number of deviating items drawn in the current stage.
        """
        return _Stratum(self.size - self.drawn, max(self.deviating - deviations, 0), self.drawn)


def _counts(strata: list[_Stratum], limit: int) -> list[Fraction]:
    """Return the probabilities of exactly 0, 1, ... ``limit`` deviations in all strata together.

    The strata are drawn independently.
    """
    total = [Fraction(1)] + [Fraction(0)] * limit
    for stratum in strata:
        chances = [stratum.chance(k) for k in range(limit + 1)]
        total = [
            sum((total[i] * chances[k - i] for i in range(k + 1)), Fraction(0))
            for k in range(limit + 1)
        ]
    return total


def _two_stages(strata: list[_Stratum]) -> Fraction:
    """Return the probability that a plan with two stages accepts the population.

    It accepts if the first stage has no deviation, or one deviation and the second stage none.
    """
    clean = [stratum.chance(0) for stratum in strata]
    accepted = prod(clean, start=Fraction(1))
    for i, stratum in enumerate(strata):
        others = [chance for j, chance in enumerate(clean) if j != i]
        second = [other.after(int(j == i)).chance(0) for j, other in enumerate(strata)]
        accepted += (
            stratum.chance(1) * prod(others, start=Fraction(1)) * prod(second, start=Fraction(1))
        )
    return accepted


def evenly(count: int, sizes: Mapping[str, int], _drawn: Mapping[str, int]) -> dict[str, int]:
    """Distribute deviations over the strata in proportion to their sizes.

    The remainder goes to the strata with the largest fractions.
    """
    population = sum(sizes.values())
    placed = {name: count * size // population for name, size in sizes.items()}
    order = sorted(sizes, key=lambda name: count * sizes[name] % population, reverse=True)
    for name in order[: count - sum(placed.values())]:
        placed[name] += 1
    return placed


def largest(count: int, sizes: Mapping[str, int], _drawn: Mapping[str, int]) -> dict[str, int]:
    """Put all deviations into the largest stratum, and the rest into the next largest ones."""
    return _fill(count, sizes, sorted(sizes, key=lambda name: -sizes[name]))


def smallest(count: int, sizes: Mapping[str, int], _drawn: Mapping[str, int]) -> dict[str, int]:
    """Put the deviations into the smallest stratum, and the rest into the next smallest ones."""
    return _fill(count, sizes, sorted(sizes, key=lambda name: sizes[name]))


def least_seen(count: int, sizes: Mapping[str, int], drawn: Mapping[str, int]) -> dict[str, int]:
    """Distribute deviations so that the probability of drawing none of them is highest.

    Each deviation goes to the stratum where its probability of being drawn after the others is
    lowest. The probability that none is drawn is a product over the strata. Each further deviation
    in a stratum lowers its factor by more than the previous one, so no other distribution hides
    them better.
    """
    placed = dict.fromkeys(sizes, 0)

    def draw_chance(name: str) -> Fraction:
        return Fraction(drawn[name], sizes[name] - placed[name])

    queue = [(draw_chance(name), name) for name in sizes]
    heapq.heapify(queue)
    for _deviation in range(count):
        _chance, name = heapq.heappop(queue)
        placed[name] += 1
        if placed[name] < sizes[name]:
            heapq.heappush(queue, (draw_chance(name), name))
    return placed


Placement = Callable[[int, Mapping[str, int], Mapping[str, int]], dict[str, int]]
PLACEMENTS: Mapping[str, Placement] = {
    "evenly": evenly,
    "largest": largest,
    "smallest": smallest,
    "least seen": least_seen,
}


def _fill(count: int, sizes: Mapping[str, int], order: list[str]) -> dict[str, int]:
    placed = dict.fromkeys(sizes, 0)
    for name in order:
        placed[name] = min(count - sum(placed.values()), sizes[name])
    return placed


def cases() -> Iterator[Case]:
    """Yield every plan with populations at the tolerable rate and above it."""
    five_percent, zero, one_percent = Fraction(5, 100), Fraction(0), Fraction(1, 100)
    for rates in (
        Rates(five_percent),
        Rates(five_percent, one_percent),
        Rates(Fraction(10, 100), Fraction(2, 100)),
        Rates(five_percent, zero, Fraction(90, 100)),
    ):
        yield from unknown_size_cases("single", rates)
    for items in (500, 2_000):
        for rates in (
            Rates(five_percent),
            Rates(five_percent, one_percent),
            Rates(Fraction(4, 100), one_percent),
        ):
            yield from known_size_cases("single", rates, {NO_STRATUM: items})
    for sizes in (TWO, FOURTEEN, FOURTEEN_SMALL):
        for rates in (Rates(five_percent), Rates(five_percent, one_percent)):
            yield from known_size_cases("single", rates, named_strata(sizes))
    yield from unknown_size_cases("staged", Rates(five_percent))
    for items in (500, 2_000):
        yield from known_size_cases("staged", Rates(five_percent), {NO_STRATUM: items})
    yield from known_size_cases("staged", Rates(five_percent), named_strata(TWO))
    yield from known_size_cases("staged", Rates(five_percent), named_strata(FOURTEEN))
    yield from known_size_cases("staged", Rates(Fraction(10, 100)), named_strata(FOURTEEN))


def named_strata(sizes: tuple[int, ...]) -> dict[str, int]:
    """Return the sizes of strata by generated names."""
    return {f"d{number:02}": size for number, size in enumerate(sizes, 1)}


def unknown_size_cases(kind: PlanKind, rates: Rates) -> Iterator[Case]:
    """Yield the cases of a plan for a population of unknown size."""
    if kind == "staged":
        stages = smallest_stages(rates.tolerable, rates.confidence, 2)
        n, acceptable, count = stages.n, 0, stages.stages
    else:
        size = smallest_size(rates.tolerable, rates.confidence, expected=rates.expected)
        n, acceptable, count = size.n, size.acceptable, 1
    yield from for_plan(plain_plan(kind, n, acceptable, count), rates, {NO_STRATUM: VERY_MANY})


def plain_plan(kind: PlanKind, n: int, acceptable: int, stages: int) -> Plan:
    """Return a plan for a population of unknown size with any sample size, even a wrong one."""
    return Plan(
        kind=kind,
        method="binomial",
        stages=stages,
        n=n,
        acceptable=acceptable,
        achieved_risk="",
        drawn={NO_STRATUM: n},
    )


def known_size_cases(kind: PlanKind, rates: Rates, strata: Mapping[str, int]) -> Iterator[Case]:
    """Yield the cases of the plan that the workflow makes for a frozen population."""
    stratified = NO_STRATUM not in strata
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
    """Yield the cases of a plan: every deviation rate and, with strata, every placement."""
    items = sum(strata.values())
    stratified = NO_STRATUM not in strata
    committed = CommittedPopulation(
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
    for name, place_deviations in PLACEMENTS.items() if stratified else (("", largest),):
        for times in TIMES:
            deviating = place_deviations(ceil(rates.tolerable * times * items), strata, plan.drawn)
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
    parts.append(percent_text(rates.tolerable))
    if rates.expected:
        parts.append(f"{percent_text(rates.expected)} expected")
    if rates.confidence != Rates.confidence:
        parts.append(f"{percent_text(rates.confidence)} confidence")
    return ", ".join(parts)
