"""Redact possible numbers and addresses of customers in the reasons that people type.

A reason is stored in the evidence for years, and the readers of the evidence do not need personal
data (PIPL (2021-11-01) article 6). Numbers are recognised in any notation: full-width or circled
digits, +86, and digits separated by spaces, dashes, dots, brackets or invisible characters. Numbers
that are written in words (一三八) are not recognised.
"""

from __future__ import annotations

import re
import unicodedata

from include.approvals.approvers import is_invisible
from include.messages import Message, _, verbatim

MAX_REASON_LENGTH = 500  # characters
REDACTED = "…"
# Start of the reason of an answer that was given with the command, without a person
COMMAND_LINE = "Answered on the command line with --answer."
_AUTOMATIC = _("Answered automatically for the sample company.")
AUTOMATIC = _AUTOMATIC.text
"""Reason of an answer that `up` gave for the sample company. Reports translate it."""

_GAP = r"[\s\-./()\[\]_+*~'\"·•|:=]{0,4}"  # between two digits of the same number
_LIST_GAP = r"[\W_]{0,4}"  # like _GAP, and also list separators
_MAX_DIGITS = 200  # a longer sequence consists of several numbers
_WORD = r"[^\s,;:。、()<>@]{1,254}"  # limit of RFC 5321; an unlimited pattern is slow
_PERSONAL_DATA = re.compile(
    "|".join(
        (
            # Mobile numbers and ID numbers with any separators
            rf"(?<!\d)(?:86{_LIST_GAP})?1{_LIST_GAP}[3-9](?:{_LIST_GAP}\d){{9}}(?!\d)",
            rf"(?<!\d)\d(?:{_LIST_GAP}\d){{16}}{_LIST_GAP}[\dXx](?![\dA-Za-z])",
            # Six digits and more: landlines, bank cards, foreign numbers, dates of birth
            rf"\d(?:{_GAP}\d){{5,{_MAX_DIGITS}}}(?:{_GAP}[Xx](?![A-Za-z]))?",
            rf"{_WORD}\s?(?:@|[(\[]\s?at\s?[)\]])\s?{_WORD}",
        )
    ),
    re.IGNORECASE,
)
# For names of objects, which often contain dates and serial numbers: only unseparated numbers
_GAP_IN_NAME = r"[\W_]?"  # between the parts of a number
_SEPARATOR = r"[\W_]"
_DAY = rf"20\d\d{_GAP_IN_NAME}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_PROVINCE = (
    "(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91)"  # no year starts with these digits
)
_BIRTH_DATE = r"(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_IN_NAMES = re.compile(
    rf"(?<!\d)(?<!\d{_SEPARATOR})(?:(?:00)?86{_GAP_IN_NAME})?1[3-9]\d(?!{_GAP_IN_NAME}{_DAY}){_GAP_IN_NAME}\d{{4}}{_GAP_IN_NAME}\d{{4}}"
    rf"(?!{_GAP_IN_NAME}\d)"
    rf"|(?<!\d){_PROVINCE}\d{{4}}{_GAP_IN_NAME}{_BIRTH_DATE}{_GAP_IN_NAME}\d{{3}}[\dXx](?![\dA-Za-z])"
)
_DASHES = "-"
_COMBINING_CATEGORIES = {"Mn", "Me"}  # categories of combining marks


def redact_reason(reason: str, max_length: int = MAX_REASON_LENGTH) -> str:
    """Return a reason in one line, with ``…`` in place of possible personal data of customers.

    The function redacts e-mail addresses, and sequences of six or more digits. Spaces, dashes, dots
    and brackets may separate the digits of a sequence. In mobile and ID numbers, commas may
    separate them too.

    Args:
        reason: reason as a person typed it.
        max_length: maximum length of the result, in characters.
    """
    text = " ".join(reason.split())
    normalized, positions = _normalize(text)
    parts, end = [], 0
    for match in _PERSONAL_DATA.finditer(normalized):
        first, last = positions[match.start()], positions[match.end() - 1] + 1
        parts += [text[end:first], REDACTED]
        end = max(end, last)
    parts.append(text[end:])
    return "".join(parts)[:max_length]


def has_words(reason: str) -> bool:
    """Return whether a reason contains letters apart from possible customer data."""
    return any(character.isalpha() for character in redact_reason(reason))


def has_personal_number(name: str) -> bool:
    """Return whether the name of an object contains a mobile or ID number.

    Names often contain dates and serial numbers, such as ``IN-000013``. So this function does not
    report every sequence of digits that `redact_reason` redacts.

    Args:
        name: name of an object, such as an incoming batch.
    """
    return _IN_NAMES.search(_normalize(name)[0]) is not None


def _normalize(text: str) -> tuple[str, list[int]]:
    """Return a text in a form in which numbers can be found, and the position of each character.

    The form is Unicode normal form NFKC without invisible characters and combining marks, with
    ASCII digits and dashes. A position is the index of the original character in `text`. With the
    positions, `redact_reason` can redact a number in the text as it was typed.
    """
    characters: list[str] = []
    positions: list[int] = []
    for index, character in enumerate(text):
        if is_invisible(character) or unicodedata.category(character) in _COMBINING_CATEGORIES:
            continue
        for normal in unicodedata.normalize("NFKC", character):
            characters.append(_normalize_character(normal))
            positions.append(index)
    return "".join(characters), positions


def _normalize_character(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return _DASHES if kind == "Pd" or character == "\u2212" else character


def reason_text(reason: str) -> Message:
    """Return the reason of an answer for reports: as a person typed it, or translated."""
    return _AUTOMATIC if reason == AUTOMATIC else verbatim(reason)
