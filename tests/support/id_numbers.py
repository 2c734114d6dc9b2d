"""Check digits and ID numbers of single values, to compare with columns and with checks in SQL."""

from __future__ import annotations

import re
from datetime import date

from include.sample_company.identities import ID_CHECKS, ID_WEIGHTS
from include.sample_company.waybills import S10_WEIGHTS


def is_id_number(text: str) -> bool:
    """Return whether an ID number has a valid format, birth date and check character.

    The function does not check whether the division code exists, because codes are retired (GB/T
    2260).
    """
    if not re.fullmatch(r"[0-9]{17}[0-9Xx]", text):
        return False
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return text[17].upper() == id_check_character(text[:17])


def id_check_character(first_17: str) -> str:
    """Return the check character of a resident ID number (GB 11643-1999: ISO 7064 MOD 11-2).

    Args:
        first_17: division code, birth date and sequence number: 17 ASCII digits.
    """
    total = sum(int(digit) * weight for digit, weight in zip(first_17, ID_WEIGHTS, strict=True))
    return ID_CHECKS[total % 11]


def s10_check_digit(serial: str) -> str:
    """Return the check digit of a UPU S10 item identifier.

    Args:
        serial: the eight digits between the service letters and the check digit.
    """
    total = sum(int(digit) * weight for digit, weight in zip(serial, S10_WEIGHTS, strict=True))
    return {10: "0", 11: "5"}.get(11 - total % 11, str(11 - total % 11))
