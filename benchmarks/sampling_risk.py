"""How often audit samples accept what they should not: by formula, and by drawing.

``python -m benchmarks.sampling_risk [--repetitions N]``. Populations that deviate at the tolerable
rate or above are drawn by the workflow's own sampler, 10,000 times each with other seeds, and
judged by its own rule. Seeds are fixed, so that every run gives the same figures. Exits
with 1 when a risk is above the stated one, or when drawing contradicts the formula.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from math import sqrt

from rich.table import Table

from benchmarks._measure import console, machine
from benchmarks._sampling_risk_cases import VERY_MANY, Case, Rates, cases, for_plan, plain_plan
from include.sampling.evaluation import decide
from include.sampling.exact.sizes import binomial
from include.sampling.exact.strata import chance_of_accepting
from include.sampling.frame import WHOLE
from include.sampling.samples import ordinals

REPETITIONS = 10_000
PROCESSES = 2
AUDIT = "2026Q3"
ABOVE = 3  # standard errors above the stated risk that chance alone may make
APART = 4  # standard errors between formula and drawing that chance alone may make
EXTENDED = Rates(Fraction(5, 100))
EXTENDED_ITEMS = 59
EXTENDED_TIMES = 10  # as many repetitions, or 5.6% could not be told from 5%


@dataclass(frozen=True)
class Found:
    """What a case came to.

    Attributes:
        case: that was drawn.
        repetitions: how often.
        accepted: how often the population was accepted.
    """

    case: Case
    repetitions: int
    accepted: int

    @property
    def simulated(self) -> float:
        """Share of the repetitions in which the population was accepted."""
        return self.accepted / self.repetitions

    @property
    def error(self) -> float:
        """The standard error of that share."""
        return sqrt(self.simulated * (1 - self.simulated) / self.repetitions)

    def faults(self) -> Iterator[str]:
        """Say what contradicts the plan's promise."""
        stated, exact = float(self.case.stated), float(self.case.exact)
        if self.case.exact > self.case.stated:
            yield "the exact risk is above the stated one"
        if self.simulated > stated + ABOVE * self.error:
            yield "the simulated risk is above the stated one"
        # If hardly any sample is accepted, a difference of one repetition proves nothing.
        spread = APART * sqrt(exact * (1 - exact) / self.repetitions) + 1 / self.repetitions
        if abs(self.simulated - exact) > spread:
            yield "drawing contradicts the formula"


def simulate(case: Case, repetitions: int) -> Found:
    """Draw samples of a population in which the first items of each stratum deviate.

    A fair sampler gives the same result for any choice of deviating items.
    """
    plan = case.committed.plan
    seeds = f"{case.title}, {case.placed}, {case.times}"
    accepted = 0
    for turn in range(repetitions):
        deviations = [0] * plan.stages
        drawn = ordinals(f"{seeds}, {turn}", AUDIT, case.committed)
        for stratum, (items, _rejected) in drawn.items():
            last, size = case.deviating[stratum], plan.drawn[stratum]
            for at, ordinal in enumerate(items):
                if ordinal <= last:
                    deviations[at // size] += 1
        accepted += decide(case.committed, deviations) == "accepted"
    return Found(case, repetitions, accepted)


def unplanned() -> Case:
    """59 items were planned, one deviates, and somebody wants to look at 59 more."""
    made = for_plan(plain_plan("staged", EXTENDED_ITEMS, 0, 2), EXTENDED, {WHOLE: VERY_MANY})
    return next(made)


def main() -> None:
    """Simulate, two rows at a time, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    given = parser.parse_args()
    console.print(f"{machine()}; {given.repetitions:,} repetitions a row")
    with ProcessPoolExecutor(PROCESSES) as pool:
        extended = pool.submit(simulate, unplanned(), given.repetitions * EXTENDED_TIMES)
        found = list(pool.map(partial(simulate, repetitions=given.repetitions), cases()))
        gone_on = extended.result()
    show("Accepting what should not be accepted", found)
    faults = list(chain.from_iterable(_told(one) for one in found))
    faults += show_unplanned(gone_on)
    for fault in faults:
        console.print(f"[red]MISS[/]  {fault}")
    if not faults:
        console.print(f"[green]pass[/]  {len(found)} risks are at most the stated ones")
    sys.exit(1 if faults else 0)


def show(title: str, found: Sequence[Found]) -> None:
    """Print the table."""
    table = Table(title=title, title_justify="left", box=None)
    for name in ("plan", "rate", "placed", "n", "accept", "stated", "exact", "simulated"):
        table.add_column(name, no_wrap=True)
    for one in found:
        case, plan = one.case, one.case.committed.plan
        table.add_row(
            case.title,
            f"x {float(case.times):g}",
            case.placed,
            f"{plan.n} + {plan.n}" if plan.stages > 1 else f"{plan.n}",
            "0, or 1 + 0" if plan.stages > 1 else f"{plan.acceptable}",
            f"{float(case.stated):.2%}",
            f"{float(case.exact):.3%}",
            f"{one.simulated:.2%} ± {one.error:.2%}",
        )
    console.print(table)


def show_unplanned(found: Found) -> list[str]:
    """Print what going on without a plan costs, and why it is refused."""
    tolerable = EXTENDED.tolerable
    alone, true = (
        chance_of_accepting(binomial(tolerable), EXTENDED_ITEMS, stages) for stages in (1, 2)
    )
    show("Going on without a plan", [found])
    console.print(
        f"{EXTENDED_ITEMS} items of which none may deviate have a risk of {float(alone):.3%}. Who "
        f"looks at {EXTENDED_ITEMS} more because one did has {float(true):.3%}, above the stated "
        f"{float(found.case.stated):.0%}: refused."
    )
    if true <= found.case.stated:
        return ["going on without a plan is no longer above the stated risk"]
    return []


def _told(found: Found) -> Iterator[str]:
    case = found.case
    for fault in found.faults():
        yield f"{case.title}, {case.placed or 'no strata'}, x {float(case.times):g}: {fault}"


if __name__ == "__main__":
    main()
