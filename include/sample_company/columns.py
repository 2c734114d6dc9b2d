"""Build rows for PostgreSQL's COPY from columns of text.

A column is an array of byte strings. In numpy, all byte strings of an array have the same width:
shorter strings are padded with NUL bytes. The values themselves contain no NUL byte. This module
can therefore join the columns to rows, and then remove all NUL bytes.
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
_FIRST_DAY = -36_525  # days from 1970-01-01 back to 1870-01-01
_DATES = np.datetime_as_string(np.arange(_FIRST_DAY, 47_482).astype("datetime64[D]")).astype("S10")
_TIMES = np.array(
    [b" %02d:%02d:%02d" % (n // 3600, n // 60 % 60, n % 60) for n in range(DAY)], "S9"
)


def rows(count: int, *columns: Column) -> bytes:
    """Join columns to rows in the text format of PostgreSQL's COPY.

    Args:
        count: number of rows.
        columns: values of each column. A column is an array of ``count`` byte strings, or one byte
            string for all rows, or a sequence of both, which are concatenated in each row.
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
            # Copying a string field per row is several times faster than copying its bytes.
            target = np.ndarray(
                (count,), f"S{size}", buffer=block.data, offset=at, strides=(width,)
            )
            target[:] = part
            at += size
    return block.tobytes().translate(None, b"\0")


def digits(numbers: Ints, width: int) -> Strings:
    """Return numbers as decimal byte strings, padded with leading zeros.

    Args:
        numbers: numbers that are not negative.
        width: number of digits, which must be enough for the largest number.
    """
    groups = -(-width // 4)
    text = np.empty((len(numbers), groups), "S4")
    rest = numbers
    for group in range(groups - 1, -1, -1):
        quotient = rest // 10_000
        text[:, group] = _GROUPS[rest - quotient * 10_000]
        rest = quotient
    return strings(text.view(np.uint8)[:, groups * 4 - width :])


def strings(text: npt.NDArray[np.uint8]) -> Strings:
    """Convert a matrix of character codes to byte strings. Each row becomes one string."""
    return np.ascontiguousarray(text).view(f"S{text.shape[1]}").ravel()


def characters(column: Strings) -> npt.NDArray[np.uint8]:
    """Return the character codes of byte strings as a new matrix, with one row for each string."""
    return np.array(column).view(np.uint8).reshape(len(column), column.itemsize)


def dates(days: Ints) -> Strings:
    """Convert days to byte strings with ISO dates.

    Args:
        days: numbers of days since 1970-01-01.
    """
    texts: Strings = _DATES[days - _FIRST_DAY]
    return texts


def stamps(seconds: Ints) -> tuple[Strings, Strings]:
    """Convert timestamps to byte strings with their dates and times of day in UTC.

    Args:
        seconds: timestamps in seconds since 1970-01-01.

    Returns:
        An array of dates and an array of times. If the pair is passed to `rows` as one column,
        `rows` concatenates date and time in each row.
    """
    day, second = np.divmod(seconds, DAY)
    return dates(day), _TIMES[second]


def null_where(mask: Mask, column: Column) -> Sequence[Part]:
    """Return a copy of a column that is NULL in the rows where the mask is true.

    Args:
        mask: whether each row becomes NULL.
        column: values of the other rows.
    """
    parts = [column] if isinstance(column, bytes | np.ndarray) else list(column)
    return [
        np.where(mask, NULL if first else b"", part).astype("S")
        for first, part in zip([True] + [False] * (len(parts) - 1), parts, strict=True)
    ]


def choose(pool: Sequence[bytes], index: Ints) -> Strings:
    """Return a column of values that are chosen from a list.

    Args:
        pool: the list of values.
        index: for each row, the index of its value in ``pool``.
    """
    column: Strings = np.array(list(pool), "S")[index]
    return column


def put(column: Strings, mask: Mask, values: Strings | bytes) -> Strings:
    """Return a copy of a column with new values in the rows where the mask is true.

    If a new value is longer than the byte strings of the column, the byte strings of the copy are
    longer.

    Args:
        column: column to copy.
        mask: whether each row gets a new value.
        values: new values, one for each row in which ``mask`` is true, or one byte string for all
            of them.
    """
    if not mask.any():
        return column
    wide = max(column.itemsize, len(values) if isinstance(values, bytes) else values.itemsize)
    changed = column.astype(f"S{wide}")
    changed[mask] = values
    return changed


CHUNK = 10_000


@dataclass(frozen=True)
class Table:
    """The rows of a table, or of one partition of a table.

    Attributes:
        name: name of the table or partition.
        columns: names of the columns, separated by commas, in the order of the values.
        blocks: blocks of rows in the text format of COPY.
        total: approximate number of rows, to show progress.
        parent: name of the partitioned table if ``name`` is a partition, or None.
    """

    name: str
    columns: str
    blocks: Iterator[bytes]
    total: int
    parent: str | None = None


def chunks(first: int, last: int) -> Iterator[Ints]:
    """Yield the whole numbers from ``first`` to ``last``, in arrays of at most `CHUNK` numbers.

    Both ``first`` and ``last`` are included.
    """
    for start in range(first, last + 1, CHUNK):
        yield np.arange(start, min(start + CHUNK, last + 1), dtype=np.int64)


def text_rows(records: list[tuple[object, ...]]) -> Iterator[bytes]:
    """Yield the rows of a small table in the text format of COPY. None becomes NULL.

    Args:
        records: values of each row.
    """
    if records:
        yield "".join("\t".join(map(_text, record)) + "\n" for record in records).encode()


def _text(value: object) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)
