"""Handwritten queries that count the figures of an incident's severity and scope.

For each kind of scope, the module has the fastest of several queries. The queries rely on
properties of the tables: every customer has one row that contains most categories of data,
everybody who is named on a waybill is a customer, and some columns are never NULL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg

from benchmarks._incident_data import AS_OF, DEPARTMENT

COLLECTIONS = ("customer", "address", "consent", "waybill", "complaint")
_SETTINGS = "SET work_mem = '128MB'; SET TimeZone = 'Asia/Shanghai'"
_NAMED = 700  # number of the first account


@dataclass(frozen=True)
class Case:
    """A scope of affected records.

    Attributes:
        name: display name.
        accounts: number of accounts that opened records; 0 if the scope names no account.
        days: number of days before `AS_OF` in which records are affected; None for all time.
        department: whether only records of one department are affected.
    """

    name: str
    accounts: int = 0
    days: int | None = None
    department: bool = False

    @property
    def form(self) -> dict[str, Any]:
        """Return the fields of the trigger form for this scope."""
        figures: dict[str, Any] = {}
        if self.accounts:
            figures["accounts"] = "\n".join(self.numbers)
        if self.days:
            figures["since"] = (AS_OF - timedelta(days=self.days)).isoformat()
        if self.department:
            figures["departments"] = DEPARTMENT
        return figures

    @property
    def numbers(self) -> list[str]:
        """Return the staff numbers of the accounts."""
        return [f"E{number:05}" for number in range(_NAMED, _NAMED + self.accounts)]


CASES = {
    "everything": Case("everything"),
    "account": Case("1 account, 90 days, by the log", accounts=1, days=90),
    "accounts": Case("100 accounts, by the log", accounts=100),
    "window": Case("1 of 6 departments, 180 days", days=180, department=True),
}


@dataclass
class Figures:
    """The counted figures of a scope, with times as PostgreSQL returns them."""

    subjects: int = 0
    minors: int = 0
    age_unknown: int = 0
    sensitive: int = 0
    records: dict[str, int] = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)
    moments: list[Any] = field(default_factory=list)

    def take(self, collection: str, row: Mapping[str, Any]) -> None:
        """Add the number of records of a collection, and the first and the last time."""
        self.records[collection] = row["records"]
        self.moments += [row["first"], row["last"]]

    def as_json(self) -> dict[str, Any]:
        """Return the figures in the form in which they are compared with ParcelSeal's figures."""
        moments = [moment for moment in self.moments if moment is not None]
        return {
            "subjects": self.subjects,
            "minors": self.minors,
            "age_unknown": self.age_unknown,
            "sensitive": self.sensitive,
            "records": self.records,
            "categories": {name: count for name, count in self.categories.items() if count},
            "first": min(moments).timestamp() if moments else None,
            "last": max(moments).timestamp() if moments else None,
        }


