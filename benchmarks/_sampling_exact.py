"""Measure the exact arithmetic of sample sizes, upper limits and draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks import _sampling_data as data
from include.policy.rates import parse_rate
from include.sampling.exact.selection import draw
from include.sampling.exact.sizes import smallest_size, upper_limit
from include.services.errors import UsageError

TURNS = 3  # measurements of each answer; with the median, one interruption has no effect
MOST_DEVIATIONS = 3


@dataclass(frozen=True)
class Timing:
    """The time that a calculation took.

    Attributes:
        question: description of the calculation.
        population: number of items; None for a very large number.
        seconds: median time in seconds.
        answer: result of the calculation.
    """

    question: str
    population: int | None
    seconds: float
    answer: str


def usual() -> Iterator[Timing]:
    """Measure every sample size at usual rates, and the upper limits for the first deviations."""
    for population in data.POPULATIONS:
        for rates in data.USUAL:
            yield size(rates, population)
            yield from _limits(rates, population)


def extremes() -> Iterator[Timing]:
    """Measure sample sizes for almost equal tolerable and expected rates, once each.

    Such samples are too large for any audit.
    """
    for population in (10_000, 1_000_000, None):
        for extreme in data.EXTREMES:
            yield size(extreme, population, 1)


def size(rates: data.SamplingQuestion, population: int | None, turns: int = TURNS) -> Timing:
    """Measure the calculation of a sample size."""
    tolerable, expected, confidence = map(
        parse_rate, (rates.tolerable, rates.expected, rates.confidence)
    )

    def answer() -> str:
        try:
            sample = smallest_size(tolerable, confidence, expected=expected, population=population)
        except UsageError as error:
            return error.message
        return f"{sample.n:,} items, {sample.acceptable:,} accepted"

    return _timed(
        f"size: {rates.tolerable} tolerable, {rates.expected} expected, {rates.confidence}",
        population,
        answer,
        turns,
    )


def _limits(rates: data.SamplingQuestion, population: int | None) -> Iterator[Timing]:
    tolerable, expected, confidence = map(
        parse_rate, (rates.tolerable, rates.expected, rates.confidence)
    )
    planned = smallest_size(tolerable, confidence, expected=expected, population=population)
    for deviations in range(min(MOST_DEVIATIONS, planned.n) + 1):

        def answer(deviations: int = deviations) -> str:
            limit = upper_limit(planned.n, deviations, confidence, population)
            return f"{limit.rounded_up_pct}%"

        yield _timed(
            f"limit: {deviations} of {planned.n:,}, {rates.confidence}", population, answer, TURNS
        )


def drawing(items: int, population: int) -> Timing:
    """Measure a draw by the random seed, without finding the ids of the drawn items."""
    return _timed(
        f"draw {items:,} of {population:,}",
        population,
        lambda: f"{len(draw('3241.17', population, items).items):,} items",
        TURNS,
    )


def _timed(question: str, population: int | None, answer: Callable[[], str], turns: int) -> Timing:
    seconds, text = [], ""
    for _turn in range(turns):
        started = time.perf_counter()
        text = answer()
        seconds.append(time.perf_counter() - started)
    return Timing(question, population, median(seconds), text)
