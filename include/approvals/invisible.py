"""Recognise characters that leave no visible sign, so that two texts that look alike are alike."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt): first and last.
_IGNORABLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_FIRST = [first for first, _last in _IGNORABLE]
# Drawn as nothing, although Unicode does not call them ignorable: the braille pattern without
# dots, Egyptian blanks, the filler of Khitan, the null notehead, the object replacement.
_BLANK = frozenset("\u2800\ufffc\U00013441\U00013442\U00016fe4\U0001d159")
_CATEGORIES = ("Cf", "Cc")


def is_invisible(character: str) -> bool:
    """Return whether a character other than white space leaves no visible sign.

    Marks that combine with a letter, as scripts and accents need them, are visible.
    """
    number = ord(character)
    at = bisect_right(_FIRST, number) - 1
    return (
        (at >= 0 and number <= _IGNORABLE[at][1])
        or character in _BLANK
        or unicodedata.category(character) in _CATEGORIES
    )
