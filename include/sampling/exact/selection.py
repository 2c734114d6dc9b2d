"""Rivest's sampler: which items are drawn follows from a seed by SHA-256 alone.

Ronald L. Rivest, *Reference implementation code for pseudo-random sampler for election audits or
other purposes*, 2011: draw i = 1, 2, ... is item 1 + SHA256(seed + "," + i) mod N, where the digest
is read as one large number. Without replacement, an item that was drawn before is rejected. Anybody
can repeat it with the standard library of any language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from include.services.errors import UsageError

ALGORITHM = "rivest-sha256-2011"


@dataclass(frozen=True)
class Drawing:
    """The drawn items.

    Attributes:
        items: ordinals from 1, in the order in which they were drawn.
        rejected: ordinals that came again, in the order in which they did.
    """

    items: list[int]
    rejected: list[int]


def draw(seed: str, population: int, n: int, *, with_replacement: bool = False) -> Drawing:
    """Draw items by a seed.

    Args:
        seed: any text; its UTF-8 bytes count, so that a blank makes another seed.
        population: how many items there are.
        n: how many to draw.
        with_replacement: whether an item may come twice.

    Raises:
        UsageError: there are not so many items, or the seed is no text.
    """
    if population < 1:
        raise UsageError("The population is empty: there is nothing to draw.")
    if n < 0 or (n > population and not with_replacement):
        raise UsageError(f"{n:,} items cannot be drawn from a population of {population:,}.")
    if not seed:
        raise UsageError("The seed is empty.", "Give one from a public source, or dice.")
    items: list[int] = []
    rejected: list[int] = []
    seen: set[int] = set()
    ordinals = sequence(seed, population)
    while len(items) < n:
        ordinal = next(ordinals)
        if ordinal in seen and not with_replacement:
            rejected.append(ordinal)
        else:
            seen.add(ordinal)
            items.append(ordinal)
    return Drawing(items, rejected)


def sequence(seed: str, population: int) -> Iterator[int]:
    """Yield the ordinals that a seed gives, without end.

    Raises:
        UsageError: the seed has characters that UTF-8 cannot hold.
    """
    try:
        started = hashlib.sha256(f"{seed},".encode())
    except UnicodeEncodeError:
        raise UsageError("The seed is no text: it has half a character.") from None
    count = 0
    while True:
        count += 1
        digest = started.copy()
        digest.update(b"%d" % count)
        yield 1 + int.from_bytes(digest.digest()) % population
