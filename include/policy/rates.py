"""Rates as exact fractions: ``0.07``, ``7%`` and ``1/30`` are read without a rounding step.

In doubles, 0.07 * 100 is 7.000000000000001, and a sample planned with it expects one deviation too
many. Here no rate ever passes through a float.
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
_RATIO = re.compile(r"(?P<above>\d{1,30})\s*/\s*(?P<below>\d{1,30})")
_COMMA = re.compile(r"\d+,\d+\s*%?")
_MOST_DIGITS = 30
HOW = "Write a decimal with a point or a percentage: 0.07 or 7%."


def parse_rate(text: str, what: str = "rate") -> Fraction:
    """Read a rate from 0 to 1.

    Args:
        text: ``0.07``, ``7%`` or ``1/30``; full-width digits and signs count as their plain ones.
        what: names the value in the error.

    Raises:
        UsageError: not such a number, or not between 0 and 1.
    """
    given = unicodedata.normalize("NFKC", text).strip()
    if found := _DECIMAL.fullmatch(given):
        rate = Fraction(found["number"].rstrip(".")) / (100 if found["percent"] else 1)
    elif (found := _RATIO.fullmatch(given)) and int(found["below"]):
        rate = Fraction(int(found["above"]), int(found["below"]))
    elif _COMMA.fullmatch(given):
        raise UsageError(f"The {what} {text} has a comma.", HOW)
    else:
        raise UsageError(f"The {what} {_shown(text)} is no rate.", HOW)
    if rate > 1:
        raise UsageError(
            f"The {what} {text} is above 1.",
            f"{HOW} 7 without a percent sign would be 700%.",
        )
    return rate


def between(rate: Fraction, what: str) -> Fraction:
    """Return a rate that is neither 0 nor 1.

    Raises:
        UsageError: it is one of them: nothing could be decided by a sample.
    """
    if not 0 < rate < 1:
        raise UsageError(f"The {what} is {rate}; it has to lie between 0 and 1.", HOW)
    return rate


def percent(rate: Fraction, places: int = 4) -> str:
    """Return a rate for people, rounded up: ``7%``, ``0.25%``.

    Args:
        rate: from 0.
        places: digits after the point at most.
    """
    return f"{_plain(ceiling(rate * 100, places))}%"


def exact(rate: Fraction) -> str:
    """Return a rate as ``parse_rate`` reads it back: a decimal where it ends, else a ratio."""
    for places in range(_MOST_DIGITS):
        if 10**places % rate.denominator == 0:
            return _plain(ceiling(rate, places))
    return f"{rate.numerator}/{rate.denominator}"


def ceiling(value: Fraction, places: int) -> Decimal:
    """Round up at so many digits after the point: a limit may be told too high, never too low."""
    scaled = -(-value.numerator * 10**places // value.denominator)
    return Decimal(scaled).scaleb(-places)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(text: str) -> str:
    return text if text.strip() and len(text) <= 40 else "(empty)" if not text.strip() else "given"


def _rate(value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if not isinstance(value, str):
        # YAML reads 0.07 as a float, which is another number
        raise ValueError("should be text, so that it is read exactly: 7% or '0.07'")  # noqa: TRY004
    try:
        return parse_rate(value)
    except UsageError as error:
        raise ValueError(f"{error.message.rstrip('.')}: {error.action}") from None


ExactRate = Annotated[Fraction, PlainValidator(_rate), PlainSerializer(exact)]
"""A rate from 0 to 1, read without rounding."""