_OPENED = """
CREATE TEMP TABLE opened AS
SELECT DISTINCT customer_id FROM access_log
WHERE employee_id IN (SELECT employee_id FROM employee WHERE number = ANY (%(accounts)s))
"""
# %(where)s is the condition that selects the affected customers.
_PEOPLE = """
SELECT count(*) AS people,
    count(*) FILTER (WHERE birth_date > %(moment)s::timestamptz - interval '14 years') AS minors,
    count(birth_date) AS birth,
    count(*) FILTER (WHERE id_number <> '' OR religion <> ''
        OR birth_date > %(moment)s::timestamptz - interval '14 years') AS sensitive,
    count(*) FILTER (WHERE id_number <> '') AS id_number,
    count(*) FILTER (WHERE religion <> '') AS religion,
    count(*) FILTER (WHERE name <> '') AS name,
    count(*) FILTER (WHERE phone <> '') AS phone,
    count(*) FILTER (WHERE email <> '') AS email,
    count(preferences) AS settings, count(default_address_id) AS address,
    min(created_at) AS first, max(created_at) AS last
FROM customer
"""
_ADDRESSES = """
SELECT count(*) AS records, count(DISTINCT customer_id) AS people, min(created_at) AS first,
    max(created_at) AS last FROM address
"""
_CONSENTS = """
SELECT count(*) AS records, min(given_at) AS first, max(given_at) AS last FROM consent
"""
_COMPLAINTS = """
SELECT count(*) AS records, count(DISTINCT customer_id) AS people, min(opened_at) AS first,
    max(opened_at) AS last FROM complaint
"""
_WAYBILLS = """
SELECT count(*) AS records, min(created_at) AS first, max(created_at) AS last FROM waybill
"""
# Customers without a phone number in their record, but with a phone number on a waybill.
_PHONES = """
SELECT count(*) AS people FROM customer c WHERE phone IS NULL AND EXISTS (
    SELECT FROM waybill WHERE sender_id = c.customer_id
    UNION ALL SELECT FROM waybill WHERE receiver_id = c.customer_id)
"""
_OF_OPENED = " WHERE customer_id IN (SELECT customer_id FROM opened)"
_WAYBILLS_OF_FEW = """
SELECT count(*) AS records, min(created_at) AS first, max(created_at) AS last FROM (
    SELECT waybill_id, created_at FROM waybill JOIN opened o ON o.customer_id = sender_id
    UNION SELECT waybill_id, created_at FROM waybill JOIN opened o ON o.customer_id = receiver_id
) AS w
"""
_WAYBILLS_OF_MANY = """
SELECT count(*) AS records, min(created_at) AS first, max(created_at) AS last FROM waybill
LEFT JOIN opened s ON s.customer_id = sender_id LEFT JOIN opened r ON r.customer_id = receiver_id
WHERE s.customer_id IS NOT NULL OR r.customer_id IS NOT NULL
"""


def _whole_people(connection: psycopg.Connection[Any], case: Case) -> Figures:
    """Count the figures of a scope that affects all records of its customers.

    The customers are all customers, or those whose records the accounts opened.
    """
    figures, where = Figures(), ""
    if case.accounts:
        where = _OF_OPENED
        window = f" AND accessed_at >= '{case.form['since']}'" if case.days else ""
        connection.execute((_OPENED + window).encode(), {"accounts": case.numbers})
        connection.execute("ANALYZE opened")

    def row(query: str) -> dict[str, Any]:
        return _row(connection, query)

    people, addresses = row(_PEOPLE + where), row(_ADDRESSES + where)
    complaints = row(_COMPLAINTS + where)
    waybills = _WAYBILLS
    if case.accounts:
        waybills = _WAYBILLS_OF_FEW if case.accounts == 1 else _WAYBILLS_OF_MANY
    figures.take("customer", people | {"records": people["people"]})
    figures.take("address", addresses)
    figures.take("consent", row(_CONSENTS + where))
    figures.take("waybill", row(waybills))
    figures.take("complaint", complaints)
    phones = row(_PHONES + where.replace("WHERE", "AND"))
    figures.subjects, figures.minors = people["people"], people["minors"]
    figures.age_unknown = people["people"] - people["birth"]
    figures.sensitive = people["sensitive"]
    figures.categories = {
        **dict.fromkeys(_OF_EVERYBODY, people["people"]),
        **dict.fromkeys(_OF_ADDRESSES, addresses["people"]),
        "user.contact.address": people["address"],
        "user.contact.email": people["email"],
        "user.contact.phone_number": people["phone"] + phones["people"],
        "user.content.private": complaints["people"],
        "user.demographic.date_of_birth": people["birth"],
        "user.demographic.religious_belief": people["religion"],
        "user.government_id.national_identification_number": people["id_number"],
        "user.name": people["name"],
        "user.account.settings": people["settings"],
    }
    return figures


_OF_EVERYBODY = ("user.account", "user.privacy_preferences", "user.unique_id")
_OF_ADDRESSES = (
    "user.contact.address.city",
    "user.contact.address.state",
    "user.contact.address.street",
)
_ANSWERS = "department_id = (SELECT department_id FROM department WHERE name = %(department)s)"
_MADE = {"address": "created_at", "consent": "given_at", "complaint": "opened_at"}
_BITS = {"customer": 1, "address": 2, "consent": 4, "complaint": 8, "waybill": 16}
_OF_WAYBILLS = f"""
FROM waybill w JOIN customer s ON s.customer_id = sender_id
JOIN customer r ON r.customer_id = receiver_id
WHERE w.created_at >= %(since)s AND (s.{_ANSWERS} OR r.{_ANSWERS})
"""


