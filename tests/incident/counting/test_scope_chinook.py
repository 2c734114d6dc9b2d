"""Chinook with its own pack: what is affected, by its own SQL, is what plain Python counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.incident.assessing import propose
from include.incident.counting.database import count_all
from include.incident.rule_checks import INCIDENT
from include.incident.scope import Counted, Scope
from include.incident.selection import Selection, checked
from include.local.postgres import EmbeddedPostgres
from include.registry import load_pack
from include.services.database import DatabaseAddress
from tests.policy.test_chinook import PACK
from tests.retention.chinook import DATABASE
from tests.support.databases import fresh

_PACK = load_pack(PACK)
RULES = _PACK.require(INCIDENT)
ZONE = _PACK.calendar.zone
MOMENT = datetime(2026, 1, 5, 4, tzinfo=UTC)
OF_CUSTOMERS = {
    "first_name": "user.name.first", "last_name": "user.name.last",
    "company": "user.contact.organization", "address": "user.contact.address.street",
    "city": "user.contact.address.city", "state": "user.contact.address.state",
    "country": "user.contact.address.country", "postal_code": "user.contact.address.postal_code",
    "phone": "user.contact.phone_number", "fax": "user.contact.fax_number",
    "email": "user.contact.email", "customer_id": "user.unique_id",
}  # fmt: skip
OF_INVOICES = {
    "customer_id": "user.unique_id", "invoice_date": "user.behavior.purchase_history",
    "billing_address": "user.contact.address.street", "billing_city": "user.contact.address.city",
    "billing_state": "user.contact.address.state",
    "billing_country": "user.contact.address.country",
    "billing_postal_code": "user.contact.address.postal_code",
}  # fmt: skip


@dataclass(frozen=True)
class Store:
    """The store, and its rows."""

    address: DatabaseAddress
    customers: list[dict[str, Any]]
    invoices: list[dict[str, Any]]
    lines: list[dict[str, Any]]

    def count(self, **said: Any) -> Scope:
        """What the pack counts."""
        return count_all(
            checked(Selection(**said), RULES), RULES, _PACK.databases, {"chinook": self.address},
            version=1, moment=MOMENT, zone=ZONE,
        )  # fmt: skip

    def expect(
        self, customers: set[int], invoices: set[int], *, lines: bool = True, own: bool = True
    ) -> dict[str, Any]:
        """What is affected, row by row."""
        records = {
            "customer": len(customers) if own else 0,
            "invoice": len(invoices),
            "invoice_line": sum(one["invoice_id"] in invoices for one in self.lines)
            if lines
            else 0,
        }
        values: dict[str, set[int]] = {}
        for one in self.customers if own else []:
            for name, category in OF_CUSTOMERS.items():
                if one["customer_id"] in customers and one[name]:
                    values.setdefault(category, set()).add(one["customer_id"])
        for one in self.invoices:
            for name, category in OF_INVOICES.items():
                if one["invoice_id"] in invoices and one[name]:
                    values.setdefault(category, set()).add(one["customer_id"])
        return {
            "subjects": len(customers),
            "records": {name: count for name, count in records.items() if count},
            "categories": {name: len(found) for name, found in sorted(values.items())},
        }


@pytest.fixture(scope="module")
def store(postgres: EmbeddedPostgres) -> Iterator[Store]:
    """The store's database."""
    with fresh(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo, row_factory=dict_row) as connection:
            connection.execute(DATABASE.read_bytes())
            connection.commit()
            rows = [
                connection.execute(f"SELECT * FROM {table}".encode()).fetchall()
                for table in ("customer", "invoice", "invoice_line")
            ]
        yield Store(DatabaseAddress.from_conninfo(conninfo), *rows)


def said(scope: Scope) -> dict[str, Any]:
    """What was counted, as the oracle says it."""
    (counted,) = scope.counted
    assert isinstance(counted, Counted)
    return {
        "subjects": counted.subjects,
        "records": {name: count for name, count in counted.records.items() if count},
        "categories": counted.categories,
    }


def test_everything(store: Store) -> None:
    """The worst case; nobody's age is known, and nothing is sensitive."""
    scope = store.count()
    customers = {one["customer_id"] for one in store.customers}
    invoices = {one["invoice_id"] for one in store.invoices}
    assert said(scope) == store.expect(customers, invoices)
    assert (scope.minors, scope.age_unknown, scope.sensitive) == (None, len(customers), 0)
    dates = [one["invoice_date"].replace(tzinfo=ZONE) for one in store.invoices]
    assert (scope.first, scope.last) == (min(dates), max(dates))


def test_invoices_of_some_months(store: Store) -> None:
    """Of a window, in the pack's timezone; lines are as old as their invoice."""
    since, until = (datetime(2021, month, 1, tzinfo=ZONE) for month in (2, 4))
    scope = store.count(
        since=since, until=until, collections=("chinook.invoice", "chinook.invoice_line")
    )
    mine = [
        one for one in store.invoices if since <= one["invoice_date"].replace(tzinfo=ZONE) < until
    ]
    assert mine
    expected = store.expect(
        {one["customer_id"] for one in mine}, {one["invoice_id"] for one in mine}, own=False
    )
    assert said(scope) == expected


def test_customers_of_one_agent(store: Store) -> None:
    """Whoever answers for a customer answers for the customer's invoices."""
    agent = store.customers[0]["support_rep_id"]
    mine = {one["customer_id"] for one in store.customers if one["support_rep_id"] == agent}
    invoices = {one["invoice_id"] for one in store.invoices if one["customer_id"] in mine}
    scope = store.count(departments=(str(agent),))
    assert said(scope) == store.expect(mine, invoices)
    assert scope.counted[0].departments == {str(agent): len(mine)}


def test_invoices_that_went_to_the_wrong_people(store: Store) -> None:
    """By their numbers; one is not there."""
    numbers = [one["invoice_id"] for one in store.invoices[:3]]
    mine = {one["customer_id"] for one in store.invoices[:3]}
    scope = store.count(keys_of="chinook.invoice", keys=(*map(str, numbers), "987654"))
    assert said(scope) == store.expect(mine, set(numbers), lines=False, own=False)
    assert scope.counted[0].not_found_at == (4,)


def test_whose_records_an_account_opened_nobody_knows(store: Store) -> None:
    """There is no log: it is said."""
    scope = store.count(accounts=("ada",))
    assert scope.affected() == {"chinook": None}


@pytest.mark.parametrize(("keys", "grade"), [((), "risk"), (("0",), "no_risk")])
def test_any_customer_is_a_risk(store: Store, keys: tuple[str, ...], grade: str) -> None:
    """Until somebody shows that it is none; the age of nobody is known, so it may be worse."""
    scope = store.count(keys=keys)
    assert propose(scope, RULES).grade == grade
    assert propose(scope, RULES).certain is (not scope.subjects)


def test_it_follows_the_gdpr() -> None:
    """72 hours to the authority from awareness, and people where the risk is high."""
    clocks = {one.id: one for one in RULES.clocks}
    authority, people = clocks["supervisory_authority"], clocks["individuals"]
    assert (authority.begins, authority.within.seconds, authority.immediate) == (
        "awareness", 72 * 3600, False,
    )  # fmt: skip
    assert people.immediate
    assert people.grades == ("high_risk",)
    cited = {one.basis.article for one in (authority, people) if not isinstance(one.basis, str)}
    assert cited == {"33(1)", "34(1)"}
    assert {len(duty.people.accounts) for duty in RULES.team} == {1}
