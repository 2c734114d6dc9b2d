"""Which items are drawn follows from the seed alone."""

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


@pytest.mark.parametrize("vector", rivest(), ids=lambda one: f"{one['seed']}-{one['N']}")
def test_the_vectors_of_the_reference_sampler(vector: dict[str, Any]) -> None:
    """Seeds with zeros and outside of ASCII too."""
    repeat = vector["mode"] == "with_replacement"
    found = draw(vector["seed"], vector["N"], vector["count"], with_replacement=repeat)
    assert found.items == vector["items"]


@given(st.text(min_size=1), st.integers(1, 60), st.data())
def test_a_draw_can_be_repeated_and_takes_each_item_once(
    seed: str, population: int, data: st.DataObject
) -> None:
    """Items and rejections together are the start of the sequence; rejected ones came before."""
    n = data.draw(st.integers(0, population))
    found = draw(seed, population, n)
    assert found == draw(seed, population, n)
    assert len(set(found.items)) == n
    assert set(found.rejected) <= set(found.items)
    count = n + len(found.rejected)
    came = Counter(islice(sequence(seed, population), count))
    assert came == Counter(found.items) + Counter(found.rejected)


@given(st.text(min_size=1), st.integers(1, 60), st.data())
def test_a_later_stage_goes_on_where_the_first_ended(
    seed: str, population: int, data: st.DataObject
) -> None:
    """So that it can be known before anybody asks for it."""
    n = data.draw(st.integers(0, population // 2))
    assert draw(seed, population, 2 * n).items[:n] == draw(seed, population, n).items


def test_the_sequence_is_the_published_formula() -> None:
    """Worked out with the standard library."""
    digest = hashlib.sha256("骰子 4 2 6,1".encode()).hexdigest()
    assert draw("骰子 4 2 6", 1000, 1).items == [1 + int(digest, 16) % 1000]


def test_a_blank_makes_another_seed() -> None:
    """Nothing is trimmed: what was written down is what counts."""
    assert draw("1", 10**9, 5) != draw("1 ", 10**9, 5)


@pytest.mark.parametrize(
    ("seed", "population", "n"),
    [("1", 0, 0), ("1", 5, 6), ("1", 5, -1), ("", 5, 1), ("\ud800", 5, 1)],
)
def test_what_cannot_be_drawn_is_refused(seed: str, population: int, n: int) -> None:
    """An empty population, more than there is, no seed."""
    with pytest.raises(UsageError):
        draw(seed, population, n)