def _window(connection: psycopg.Connection[Any], case: Case) -> Figures:
    """Count the records of a department that were created in a period, and their data subjects."""
    sources = {
        "customer": f"customer WHERE {_ANSWERS} AND created_at >= %(since)s",
        **{
            name: f"{name} r JOIN customer USING (customer_id) WHERE {_ANSWERS}"
            f" AND r.{at} >= %(since)s"
            for name, at in _MADE.items()
        },
    }
    values = {"since": case.form["since"], "department": DEPARTMENT}
    figures = Figures()
    for name, source in sources.items():
        at = f"r.{_MADE[name]}" if name in _MADE else "created_at"
        span = f"SELECT count(*) AS records, min({at}) AS first, max({at}) AS last FROM {source}"  # noqa: S608 - constants
        figures.take(name, _row(connection, span, values))
    span = "SELECT count(*) AS records, min(w.created_at) AS first, max(w.created_at) AS last"
    figures.take("waybill", _row(connection, span + _OF_WAYBILLS, values))
    marked = " UNION ALL ".join(
        [
            *(
                f"SELECT customer_id, {_BITS[name]} AS has FROM {source}"  # noqa: S608 - constants
                for name, source in sources.items()
            ),
            f"SELECT unnest(ARRAY[sender_id, receiver_id]), {_BITS['waybill']} {_OF_WAYBILLS}",
        ]
    )
    people = _row(connection, _MARKED.format(marked), values)
    figures.subjects, figures.minors = people.pop("people"), people.pop("minors")
    figures.age_unknown, figures.sensitive = people.pop("age_unknown"), people.pop("sensitive")
    figures.categories = people | dict.fromkeys(_OF_ADDRESSES, people.pop("places"))
    return figures


# Bits of `has`: a customer's own row 1, address 2, consent 4, complaint 8, waybill 16.
_MARKED = """
SELECT count(*) AS people,
    count(*) FILTER (WHERE birth_date > %(moment)s::timestamptz - interval '14 years') AS minors,
    count(*) FILTER (WHERE birth_date IS NULL) AS age_unknown,
    count(*) FILTER (WHERE has & 1 > 0 AND (id_number <> '' OR religion <> '')
        OR birth_date > %(moment)s::timestamptz - interval '14 years') AS sensitive,
    count(*) FILTER (WHERE has & 1 > 0) AS "user.account",
    count(preferences) FILTER (WHERE has & 1 > 0) AS "user.account.settings",
    count(*) FILTER (WHERE has & 18 > 0 OR has & 1 > 0 AND default_address_id IS NOT NULL)
        AS "user.contact.address",
    count(*) FILTER (WHERE has & 2 > 0) AS places,
    count(*) FILTER (WHERE has & 1 > 0 AND email <> '') AS "user.contact.email",
    count(*) FILTER (WHERE has & 16 > 0 OR has & 1 > 0 AND phone <> '')
        AS "user.contact.phone_number",
    count(*) FILTER (WHERE has & 8 > 0) AS "user.content.private",
    count(birth_date) FILTER (WHERE has & 1 > 0) AS "user.demographic.date_of_birth",
    count(*) FILTER (WHERE has & 1 > 0 AND religion <> '') AS "user.demographic.religious_belief",
    count(*) FILTER (WHERE has & 1 > 0 AND id_number <> '')
        AS "user.government_id.national_identification_number",
    count(*) FILTER (WHERE has & 16 > 0 OR has & 1 > 0 AND name <> '') AS "user.name",
    count(*) FILTER (WHERE has & 5 > 0) AS "user.privacy_preferences",
    count(*) AS "user.unique_id"
FROM (SELECT customer_id, bit_or(has) AS has FROM ({}) AS marked GROUP BY 1) AS affected
JOIN customer USING (customer_id)
"""


def count(conninfo: str, case: Case) -> dict[str, Any]:
    """Return the figures of a scope, counted with the handwritten queries."""
    with psycopg.connect(conninfo) as connection:
        connection.execute(_SETTINGS)
        figures = _window(connection, case) if case.department else _whole_people(connection, case)
        return figures.as_json()


def _row(
    connection: psycopg.Connection[Any], query: str, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(query.encode(), {"moment": AS_OF, **(values or {})}).fetchone()
    assert row is not None
    return row
