"""The rules of the shipped customer suite as tuned SQL, written by hand without ParcelSeal.

`statement` is the baseline and returns every count in one statement. The other tools get the same
conditions, so that all tools search for the same records with equally fast predicates. The SQL
contains only constants of this module and the time of the check.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from include.expectations import formats

KEY = "customer_id"
_CONSENT = "SELECT FROM consent AS o WHERE o.customer_id = c.customer_id"
_RENEWED = (
    "SELECT FROM consent AS l WHERE l.customer_id = o.customer_id AND l.purpose = o.purpose"
    " AND l.withdrawn_at IS NULL AND l.given_at >= o.withdrawn_at"
)
_WITHDRAWN = (
    f"{_CONSENT} AND o.purpose = 'marketing' AND o.withdrawn_at IS NOT NULL"
    f" AND NOT EXISTS ({_RENEWED})"
)
_VALID_DIVISION = (  # valid on the holder's birth date
    "SELECT FROM administrative_division AS d WHERE d.code::text = substr(c.id_number, 1, 6)"
    " AND (d.retired_on IS NULL"
    " OR to_char(d.retired_on, 'YYYYMMDD') >= substr(c.id_number, 7, 8))"
)


def row_rules(now: datetime) -> dict[str, str]:
    """Return the SQL condition of a violation, by rule, for rules that need only the row itself."""
    moment, today = f"timestamptz '{now.isoformat()}'", f"'{now:%Y%m%d}'"
    return {
        "missing_name": formats.blank("name"),
        "missing_phone": "phone IS NULL",
        "invalid_phone": formats.not_mobile_number("phone"),
        "missing_id_number": "id_number IS NULL",
        "invalid_id_form": formats.not_resident_id_form("id_number"),
        "invalid_id_birth_date": formats.not_resident_id_birth_date("id_number", today),
        "invalid_id_check_digit": formats.not_resident_id_check_character("id_number"),
        "invalid_email": formats.not_email_address("email"),
        "stale_customer": f"status <> 'closed' AND verified_at < {moment} - interval '365 days'",
        "no_reviewer": "reviewed_by IS NULL",
        "reviewer_is_enterer": "reviewed_by = entered_by",
        "over_collected_religion": "religion IS NOT NULL",
    }


def joined_rules(now: datetime) -> dict[str, str]:
    """Return the SQL condition of a violation, by rule, for rules that need other rows.

    The conditions are about a customer ``c``. A duplicate is counted if an earlier customer has the
    same identity, which is the cheapest correct way: a hash join of 0.22 s for 200,000 customers.
    Grouping takes 0.31 to 0.50 s, and counting distinct rows 1.7 s.
    """
    form = f"NOT ({formats.not_resident_id_form('c.id_number')})"
    child = f"c.birth_date > timestamptz '{now.isoformat()}' - interval '14 years'"
    return {
        "unknown_id_division": f"{form} AND NOT EXISTS ({_VALID_DIVISION})",
        "duplicate_customer": (
            "EXISTS (SELECT FROM customer AS b WHERE b.name = c.name AND b.phone = c.phone"
            " AND b.id_number = c.id_number AND b.customer_id < c.customer_id)"
        ),
        "consent_missing": f"NOT EXISTS ({_CONSENT})",
        "consent_not_covering_purpose": (
            f"c.marketing_subscribed AND NOT EXISTS ({_CONSENT} AND o.purpose = 'marketing')"
        ),
        "consent_withdrawn": f"c.marketing_subscribed AND EXISTS ({_WITHDRAWN})",
        "minor_without_guardian_consent": (
            f"{child} AND NOT EXISTS ({_CONSENT} AND o.by_guardian AND o.withdrawn_at IS NULL)"
        ),
    }


def statement(now: datetime) -> str:
    """Return the statement that yields all counts in one row, with a column for each rule."""
    return "SELECT " + ",\n  ".join(_counts(now)) + "\nFROM customer"


def _counts(now: datetime) -> Iterator[str]:
    yield 'count(*) AS "rows"'
    for rule, broken in row_rules(now).items():
        yield f"count(*) FILTER (WHERE {broken}) AS {rule}"
    for rule, broken in joined_rules(now).items():
        yield f"(SELECT count(*) FROM customer AS c WHERE {broken}) AS {rule}"  # noqa: S608 - constants
