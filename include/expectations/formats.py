"""Build SQL conditions for the formats of personal data, such as phone and ID numbers.

Most functions take the SQL expression of a text, and return an SQL condition that is true if the
text does *not* have the format, and null if the text is null.
"""

from __future__ import annotations

import calendar

# After +86, 86 or 0086, spaces and hyphens: 1, then 3 to 9, then nine digits (MIIT numbering plan).
MOBILE = r"^[ -]*((\+|00)?86)?[ -]*1[ -]*[3-9]([ -]*[0-9]){9}[ -]*$"
# An unquoted local part by RFC 5321, and a host name with a dot. The function checks the lengths,
# because PostgreSQL takes fifty times as long for a quantifier like {1,64}.
EMAIL = r"^[^\s@,;:<>()\"]+@([0-9A-Za-z-]+\.)+[0-9A-Za-z-]+$"
_PLAIN_EMAIL = r"^[0-9A-Za-z._+-]+@[0-9A-Za-z-]+\.[0-9A-Za-z-]+$"
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, 6.1
_IN_EVERY_YEAR = [  # month and day
    f"{month:02}{day:02}"
    for month in range(1, 13)
    for day in range(1, calendar.monthrange(2001, month)[1] + 1)
]


def not_mobile_number(text: str) -> str:
    """Return the condition that a text is not a mobile number of mainland China."""
    # Fast path for plain digits, in less than half the time. It compares bytes: PostgreSQL looks up
    # the width of every character of a text.
    digits = f"btrim(textsend({text}), '0123456789'::bytea) = ''::bytea"
    started = f"{text} COLLATE \"C\" BETWEEN '13' AND '2'"
    plain = f"octet_length({text}) = 11 AND {started} AND {digits}"
    return f"CASE WHEN {plain} THEN false ELSE {text} !~ '{MOBILE}' END"


def not_email_address(text: str) -> str:
    """Return the condition that a text is not an e-mail address of up to 254 octets (RFC 5321)."""
    short = f"octet_length({text}) <= 254"
    plain = f"{short} AND {text} ~ '{_PLAIN_EMAIL}'"  # fast path for most addresses
    return f"CASE WHEN {plain} THEN false ELSE NOT ({short} AND {text} ~ '{EMAIL}') END"


def blank(text: str) -> str:
    """Return the condition that a text is null or has no visible characters."""
    invisible = r"^[\s\u00a0\u200b-\u200f\u2028-\u202e\u2060\u3000\ufeff]*$"
    return f"({text} IS NULL OR {text} ~ '{invisible}')"


def _has_resident_id_form(text: str) -> str:
    # Trims the digits and compares the rest as bytes: two thirds of a regular expression's time.
    left = f"ltrim(textsend({text}), '0123456789'::bytea)"
    return f"(octet_length({text}) = 18 AND {left} IN (''::bytea, 'X'::bytea, 'x'::bytea))"


def resident_id_octets(text: str) -> str:
    """Return SQL for the bytes of a resident ID number.

    The SQL is null if the text does not have the format of a resident ID number. Three expectations
    need the bytes. A query for several expectations can compute them once per record, in an
    additional column.

    Args:
        text: SQL expression of the text.
    """
    return f"CASE WHEN {_has_resident_id_form(text)} THEN {text}::bytea END"


def not_resident_id_form(text: str, octets: str | None = None) -> str:
    """Return the condition that a text is not 17 digits followed by a digit or X (GB 11643-1999).

    Args:
        text: SQL expression of the text.
        octets: SQL expression of the column with the result of `resident_id_octets`, or None if the
            query has no such column.
    """
    if octets is not None:
        return f"({text} IS NOT NULL AND {octets} IS NULL)"
    return f"NOT {_has_resident_id_form(text)}"


def not_resident_id_birth_date(text: str, today: str, octets: str | None = None) -> str:
    """Return the condition that an ID number contains no birth date between 1900 and today.

    The birth date is in digits 7 to 14 (GB 11643-1999, 4.2). The condition is null for a text that
    is not in the format of a resident ID number.

    Args:
        text: SQL expression of the ID number.
        today: SQL expression of today's date as ``YYYYMMDD``.
        octets: SQL expression of the column with the result of `resident_id_octets`, or None if the
            query has no such column.
    """
    has_form, octets = _form_and_octets(text, octets)
    year = f"substr({text}, 7, 4)::int"
    leap = f"({year} % 4 = 0 AND {year} % 100 <> 0 OR {year} % 400 = 0)"
    days = "{" + ",".join(_IN_EVERY_YEAR) + "}"
    # A single lookup in a list that PostgreSQL hashes is cheaper than separating month and day.
    real = (
        f"(substr({octets}, 11, 4) = ANY ('{days}'::bytea[])"
        f" OR substr({octets}, 11, 4) = '0229'::bytea AND {leap})"
    )
    past = f"substr({octets}, 7, 8) BETWEEN '19000101'::bytea AND ({today})::text::bytea"
    return f"CASE WHEN {has_form} THEN NOT ({real} AND {past}) END"


def not_resident_id_check_character(text: str, octets: str | None = None) -> str:
    """Return the condition that the check character of an ID number is wrong (GB 11643-1999, 6).

    The condition is null for a text that is not in the format of a resident ID number.

    Args:
        text: SQL expression of the ID number.
        octets: SQL expression of the column with the result of `resident_id_octets`, or None if the
            query has no such column.
    """
    has_form, octets = _form_and_octets(text, octets)
    # Sums digits of equal weight first, and subtracts the 48 of ASCII digits at the end. A subquery
    # for the bytes would disable PostgreSQL's parallel workers.
    bytes_by_weight: dict[int, list[str]] = {}
    for at, weight in enumerate(WEIGHTS):
        bytes_by_weight.setdefault(weight, []).append(f"get_byte({octets}, {at})")
    terms = " + ".join(
        f"{weight} * ({' + '.join(digits)})" for weight, digits in bytes_by_weight.items()
    )
    total = f"({terms} - {ord('0') * sum(WEIGHTS)})"
    last = f"get_byte({octets}, 17)"
    # The sum plus the check character (X is 10) must be 1 modulo 11 (6.2); a sum of 2 needs an X.
    wrong = (
        f"CASE WHEN {last} <= {ord('9')} "
        f"THEN ({total} + {last} - {ord('0')}) % 11 <> 1 ELSE {total} % 11 <> 2 END"
    )
    return f"CASE WHEN {has_form} THEN {wrong} END"


def _form_and_octets(text: str, octets: str | None) -> tuple[str, str]:
    """Return SQL for the condition that a text is an ID number, and SQL for its bytes.

    Args:
        text: SQL expression of the text.
        octets: SQL expression of the column with the result of `resident_id_octets`, or None if the
            query has no such column.
    """
    if octets is not None:
        return f"{octets} IS NOT NULL", octets
    return _has_resident_id_form(text), f"{text}::bytea"
