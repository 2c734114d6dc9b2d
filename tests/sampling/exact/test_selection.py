"""Tests of the sampler: a seed alone determines the drawn items."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.sampling.exact.selection import draw, sequence
from include.services.errors import UsageError
from tests.sampling.exact.published import rivest


@pytest.mark.parametrize("vector", rivest(), ids=lambda vector: f"{vector['seed']}-{vector['N']}")
def test_draw_returns_same_items_as_test_vectors_of_reference_sampler(
    vector: dict[str, Any],
) -> None:
    """The vectors include seeds with zeros and with non-ASCII characters."""
    repeat = vector["mode"] == "with_replacement"
    drawing = draw(vector["seed"], vector["N"], vector["count"], with_replacement=repeat)
    assert drawing.items == vector["items"]


@given(st.text(min_size=1), st.integers(1, 60), st.data())
def test_same_seed_gives_same_draw_and_no_item_is_drawn_twice(
    seed: str, population: int, data: st.DataObject
) -> None:
    """The drawn and the rejected ordinals together are the start of the seed's sequence."""
    n = data.draw(st.integers(0, population))
    drawing = draw(seed, population, n)
    assert drawing == draw(seed, population, n)
    assert len(set(drawing.items)) == n
    assert set(drawing.rejected) <= set(drawing.items)
    count = n + len(drawing.rejected)
    drawn_ordinals = Counter(islice(sequence(seed, population), count))
    assert drawn_ordinals == Counter(drawing.items) + Counter(drawing.rejected)


@given(st.text(min_size=1), st.integers(1, 60), st.data())
def test_larger_sample_starts_with_items_of_smaller_sample_if_seed_is_equal(
    seed: str, population: int, data: st.DataObject
) -> None:
    """The items of a later stage are therefore determined before the stage is needed."""
    n = data.draw(st.integers(0, population // 2))
    assert draw(seed, population, 2 * n).items[:n] == draw(seed, population, n).items


def test_first_drawn_item_is_1_plus_sha256_of_seed_and_counter_modulo_population_size() -> None:
    """The test computes the formula with the standard library only."""
    digest = hashlib.sha256("骰子 4 2 6,1".encode()).hexdigest()
    assert draw("骰子 4 2 6", 1000, 1).items == [1 + int(digest, 16) % 1000]


def test_trailing_space_in_seed_gives_different_sample_items() -> None:
    """The sampler does not remove spaces from the seed."""
    assert draw("1", 10**9, 5) != draw("1 ", 10**9, 5)


@pytest.mark.parametrize(
    ("seed", "population", "n"),
    [("1", 0, 0), ("1", 5, 6), ("1", 5, -1), ("", 5, 1), ("\ud800", 5, 1)],
)
def test_draw_raises_usage_error_if_seed_population_or_number_of_items_is_invalid(
    seed: str, population: int, n: int
) -> None:
    """The population is empty or smaller than the number of items to draw, or the seed is empty."""
    with pytest.raises(UsageError):
        draw(seed, population, n)
