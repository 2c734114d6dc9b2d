"""Formats of Chinese and international personal data, as conditions in SQL.

Each function takes an SQL text expression and returns a boolean one that is true where the text
has *not* the format. Null stays null: what is not there has no format.
"""

from __future__ import annotations

# After +86, spaces and hyphens: 1, then 3 to 9, then nine digits (MIIT numbering plan).
MOBILE = r"^[ -]*(\+86)?[ -]*1[ -]*[3-9]([ -]*[0-9]){9}[ -]*$"
# The part before the at sign as RFC 5321 has it unquoted, and a host name with a dot. Lengths are
# counted outside: PostgreSQL takes fifty times as long for bounds like {1,64}.
EMAIL = r"^[^\s@,;:<>()\"]+@([0-9A-Za-z-]+\.)+[0-9A-Za-z-]+$"
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, 6.1
CHECK_CHARACTERS = "10X98765432"


def no_mobile_number(text: str) -> str:
    """Not a mobile number of mainland China."""
    return f"{text} !~ '{MOBILE}'"


def no_email_address(text: str) -> str:
    """Not an e-mail address."""
    return f"NOT (length({text}) <= 254 AND {text} ~ '{EMAIL}')"


def blank(text: str) -> str:
    """Null, empty, or nothing but white space and invisible characters."""
    invisible = r"^[\s\u00a0\u200b-\u200f\u2028-\u202e\u2060\u3000\ufeff]*$"
    return f"({text} IS NULL OR {text} ~ '{invisible}')"


def _has_resident_id_form(text: str) -> str:
    # Length apart from pattern: counting seventeen digits inside it takes half as long again
    return f"(octet_length({text}) = 18 AND {text} ~ '^[0-9]+[0-9Xx]$')"


def no_resident_id_form(text: str) -> str:
    """Not 17 digits and a digit or X (GB 11643-1999)."""
    return f"NOT {_has_resident_id_form(text)}"


def no_resident_id_birth_date(text: str, today: str) -> str:
    """Digits 7 to 14 are no day of the calendar, or one in the future (GB 11643-1999, 4.2).

    Numbers of another form are not looked at.

    Args:
        text: SQL expression of the number.
        today: SQL expression of the present day as ``YYYYMMDD``.
    """
    year, month, day = (f"substr({text}, {at}, {n})::int" for at, n in ((7, 4), (11, 2), (13, 2)))
    leap = f"({year} % 4 = 0 AND {year} % 100 <> 0 OR {year} % 400 = 0)"
    last = (
        f"CASE WHEN {month} IN (4, 6, 9, 11) THEN 30 "
        f"WHEN {month} = 2 THEN CASE WHEN {leap} THEN 29 ELSE 28 END ELSE 31 END"
    )
    real = (
        f"{year} > 0 AND {month} BETWEEN 1 AND 12 AND {day} BETWEEN 1 AND {last} "
        f"AND substr({text}, 7, 8) <= {today}"
    )
    return f"CASE WHEN {_has_resident_id_form(text)} THEN NOT ({real}) END"


def no_resident_id_check_character(text: str) -> str:
    """The last character is not that of the weighted sum mod 11 (GB 11643-1999, 6).

    Numbers of another form are not looked at.
    """
    # Bytes of a text that is known to be ASCII, converted once (OFFSET 0 keeps it so): three
    # times as fast as seventeen pieces of text.
    terms = " + ".join(f"{weight} * (get_byte(b, {at}) - 48)" for at, weight in enumerate(WEIGHTS))
    right = (
        f"(SELECT substr('{CHECK_CHARACTERS}', 1 + ({terms}) % 11, 1) "  # noqa: S608 - names of ours
        f"FROM (SELECT convert_to({text}, 'UTF8') AS b OFFSET 0) AS bytes)"
    )
    return (
        f"CASE WHEN {_has_resident_id_form(text)} THEN upper(substr({text}, 18, 1)) <> {right} END"
    )
