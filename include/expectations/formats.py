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
_PLAIN_MOBILE = "^1[3-9][0-9]+$"  # of eleven bytes
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, 6.1
CHECK_CHARACTERS = "10X98765432"


def no_mobile_number(text: str) -> str:
    """Not a mobile number of mainland China."""
    # As most are written, with nothing between the digits: in less than half the time
    plain = f"octet_length({text}) = 11 AND {text} ~ '{_PLAIN_MOBILE}'"
    return f"CASE WHEN {plain} THEN false ELSE {text} !~ '{MOBILE}' END"


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
    year, month, day = "d / 10000", "d / 100 % 100", "d % 100"
    leap = f"({year} % 4 = 0 AND {year} % 100 <> 0 OR {year} % 400 = 0)"
    last = (
        f"CASE WHEN {month} IN (4, 6, 9, 11) THEN 30 "
        f"WHEN {month} = 2 THEN CASE WHEN {leap} THEN 29 ELSE 28 END ELSE 31 END"
    )
    # All days that every month has need no more than the first three; converted once (OFFSET 0
    # keeps it so).
    real = (
        f"d BETWEEN 10101 AND {today}::int AND {month} BETWEEN 1 AND 12 AND {day} >= 1 "
        f"AND ({day} <= 28 OR {day} <= {last})"
    )
    born = f"(SELECT substr({text}, 7, 8)::int AS d OFFSET 0) AS birth"
    wrong = f"SELECT NOT ({real}) FROM {born}"  # noqa: S608 - names of ours
    return f"CASE WHEN {_has_resident_id_form(text)} THEN ({wrong}) END"


def no_resident_id_check_character(text: str) -> str:
    """The last character is not that of the weighted sum mod 11 (GB 11643-1999, 6).

    Numbers of another form are not looked at.
    """
    # Bytes of a text that is known to be ASCII, converted once (OFFSET 0 keeps it so): three
    # times as fast as seventeen pieces of text. Digits of equal weight are added up first, and the
    # 48 that a digit's byte has too much are taken off at the end.
    places: dict[int, list[str]] = {}
    for at, weight in enumerate(WEIGHTS):
        places.setdefault(weight, []).append(f"get_byte(b, {at})")
    terms = " + ".join(f"{weight} * ({' + '.join(found)})" for weight, found in places.items())
    total = f"({terms} - {ord('0') * sum(WEIGHTS)})"
    # The sum and the check character, X being 10, leave 1 (6.2); a sum that leaves 2 needs the X.
    wrong = (
        f"CASE WHEN get_byte(b, 17) <= {ord('9')} "
        f"THEN ({total} + get_byte(b, 17) - {ord('0')}) % 11 <> 1 ELSE {total} % 11 <> 2 END"
    )
    return (
        f"CASE WHEN {_has_resident_id_form(text)} THEN (SELECT {wrong} "  # noqa: S608 - names of ours
        f"FROM (SELECT {text}::bytea AS b OFFSET 0) AS bytes) END"
    )
