"""Formats of Chinese and international personal data, as conditions in SQL.

Each function takes an SQL text expression and returns a boolean one that is true where the text
has *not* the format. Null stays null: what is not there has no format.
"""

from __future__ import annotations

import calendar

# After +86, 86 or 0086, spaces and hyphens: 1, then 3 to 9, then nine digits (MIIT numbering plan).
MOBILE = r"^[ -]*((\+|00)?86)?[ -]*1[ -]*[3-9]([ -]*[0-9]){9}[ -]*$"
# The part before the at sign as RFC 5321 has it unquoted, and a host name with a dot. Lengths are
# counted outside: PostgreSQL takes fifty times as long for bounds like {1,64}.
EMAIL = r"^[^\s@,;:<>()\"]+@([0-9A-Za-z-]+\.)+[0-9A-Za-z-]+$"
_PLAIN_EMAIL = r"^[0-9A-Za-z._+-]+@[0-9A-Za-z-]+\.[0-9A-Za-z-]+$"
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, 6.1
_IN_EVERY_YEAR = [  # month and day
    f"{month:02}{day:02}"
    for month in range(1, 13)
    for day in range(1, calendar.monthrange(2001, month)[1] + 1)
]


def no_mobile_number(text: str) -> str:
    """Not a mobile number of mainland China."""
    # As most are written, with nothing between the digits: in less than half the time. Bytes,
    # since PostgreSQL looks up the width of every character of a text.
    digits = f"btrim(textsend({text}), '0123456789'::bytea) = ''::bytea"
    started = f"{text} COLLATE \"C\" BETWEEN '13' AND '2'"
    plain = f"octet_length({text}) = 11 AND {started} AND {digits}"
    return f"CASE WHEN {plain} THEN false ELSE {text} !~ '{MOBILE}' END"


def no_email_address(text: str) -> str:
    """Not an e-mail address; at most 254 octets (RFC 5321, 4.5.3.1.3, less its brackets)."""
    short = f"octet_length({text}) <= 254"
    plain = f"{short} AND {text} ~ '{_PLAIN_EMAIL}'"  # as most are: in two thirds of the time
    return f"CASE WHEN {plain} THEN false ELSE NOT ({short} AND {text} ~ '{EMAIL}') END"


def blank(text: str) -> str:
    """Null, empty, or nothing but white space and invisible characters."""
    invisible = r"^[\s\u00a0\u200b-\u200f\u2028-\u202e\u2060\u3000\ufeff]*$"
    return f"({text} IS NULL OR {text} ~ '{invisible}')"


def _has_resident_id_form(text: str) -> str:
    # What its digits leave at the end, in bytes: in two thirds of a regular expression's time.
    left = f"ltrim(textsend({text}), '0123456789'::bytea)"
    return f"(octet_length({text}) = 18 AND {left} IN (''::bytea, 'X'::bytea, 'x'::bytea))"


def resident_id_octets(text: str) -> str:
    """The number's bytes where it has the form of one, else null.

    Three rules ask for them: a query that asks them all gives each this, evaluated once.
    """
    return f"CASE WHEN {_has_resident_id_form(text)} THEN {text}::bytea END"


def no_resident_id_form(text: str, octets: str | None = None) -> str:
    """Not 17 digits and a digit or X (GB 11643-1999).

    Args:
        text: SQL expression of the number.
        octets: SQL expression of its `resident_id_octets`, where they are at hand.
    """
    if octets is not None:
        return f"({text} IS NOT NULL AND {octets} IS NULL)"
    return f"NOT {_has_resident_id_form(text)}"


def no_resident_id_birth_date(text: str, today: str, octets: str | None = None) -> str:
    """Digits 7 to 14 are no day of the calendar, or one in the future (GB 11643-1999, 4.2).

    Nor is a day before 1900: nobody born then is alive. Numbers of another form are not looked at.

    Args:
        text: SQL expression of the number.
        today: SQL expression of the present day as ``YYYYMMDD``.
        octets: SQL expression of its `resident_id_octets`, where they are at hand.
    """
    known, octets = _known(text, octets)
    year = f"substr({text}, 7, 4)::int"
    leap = f"({year} % 4 = 0 AND {year} % 100 <> 0 OR {year} % 400 = 0)"
    days = "{" + ",".join(_IN_EVERY_YEAR) + "}"
    # One look into a list that PostgreSQL hashes is cheaper than cutting month and day apart.
    real = (
        f"(substr({octets}, 11, 4) = ANY ('{days}'::bytea[])"
        f" OR substr({octets}, 11, 4) = '0229'::bytea AND {leap})"
    )
    past = f"substr({octets}, 7, 8) BETWEEN '19000101'::bytea AND ({today})::text::bytea"
    return f"CASE WHEN {known} THEN NOT ({real} AND {past}) END"


def no_resident_id_check_character(text: str, octets: str | None = None) -> str:
    """The last character is not that of the weighted sum mod 11 (GB 11643-1999, 6).

    Numbers of another form are not looked at.

    Args:
        text: SQL expression of the number.
        octets: SQL expression of its `resident_id_octets`, where they are at hand.
    """
    known, octets = _known(text, octets)
    # Digits of equal weight are added up first, and the 48 that a digit's byte has too much are
    # taken off at the end. No subquery holds the bytes: PostgreSQL would do without its workers.
    places: dict[int, list[str]] = {}
    for at, weight in enumerate(WEIGHTS):
        places.setdefault(weight, []).append(f"get_byte({octets}, {at})")
    terms = " + ".join(f"{weight} * ({' + '.join(found)})" for weight, found in places.items())
    total = f"({terms} - {ord('0') * sum(WEIGHTS)})"
    last = f"get_byte({octets}, 17)"
    # The sum and the check character, X being 10, leave 1 (6.2); a sum that leaves 2 needs the X.
    wrong = (
        f"CASE WHEN {last} <= {ord('9')} "
        f"THEN ({total} + {last} - {ord('0')}) % 11 <> 1 ELSE {total} % 11 <> 2 END"
    )
    return f"CASE WHEN {known} THEN {wrong} END"


def _known(text: str, octets: str | None) -> tuple[str, str]:
    """The condition for the right form, and the bytes of a number that has it."""
    if octets is not None:
        return f"{octets} IS NOT NULL", octets
    return _has_resident_id_form(text), f"{text}::bytea"
