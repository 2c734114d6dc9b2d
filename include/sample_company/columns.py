"""Tables of the sample as rows for COPY, built a column at a time.

A column is an array of byte strings. numpy pads each with NUL bytes to one width, and text never
contains NUL, so a block of rows is the columns side by side with the padding deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from include.sample_company.chance import Ints, Mask

Strings = npt.NDArray[np.bytes_]
Part = Strings | bytes
Column = Part | Sequence[Part]

NULL = b"\\N"
DAY = 86_400
_GROUPS = np.array([b"%04d" % n for n in range(10_000)], "S4")
_FIRST_DAY = -36_525  # 1870
_DATES = np.datetime_as_string(np.arange(_FIRST_DAY, 47_482).astype("datetime64[D]")).astype("S10")
_TIMES = np.array(
    [b" %02d:%02d:%02d" % (n // 3600, n // 60 % 60, n % 60) for n in range(DAY)], "S9"
)


def rows(count: int, *columns: Column) -> bytes:
    """Lay columns side by side as the text form of COPY.

    Args:
        count: how many rows.
        columns: each an array of ``count`` byte strings, a constant, or several of these to be
            joined into one value.
    """
    parts: list[Part] = []
    for column in columns:
        if parts:
            parts.append(b"\t")
        parts.extend([column] if isinstance(column, bytes | np.ndarray) else column)
    parts.append(b"\n")
    width = sum(len(part) if isinstance(part, bytes) else part.itemsize for part in parts)
    block = np.empty((count, width), np.uint8)
    at = 0
    for part in parts:
        if isinstance(part, bytes):
            block[:, at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        else:
            size = part.itemsize
            # One copy of a string field a row is several times faster than one of its bytes.
            target = np.ndarray(
                (count,), f"S{size}", buffer=block.data, offset=at, strides=(width,)
            )
            target[:] = part
            at += size
    return block.tobytes().translate(None, b"\0")


def digits(numbers: Ints, width: int) -> Strings:
    """Decimal numbers, zero-padded to a width that holds them all."""
    groups = -(-width // 4)
    text = np.empty((len(numbers), groups), "S4")
    rest = numbers
    for group in range(groups - 1, -1, -1):
        above = rest // 10_000
        text[:, group] = _GROUPS[rest - above * 10_000]
        rest = above
    return strings(text.view(np.uint8)[:, groups * 4 - width :])


def strings(text: npt.NDArray[np.uint8]) -> Strings:
    """Byte strings from a matrix with one row of characters for each."""
    return np.ascontiguousarray(text).view(f"S{text.shape[1]}").ravel()


def characters(column: Strings) -> npt.NDArray[np.uint8]:
    """A copy of byte strings as a matrix of characters."""
    return np.array(column).view(np.uint8).reshape(len(column), column.itemsize)


def dates(days: Ints) -> Strings:
    """Dates from days since 1970-01-01."""
    found: Strings = _DATES[days - _FIRST_DAY]
    return found


def stamps(seconds: Ints) -> tuple[Strings, Strings]:
    """Points in time, in UTC, from seconds since 1970-01-01."""
    day, second = np.divmod(seconds, DAY)
    return dates(day), _TIMES[second]


def null_where(mask: Mask, column: Column) -> Sequence[Part]:
    """A column with NULL where the mask says so."""
    parts = [column] if isinstance(column, bytes | np.ndarray) else list(column)
    return [
        np.where(mask, NULL if first else b"", part).astype("S")
        for first, part in zip([True] + [False] * (len(parts) - 1), parts, strict=True)
    ]


def choose(pool: Sequence[bytes], index: Ints) -> Strings:
    """A column of a few constant values."""
    found: Strings = np.array(list(pool), "S")[index]
    return found


def put(column: Strings, mask: Mask, values: Strings | bytes) -> Strings:
    """Return the column with some of its values replaced, widened where needed."""
    if not mask.any():
        return column
    wide = max(column.itemsize, len(values) if isinstance(values, bytes) else values.itemsize)
    changed = column.astype(f"S{wide}")
    changed[mask] = values
    return changed


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
