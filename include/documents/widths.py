"""How wide the columns of a table are: the same on the page and in the Word file."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width

PAPER = 44.0  # em between the margins of the page, in the font of a table
_PADDING = 1.4  # em of a cell, left and right together
_NARROWEST = 3.0
_MOST = 200  # characters of a cell that are looked at: more does not make it wider


def em(text: str) -> float:
    """The length of a text in em: a Chinese sign is one, others about half."""
    return sum(1.0 if east_asian_width(one) in "WF" else 0.55 for one in text)


def shares(rows: Sequence[Sequence[str]]) -> list[float]:
    """The share of each column in the width of a table, together 1.

    Columns of figures and short words keep their length; long texts divide what is left.

    Args:
        rows: cells as they are shown, the heading first.
    """
    wanted = [
        max(_NARROWEST, *(em(cell[:_MOST]) for cell in column)) + _PADDING
        for column in zip(*rows, strict=True)
    ]
    widths, room = [0.0] * len(wanted), PAPER
    for done, at in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        widths[at] = min(wanted[at], room / (len(wanted) - done))
        room -= widths[at]
    return [one / sum(widths) for one in widths]
