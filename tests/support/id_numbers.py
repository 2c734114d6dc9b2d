"""Check digits and ID numbers value by value, to compare with columns and with checks in SQL."""

from __future__ import annotations

import re
from datetime import date

from include.sample_company.people import ID_CHECKS, ID_WEIGHTS
from include.sample_company.waybills import S10_WEIGHTS


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


def id_check_character(first_17: str) -> str:
    """The check character of a resident ID number (GB 11643-1999: ISO 7064 MOD 11-2).

    Args:
        first_17: division code, birth date and sequence, 17 ASCII digits.
    """
    total = sum(int(digit) * weight for digit, weight in zip(first_17, ID_WEIGHTS, strict=True))
    return ID_CHECKS[total % 11]


def s10_check_digit(serial: str) -> str:
    """The check digit of a UPU S10 item identifier.

    Args:
        serial: the eight digits between the service letters and the check digit.
    """
    total = sum(int(digit) * weight for digit, weight in zip(serial, S10_WEIGHTS, strict=True))
    return {10: "0", 11: "5"}.get(11 - total % 11, str(11 - total % 11))
