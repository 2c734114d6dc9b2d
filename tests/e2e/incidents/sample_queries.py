"""Queries in plain SQL that compute expected results without ParcelSeal's code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

DEPARTMENTS = {
    "command": "信息管理部",
    "technical": "信息技术部",
    "compliance": "合规部",
    "customer_service": "客户服务部",
    "management": "公司总部",
}
"""Duty -> department of its people."""
_RECORDS = {
    "customer": "customer_id = ANY(%(people)s)",
    "address": "customer_id = ANY(%(people)s)",
    "consent": "customer_id = ANY(%(people)s)",
    "waybill": "sender_id = ANY(%(people)s) OR receiver_id = ANY(%(people)s)",
    "complaint": "customer_id = ANY(%(people)s)",
}


@dataclass(frozen=True)
class Affected:
    """The people and records that an incident affects.

    Attributes:
        people: customer numbers.
        records: number of records by collection.
        mail: e-mail addresses by customer number, as far as customers have one.
    """

    people: Sequence[int]
    records: Mapping[str, int]
    mail: Mapping[int, str]

    @property
    def list_sha256(self) -> str:
        """Digest of the list of affected people (docs/explanation/incident-scope.md)."""
        lines = sorted(f"courier/{person}\n" for person in self.people)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """A database of the sample company.

    Args:
        conninfo: connection string with a login that may read everything.
    """

    conninfo: str

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query, and return its rows."""
        with psycopg.connect(self.conninfo) as conn:
            return conn.execute(query.encode(), values).fetchall()

    def team(self) -> dict[str, list[str]]:
        """Return the user ids of the employees who are at work today, by duty."""
        query = (
            "SELECT d.name, e.number FROM employee e JOIN department d USING (department_id) "
            "WHERE e.left_on IS NULL AND NOT coalesce("
            "current_date BETWEEN e.leave_from AND e.leave_until, false) ORDER BY e.number"
        )
        numbers: dict[str, list[str]] = {}
        for department, number in self.rows(query):
            numbers.setdefault(department, []).append(number)
        return {duty: numbers[name] for duty, name in DEPARTMENTS.items()}

    def of_people(self, query: str, values: Mapping[str, Any] | None = None) -> Affected:
        """Return the customers that a query selects, with all records about them."""
        people = sorted({number for (number,) in self.rows(query, values)})
        records = {
            table: self.rows(f"SELECT count(*) FROM {table} WHERE {about}", {"people": people})[0][
                0
            ]
            for table, about in _RECORDS.items()
        }
        return Affected(people, records, self._mail(people))

    def of_papers(self, condition: str, values: Mapping[str, Any]) -> Affected:
        """Return the waybills that fulfil a condition, with the customers who are named on them."""
        query = f"SELECT waybill_id, sender_id, receiver_id FROM waybill w WHERE {condition}"
        papers = self.rows(query, values)
        people = sorted({number for _number, *customers in papers for number in customers})
        return Affected(people, {"waybill": len(papers)}, self._mail(people))

    def _mail(self, people: Sequence[int]) -> dict[int, str]:
        query = (
            "SELECT customer_id, email FROM customer "
            "WHERE customer_id = ANY(%(people)s) AND email IS NOT NULL"
        )
        return dict(self.rows(query, {"people": list(people)}))
