"""Rivest's sampler, which draws items with SHA-256: the seed alone decides which items are drawn.

Ronald L. Rivest, *Reference implementation code for pseudo-random sampler for election audits or
other purposes*, 2011: the items have the numbers 1 to N. The draw number i (i = 1, 2, ...) yields
the item with the number 1 + (SHA256(seed + "," + i) mod N), where the digest is read as one large
integer. If items are drawn without replacement, an item that was drawn before is rejected. Anybody
can repeat the draw with the standard library of any programming language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from include.services.errors import UsageError

ALGORITHM = "rivest-sha256-2011"


@dataclass(frozen=True)
class Drawing:
    """The result of a draw.

    The ordinal of an item is its position in the population; the first item has the ordinal 1.

    Attributes:
        items: ordinals of the drawn items, in the order of the draw.
        rejected: ordinals that were drawn again and therefore rejected, in the order of the draw.
    """

    items: list[int]
    rejected: list[int]


def draw(seed: str, population: int, n: int, *, with_replacement: bool = False) -> Drawing:
    """Draw items from a population. The seed decides which items are drawn.

    Args:
        seed: any text; its UTF-8 bytes are hashed, so every character, even a space, matters.
        population: number of items in the population.
        n: number of items to draw.
        with_replacement: whether an item may be drawn more than once.

    Raises:
        UsageError: the population has too few items, or the seed is empty or cannot be encoded as
            UTF-8.
    """
    if population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    if n < 0 or (n > population and not with_replacement):
        raise UsageError(f"{n:,} items cannot be drawn from a population of {population:,}.")
    if not seed:
        raise UsageError(
            "The seed is empty.", "Enter a value from a public source, or throws of dice."
        )
    items: list[int] = []
    rejected: list[int] = []
    drawn: set[int] = set()
    ordinals = sequence(seed, population)
    while len(items) < n:
        ordinal = next(ordinals)
        if ordinal in drawn and not with_replacement:
            rejected.append(ordinal)
        else:
            drawn.add(ordinal)
            items.append(ordinal)
    return Drawing(items, rejected)


def sequence(seed: str, population: int) -> Iterator[int]:
    """Yield an endless sequence of numbers from 1 to ``population``, which the seed determines.

    Raises:
        UsageError: the seed has characters that UTF-8 cannot encode.
    """
    try:
        started = hashlib.sha256(f"{seed},".encode())
    except UnicodeEncodeError:
        raise UsageError(
            "The random seed is not valid text: it contains an incomplete character."
        ) from None
    count = 0
    while True:
        count += 1
        digest = started.copy()
        digest.update(b"%d" % count)
        yield 1 + int.from_bytes(digest.digest()) % population
