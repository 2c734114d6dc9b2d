"""Check digits and formats of Chinese records, as plain functions on one value."""

from __future__ import annotations

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


def s10_check_digit(serial: str) -> str:
    """The check digit of a UPU S10 item identifier.

    Args:
        serial: the eight digits between the service letters and the check digit.
    """
    total = sum(int(digit) * weight for digit, weight in zip(serial, S10_WEIGHTS, strict=True))
    return {10: "0", 11: "5"}.get(11 - total % 11, str(11 - total % 11))
