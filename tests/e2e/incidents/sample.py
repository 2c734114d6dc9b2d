"""What the sample's database says of an incident, in plain SQL that ParcelSeal has no part in."""

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
"""Where the people of each duty work."""
_RECORDS = {
    "customer": "customer_id = ANY(%(people)s)",
    "address": "customer_id = ANY(%(people)s)",
    "consent": "customer_id = ANY(%(people)s)",
    "waybill": "sender_id = ANY(%(people)s) OR receiver_id = ANY(%(people)s)",
    "complaint": "customer_id = ANY(%(people)s)",
}


@dataclass(frozen=True)
class Affected:
    """Who and what is affected.

    Attributes:
        people: their numbers.
        records: records by collection.
        mail: addresses of those who have one, by number.
    """

    people: Sequence[int]
    records: Mapping[str, int]
    mail: Mapping[int, str]

    @property
    def list_sha256(self) -> str:
        """Digest of the list as docs/incidents.md has it: a line each, sorted by code points."""
        lines = sorted(f"courier/{one}\n" for one in self.people)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """The sample company.

    Args:
        conninfo: of its database, as one who may read everything.
    """

    conninfo: str

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with psycopg.connect(self.conninfo) as conn:
            return conn.execute(query.encode(), values).fetchall()

    def team(self) -> dict[str, list[str]]:
        """Who does each duty: whoever works there today."""
        query = (
            "SELECT d.name, e.number FROM employee e JOIN department d USING (department_id) "
            "WHERE e.left_on IS NULL AND NOT coalesce("
            "current_date BETWEEN e.leave_from AND e.leave_until, false) ORDER BY e.number"
        )
        found: dict[str, list[str]] = {}
        for department, number in self.rows(query):
            found.setdefault(department, []).append(number)
        return {duty: found[name] for duty, name in DEPARTMENTS.items()}

    def of_people(self, query: str, values: Mapping[str, Any] | None = None) -> Affected:
        """People that a query names, with all records about them."""
        people = sorted({number for (number,) in self.rows(query, values)})
        records = {
            table: self.rows(f"SELECT count(*) FROM {table} WHERE {about}", {"people": people})[0][
                0
            ]
            for table, about in _RECORDS.items()
        }
        return Affected(people, records, self._mail(people))

    def of_papers(self, condition: str, values: Mapping[str, Any]) -> Affected:
        """Waybills, with everybody who stands on them."""
        query = f"SELECT waybill_id, sender_id, receiver_id FROM waybill w WHERE {condition}"
        papers = self.rows(query, values)
        people = sorted({one for _number, *both in papers for one in both})
        return Affected(people, {"waybill": len(papers)}, self._mail(people))

    def _mail(self, people: Sequence[int]) -> dict[int, str]:
        query = (
            "SELECT customer_id, email FROM customer "
            "WHERE customer_id = ANY(%(people)s) AND email IS NOT NULL"
        )
        return dict(self.rows(query, {"people": list(people)}))
