"""A table of the sample as the loader takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from include.local.sample.chance import Ints

CHUNK = 10_000


@dataclass(frozen=True)
class Table:
    """Rows to be copied into one table.

    Attributes:
        name: table or partition.
        columns: in the order of the rows.
        blocks: the rows in the text form of COPY, some thousand at a time.
        total: about how many rows, for showing progress.
        parent: the partitioned table that ``name`` is a partition of.
    """

    name: str
    columns: str
    blocks: Iterator[bytes]
    total: int
    parent: str | None = None


def chunks(first: int, last: int) -> Iterator[Ints]:
    """The numbers from ``first`` to ``last``, some thousand at a time."""
    for start in range(first, last + 1, CHUNK):
        yield np.arange(start, min(start + CHUNK, last + 1), dtype=np.int64)


def text_rows(records: list[tuple[object, ...]]) -> Iterator[bytes]:
    """Rows of small tables, from Python values; None is NULL."""
    if records:
        yield "".join("\t".join(map(_text, record)) + "\n" for record in records).encode()


def _text(value: object) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)
