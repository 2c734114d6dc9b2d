"""A resident ID number checked value by value, to compare with checks in SQL."""

from __future__ import annotations

import re
from datetime import date

from include.sample_company.formats import id_check_character


def is_id_number(text: str) -> bool:
    """Return whether a text is a resident ID number: form, birth date and check character.

    Whether its division code exists is another question: codes retire (GB/T 2260).
    """
    if not re.fullmatch(r"[0-9]{17}[0-9Xx]", text):
        return False
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return text[17].upper() == id_check_character(text[:17])
