"""Sizes, upper limits and draws of audit samples: how long the exact arithmetic takes."""

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

TURNS = 3  # of each; the median counts, so that another process that is let in once does not
MOST_DEVIATIONS = 3


@dataclass(frozen=True)
class Took:
    """How long one answer took.

    Attributes:
        question: what was asked, as a person would read it.
        population: how many items; None for very many.
        seconds: the median.
        answer: what came out.
    """

    question: str
    population: int | None
    seconds: float
    answer: str


def usual() -> Iterator[Took]:
    """Every size at the usual rates, and the limits of what such a sample may have held."""
    for population in data.POPULATIONS:
        for asked in data.USUAL:
            yield size(asked, population)
            yield from _limits(asked, population)


def extremes() -> Iterator[Took]:
    """Rates so near each other that nobody would test what they ask for, each asked once."""
    for population in (10_000, 1_000_000, None):
        for asked in data.EXTREMES:
            yield size(asked, population, 1)


def size(asked: data.Asked, population: int | None, turns: int = TURNS) -> Took:
    """One sample size."""
    tolerable, expected, confidence = map(
        parse_rate, (asked.tolerable, asked.expected, asked.confidence)
    )

    def told() -> str:
        try:
            found = smallest_size(tolerable, confidence, expected=expected, population=population)
        except UsageError as refused:
            return refused.message
        return f"{found.n:,} items, {found.acceptable:,} accepted"

    return _timed(
        f"size: {asked.tolerable} tolerable, {asked.expected} expected, {asked.confidence}",
        population,
        told,
        turns,
    )


def _limits(asked: data.Asked, population: int | None) -> Iterator[Took]:
    tolerable, expected, confidence = map(
        parse_rate, (asked.tolerable, asked.expected, asked.confidence)
    )
    planned = smallest_size(tolerable, confidence, expected=expected, population=population)
    for deviations in range(min(MOST_DEVIATIONS, planned.n) + 1):

        def told(deviations: int = deviations) -> str:
            found = upper_limit(planned.n, deviations, confidence, population)
            return f"{found.rounded_up_pct}%"

        yield _timed(
            f"limit: {deviations} of {planned.n:,}, {asked.confidence}", population, told, TURNS
        )


def drawing(items: int, population: int) -> Took:
    """Draw by a seed, without looking for the items' ids."""
    return _timed(
        f"draw {items:,} of {population:,}",
        population,
        lambda: f"{len(draw('3241.17', population, items).items):,} items",
        TURNS,
    )


def _timed(question: str, population: int | None, told: Callable[[], str], turns: int) -> Took:
    seconds, answer = [], ""
    for _turn in range(turns):
        begun = time.perf_counter()
        answer = told()
        seconds.append(time.perf_counter() - begun)
    return Took(question, population, median(seconds), answer)
