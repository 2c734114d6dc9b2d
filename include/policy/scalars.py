"""Read plain scalars of a policy pack: values without quotes.

YAML 1.1 and YAML 1.2 read some of them differently: ``010`` is 8 or 10, ``yes`` is true or text,
``0o10`` is text or 8. A pack decides which records are deleted, so such a value is refused.
``true``, ``false``, ``null``, ``~`` and the numbers of JSON keep their meaning. All other values
are text, also ``12:30`` and ``2026-11-25`` (YAML 1.2.2, 10.3.2, core schema).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from decimal import Decimal

MAX_DIGITS = 4000  # Python refuses to convert longer numbers
_CONSTANTS: dict[str, bool | None] = {"null": None, "Null": None, "NULL": None, "~": None}
_CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True)
_CONSTANTS |= dict.fromkeys(("false", "False", "FALSE"), False)
_BOOLEANS_OF_1_1 = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?", re.ASCII)
# Numbers of YAML 1.1 or 1.2. Sexagesimal numbers are left out: 12:30 is a time for its writer.
_NUMBER = re.compile(
    r"[-+]?(?:0b[01_]+|0x[0-9A-Fa-f_]+|0o[0-7]+|\.(?:inf|Inf|INF)"
    r"|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)


class AmbiguousScalar(ValueError):
    """A value that YAML readers interpret differently; the message says what to write instead."""


def plain_value(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar.

    Args:
        text: the scalar as written in the file.

    Raises:
        AmbiguousScalar: the scalar has several meanings, is empty, or is a number that cannot be
            stored exactly.
    """
    if not text:
        raise AmbiguousScalar(
            'the key has no value: write null for no value, "" for an empty text, or remove the key'
        )
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if meaning := _boolean_of_1_1(text):
        raise AmbiguousScalar(_choice(text, [meaning]))
    if not _NUMBER.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise AmbiguousScalar(f"a number has at most {MAX_DIGITS} digits")
    if _INTEGER.fullmatch(text) and text != "-0":
        return int(text)
    if _FLOAT.fullmatch(text):
        return _exact(text)
    raise AmbiguousScalar(_choice(text, list(dict.fromkeys(_readings(text)))))


def _boolean_of_1_1(text: str) -> str | None:
    forms = (text.lower(), text.upper(), text.capitalize())
    return _BOOLEANS_OF_1_1.get(text.lower()) if text in forms else None


def _exact(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise AmbiguousScalar(
            f'{text} has more digits than a number can store: write it as text, "{text}"'
        )
    return value


def _readings(text: str) -> Iterator[str]:
    """Yield the numbers that YAML 1.1 and 1.2 read."""
    digits = text.replace("_", "").lstrip("+")
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    prefix = digits[:2]
    if prefix in ("0b", "0x", "0o"):
        base = {"0b": 2, "0x": 16, "0o": 8}[prefix]
        yield str(int(f"{sign}{digits[2:] or '0'}", base))
    elif digits.isdigit():
        yield str(int(f"{sign}{digits}"))
        if digits.startswith("0") and set(digits) <= set("01234567"):
            yield str(int(f"{sign}{digits}", 8))
    elif digits[1:2].isdigit() or digits[:1].isdigit():
        number = float(digits)
        if math.isfinite(number):
            yield f"{sign}{int(number) if number == int(number) else number}"


def _choice(text: str, meanings: list[str]) -> str:
    numbers = ", ".join(meanings) or "a number that packs do not support"
    return (
        f'{text} can mean {numbers} or the text "{text}": write the intended value, text in quotes'
    )
