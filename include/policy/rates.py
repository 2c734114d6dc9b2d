"""Parse and format rates such as ``0.07``, ``7%`` and ``1/30`` as exact fractions.

No function here converts a rate to a float. With floats, 0.07 * 100 is 7.000000000000001, and a
sampling plan with this number would expect one deviation too many.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from include.services.errors import UsageError

_DECIMAL = re.compile(r"(?P<number>\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})\s*(?P<percent>%?)")
_RATIO = re.compile(r"(?P<numerator>\d{1,30})\s*/\s*(?P<denominator>\d{1,30})")
_COMMA = re.compile(r"\d+,\d+\s*%?")
_MOST_DIGITS = 30
HOW_TO_WRITE = "Write a decimal with a point or a percentage: 0.07 or 7%."


def parse_rate(text: str, label: str = "rate") -> Fraction:
    """Parse a rate from 0 to 1.

    Args:
        text: the rate, such as ``0.07``, ``7%`` or ``1/30``. Full-width digits and signs are
            accepted.
        label: name of the value in error messages.

    Raises:
        UsageError: the text is not a number in one of these formats, or the number is above 1.
    """
    normalized = unicodedata.normalize("NFKC", text).strip()
    if match := _DECIMAL.fullmatch(normalized):
        rate = Fraction(match["number"].rstrip(".")) / (100 if match["percent"] else 1)
    elif (match := _RATIO.fullmatch(normalized)) and int(match["denominator"]):
        rate = Fraction(int(match["numerator"]), int(match["denominator"]))
    elif _COMMA.fullmatch(normalized):
        raise UsageError(f"The {label} {text} has a comma.", HOW_TO_WRITE)
    else:
        raise UsageError(f"The {label} {_text_for_error(text)} is not a rate.", HOW_TO_WRITE)
    if rate > 1:
        raise UsageError(
            f"The {label} {text} is above 1.",
            f"{HOW_TO_WRITE} 7 without a percent sign would be 700%.",
        )
    return rate


def require_between_0_and_1(rate: Fraction, label: str) -> Fraction:
    """Return a rate if it is above 0 and below 1; otherwise raise UsageError.

    Args:
        rate: the rate, from 0 to 1.
        label: name of the rate in the error message.

    Raises:
        UsageError: the rate is 0 or 1. No sample could show whether such a rate is met.
    """
    if not 0 < rate < 1:
        raise UsageError(f"The {label} is {rate}; it must be between 0 and 1.", HOW_TO_WRITE)
    return rate


def percent_text(rate: Fraction, places: int = 4) -> str:
    """Format a rate as a percentage such as ``7%`` or ``0.25%``, rounded up.

    Args:
        rate: the rate, 0 or more.
        places: largest number of digits after the decimal point.
    """
    return f"{_plain(round_up(rate * 100, places))}%"


def exact_text(rate: Fraction) -> str:
    """Format a rate exactly, as text that ``parse_rate`` accepts.

    The text is a decimal number if the rate can be written exactly as one, otherwise a ratio such
    as ``1/30``.
    """
    for places in range(_MOST_DIGITS):
        if 10**places % rate.denominator == 0:
            return _plain(round_up(rate, places))
    return f"{rate.numerator}/{rate.denominator}"


def round_up(value: Fraction, places: int) -> Decimal:
    """Return a number rounded up to a number of decimal places, so that a limit is never too low.

    Args:
        value: the number.
        places: number of digits after the decimal point.
    """
    scaled = -(-value.numerator * 10**places // value.denominator)
    return Decimal(scaled).scaleb(-places)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text_for_error(text: str) -> str:
    return text if text.strip() and len(text) <= 40 else "(empty)" if not text.strip() else "given"


def _rate(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if not isinstance(value, str):
        # YAML reads 0.07 as a float, which is not exactly 0.07
        raise ValueError("should be text, so that it is read exactly: 7% or '0.07'")  # noqa: TRY004
    try:
        return parse_rate(value)
    except UsageError as error:
        raise ValueError(f"{error.message.rstrip('.')}: {error.action}") from None


ExactRate = Annotated[Fraction, PlainValidator(_rate), PlainSerializer(exact_text)]
"""A rate from 0 to 1, read without rounding."""
