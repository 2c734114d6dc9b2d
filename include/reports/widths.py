"""Which columns of a table keep their width on paper, where nothing scrolls and all has to fit.

Left to itself, WeasyPrint breaks ids and Chinese words in the middle while a column of sentences
beside them has room to spare. Widths are estimated, in em of the table's font: which columns are
kept need not be exact, only never be too many for the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import east_asian_width

from include.reports.model import ColumnKind

PAPER = 60.0  # em across an A4 page in the table's font
PADDING = 1.15  # em of a cell, left and right together
SENTENCE = 9.0  # em that a column of sentences needs at least to be read
SHORT = 7.0  # em up to which a text is a word or two
TITLE = 12.0  # em up to which the name of a row, in its first column, stays in one line
ICON = 2.0  # em before the word of an outcome
WIDE, NARROW, MONO = 1.0, 0.55, 0.53  # em of a Chinese, another, and an id's character

_BREAKS = re.compile(r"[\s\u2e80-\uffef]+")  # a line may end at a space and at any Chinese sign


def kept_columns(kinds: Sequence[ColumnKind], rows: Sequence[Sequence[str]]) -> set[int]:
    """The columns of ids and short words that fit unbroken beside all others.

    Args:
        kinds: of the columns.
        rows: cells as they are shown, the heading first; an outcome as its word.
    """
    longest = [
        max(_width(row[at], kind) for row in rows) + PADDING for at, kind in enumerate(kinds)
    ]
    least = [_least(longest[at], [row[at] for row in rows], kind) for at, kind in enumerate(kinds)]
    room = PAPER - sum(least)
    kept = set()
    for at in sorted(range(len(kinds)), key=lambda at: longest[at]):
        short = longest[at] <= (SHORT if at else TITLE) + PADDING
        if _never_breaks(kinds[at]) or not (kinds[at] == "code" or short):
            continue
        needed = longest[at] - least[at]
        if needed <= room:
            room -= needed
            kept.add(at)
    return kept


def _least(longest: float, cells: Sequence[str], kind: ColumnKind) -> float:
    if _never_breaks(kind):
        return longest
    words = [word for cell in cells for word in _BREAKS.split(cell)] if kind != "code" else []
    word = max((_width(one, kind) for one in words), default=0.0)
    return min(longest, max(SENTENCE, word) + PADDING)


def _never_breaks(kind: ColumnKind) -> bool:
    return kind in ("number", "bytes", "duration", "percent", "outcome")


def _width(text: str, kind: ColumnKind) -> float:
    narrow = MONO if kind == "code" else NARROW
    letters = sum(WIDE if east_asian_width(one) in "WF" else narrow for one in text)
    return letters + (ICON if kind == "outcome" else 0)
