"""Remove possible numbers and addresses of customers from reasons that people type.

A reason is kept in the evidence for years, and no reader of it needs to know whom it was about
(PIPL (2021-11-01) article 6). Numbers are recognised however they are written: full-width or
circled digits, +86, spaces, dashes, dots, brackets, invisible characters between them. Numbers in
words (一三八) are not.
"""

from __future__ import annotations

import re
import unicodedata

from include.approvals.people import is_invisible

LONGEST_REASON = 500  # characters
BLOTTED = "…"
# What a reason begins with when nobody looked: an answer that was given with the command.
COMMAND_LINE = "Answered on the command line with --answer."

_NEXT = r"[\s\-./()\[\]_+*~'\"·•|:=]{0,4}"  # between two digits of one number
_ANY = r"[\W_]{0,4}"  # as that, and what stands between the items of a list
_MOST = 200  # digits of one match: what is longer is more than one
_WORD = r"[^\s,;:。、()<>@]{1,254}"  # no address is longer (RFC 5321); without an end it costs time
_CUSTOMERS = re.compile(
    "|".join(
        (
            # Mobile numbers and ID numbers, whatever stands between the digits
            rf"(?<!\d)(?:86{_ANY})?1{_ANY}[3-9](?:{_ANY}\d){{9}}(?!\d)",
            rf"(?<!\d)\d(?:{_ANY}\d){{16}}{_ANY}[\dXx](?![\dA-Za-z])",
            # Six digits and more: landlines, bank cards, foreign numbers, dates of birth
            rf"\d(?:{_NEXT}\d){{5,{_MOST}}}(?:{_NEXT}[Xx](?![A-Za-z]))?",
            rf"{_WORD}\s?(?:@|[(\[]\s?at\s?[)\]])\s?{_WORD}",
        )
    ),
    re.IGNORECASE,
)
# In names of things, which may be full of dates and running numbers: only what is written as one.
_ONE = r"[\W_]?"  # between the parts of a number
_SEPARATOR = r"[\W_]"
_DAY = rf"20\d\d{_ONE}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_PROVINCE = "(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91)"  # no year begins like that
_BORN = r"(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_IN_NAMES = re.compile(
    rf"(?<!\d)(?<!\d{_SEPARATOR})(?:(?:00)?86{_ONE})?1[3-9]\d(?!{_ONE}{_DAY}){_ONE}\d{{4}}{_ONE}\d{{4}}"
    rf"(?!{_ONE}\d)"
    rf"|(?<!\d){_PROVINCE}\d{{4}}{_ONE}{_BORN}{_ONE}\d{{3}}[\dXx](?![\dA-Za-z])"
)
_DASHES = "-"
_AROUND = {"Mn", "Me"}  # categories of marks around the character before


def value_free_reason(reason: str, longest: int = LONGEST_REASON) -> str:
    """Return a person's words in one line, with ``…`` for what could be a customer's.

    Six digits or more in a row, mobile and ID numbers also across commas, and e-mail addresses.

    Args:
        reason: the words.
        longest: characters that are kept.
    """
    text = " ".join(reason.split())
    plain, places = _plain(text)
    kept, end = [], 0
    for match in _CUSTOMERS.finditer(plain):
        first, last = places[match.start()], places[match.end() - 1] + 1
        kept += [text[end:first], BLOTTED]
        end = max(end, last)
    kept.append(text[end:])
    return "".join(kept)[:longest]


def says_something(reason: str) -> bool:
    """Return whether anything but numbers and punctuation is left of a reason."""
    return any(character.isalpha() for character in value_free_reason(reason))


def names_a_person(name: str) -> bool:
    """Return whether the name of a thing, such as a batch, holds a mobile or ID number.

    Narrower than what is blotted out of reasons: dates and running numbers make most such names,
    and ``IN-000013`` is nobody's.
    """
    return _IN_NAMES.search(_plain(name)[0]) is not None


def _plain(text: str) -> tuple[str, list[int]]:
    """Return the text in its normal form (NFKC), and the place of each character in the original.

    Character by character, so that the reason itself is kept as it was typed.
    """
    plain: list[str] = []
    places: list[int] = []
    for at, character in enumerate(text):
        if is_invisible(character) or unicodedata.category(character) in _AROUND:
            continue
        for normal in unicodedata.normalize("NFKC", character):
            plain.append(_simple(normal))
            places.append(at)
    return "".join(plain), places


def _simple(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return _DASHES if kind == "Pd" or character == "\u2212" else character
