"""Check digits and formats of Chinese records, as plain functions on one value."""

from __future__ import annotations

import re
from datetime import date

ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
ID_CHECKS = "10X98765432"
S10_WEIGHTS = (8, 6, 4, 2, 3, 5, 9, 7)


def id_check_character(first_17: str) -> str:
    """The check character of a resident ID number (GB 11643-1999: ISO 7064 MOD 11-2).

    Args:
        first_17: division code, birth date and sequence, 17 ASCII digits.
    """
    total = sum(int(digit) * weight for digit, weight in zip(first_17, ID_WEIGHTS, strict=True))
    return ID_CHECKS[total % 11]


def is_id_number(text: str) -> bool:
    """Whether a resident ID number has the form, a real birth date and the right check character.

    Whether its division code exists is another question: codes retire (GB/T 2260).
    """
    if not re.fullmatch(r"[0-9]{17}[0-9Xx]", text):
        return False
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return text[17].upper() == id_check_character(text[:17])


def is_mobile(text: str) -> bool:
    """Return whether a text is a mainland mobile number after +86, 86 or 0086."""
    national = re.sub(r"^(\+|00)?86", "", re.sub("[ -]", "", text))
    return bool(re.fullmatch(r"1[3-9][0-9]{9}", national))


def s10_check_digit(serial: str) -> str:
    """The check digit of a UPU S10 item identifier.

    Args:
        serial: the eight digits between the service letters and the check digit.
    """
    total = sum(int(digit) * weight for digit, weight in zip(serial, S10_WEIGHTS, strict=True))
    return {10: "0", 11: "5"}.get(11 - total % 11, str(11 - total % 11))


def is_waybill_number(text: str) -> bool:
    """Whether a waybill number fits a carrier's rule: SF, JD, or UPU S10 with its check digit."""
    if re.fullmatch(r"SF[0-9]{13}|[0-9]{12}|JD[0-9]{11,13}", text):
        return True
    return bool(re.fullmatch(r"[A-Z]{2}[0-9]{9}[A-Z]{2}", text)) and text[10] == s10_check_digit(
        text[2:10]
    )
