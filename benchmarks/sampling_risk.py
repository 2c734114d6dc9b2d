"""Compute how often audit samples accept bad populations, by formula and by simulation.

``python -m benchmarks.sampling_risk [--repetitions N]``. The populations deviate at the tolerable
rate or above it. The workflow's sampler draws 10,000 samples of each with different seeds, and the
workflow's decision rule evaluates them. The seeds are fixed, so every run gives the same figures.
The program exits with 1 if a risk is above the stated risk, or if the simulation contradicts the
formula.
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
from include.sampling.frame import NO_STRATUM
from include.sampling.samples import ordinals

REPETITIONS = 10_000
PROCESSES = 2
AUDIT = "2026Q3"
ABOVE = 3  # standard errors above the stated risk that are possible by chance
APART = 4  # standard errors between formula and simulation that are possible by chance
EXTENDED = Rates(Fraction(5, 100))
EXTENDED_ITEMS = 59
EXTENDED_TIMES = 10  # factor for repetitions, so that 5.6% differs significantly from 5%


@dataclass(frozen=True)
class SimulationResult:
    """The result of simulating a case.

    Attributes:
        case: the simulated case.
        repetitions: number of drawn samples.
        accepted: number of samples by which the population was accepted.
    """

    case: Case
    repetitions: int
    accepted: int

    @property
    def simulated(self) -> float:
        """The fraction of the samples by which the population was accepted."""
        return self.accepted / self.repetitions

    @property
    def error(self) -> float:
        """The standard error of the simulated fraction."""
        return sqrt(self.simulated * (1 - self.simulated) / self.repetitions)

    def faults(self) -> Iterator[str]:
        """Yield a text for each contradiction to the stated risk or to the formula."""
        stated, exact = float(self.case.stated), float(self.case.exact)
        if self.case.exact > self.case.stated:
            yield "the exact risk is above the stated one"
        if self.simulated > stated + ABOVE * self.error:
            yield "the simulated risk is above the stated one"
        # If hardly any sample is accepted, a difference of one repetition proves nothing.
        spread = APART * sqrt(exact * (1 - exact) / self.repetitions) + 1 / self.repetitions
        if abs(self.simulated - exact) > spread:
            yield "drawing contradicts the formula"


def simulate(case: Case, repetitions: int) -> SimulationResult:
    """Draw samples of a population in which the first items of each stratum deviate.

    A fair sampler gives the same result whichever items deviate.
    """
    plan = case.committed.plan
    seed = f"{case.title}, {case.placed}, {case.times}"
    accepted = 0
    for turn in range(repetitions):
        deviations = [0] * plan.stages
        drawn = ordinals(f"{seed}, {turn}", AUDIT, case.committed)
        for stratum, (items, _rejected) in drawn.items():
            last, size = case.deviating[stratum], plan.drawn[stratum]
            for index, ordinal in enumerate(items):
                if ordinal <= last:
                    deviations[index // size] += 1
        accepted += decide(case.committed, deviations) == "accepted"
    return SimulationResult(case, repetitions, accepted)


def unplanned() -> Case:
    """Return the case of a second stage that was not planned.

    After one of 59 planned items deviated, 59 more items are drawn.
    """
    plan = plain_plan("staged", EXTENDED_ITEMS, 0, 2)
    return next(for_plan(plan, EXTENDED, {NO_STRATUM: VERY_MANY}))


def main() -> None:
    """Simulate all cases in several processes, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    args = parser.parse_args()
    console.print(f"{machine()}; {args.repetitions:,} repetitions a row")
    with ProcessPoolExecutor(PROCESSES) as pool:
        extended = pool.submit(simulate, unplanned(), args.repetitions * EXTENDED_TIMES)
        results = list(pool.map(partial(simulate, repetitions=args.repetitions), cases()))
        extended_result = extended.result()
    show("Accepting what should not be accepted", results)
    faults = list(chain.from_iterable(_faults(result) for result in results))
    faults += show_unplanned(extended_result)
    for fault in faults:
        console.print(f"[red]MISS[/]  {fault}")
    if not faults:
        console.print(f"[green]pass[/]  {len(results)} risks are at most the stated ones")
    sys.exit(1 if faults else 0)


def show(title: str, results: Sequence[SimulationResult]) -> None:
    """Print a table of simulation results."""
    table = Table(title=title, title_justify="left", box=None)
    for name in ("plan", "rate", "placed", "n", "accept", "stated", "exact", "simulated"):
        table.add_column(name, no_wrap=True)
    for result in results:
        case, plan = result.case, result.case.committed.plan
        table.add_row(
            case.title,
            f"x {float(case.times):g}",
            case.placed,
            f"{plan.n} + {plan.n}" if plan.stages > 1 else f"{plan.n}",
            "0, or 1 + 0" if plan.stages > 1 else f"{plan.acceptable}",
            f"{float(case.stated):.2%}",
            f"{float(case.exact):.3%}",
            f"{result.simulated:.2%} ± {result.error:.2%}",
        )
    console.print(table)


def show_unplanned(result: SimulationResult) -> list[str]:
    """Print the risk of an unplanned second stage, which is why the workflow refuses it.

    Returns:
        A text if the risk is no longer above the stated risk, otherwise an empty list.
    """
    tolerable = EXTENDED.tolerable
    first_risk, total_risk = (
        chance_of_accepting(binomial(tolerable), EXTENDED_ITEMS, stages) for stages in (1, 2)
    )
    show("Going on without a plan", [result])
    console.print(
        f"{EXTENDED_ITEMS} items of which none may deviate have a risk of {float(first_risk):.3%}. "
        f"Who looks at {EXTENDED_ITEMS} more because one did has {float(total_risk):.3%}, above "
        f"the stated {float(result.case.stated):.0%}: refused."
    )
    if total_risk <= result.case.stated:
        return ["going on without a plan is no longer above the stated risk"]
    return []


def _faults(result: SimulationResult) -> Iterator[str]:
    case = result.case
    for fault in result.faults():
        yield f"{case.title}, {case.placed or 'no strata'}, x {float(case.times):g}: {fault}"


if __name__ == "__main__":
    main()
