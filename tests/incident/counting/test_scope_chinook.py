"""Tests that compare counts in the Chinook sample database with counts computed in Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.incident.counting.database import count_all
from include.incident.rule_checks import INCIDENT
from include.incident.scope import DatabaseCount, Scope
from include.incident.scope_assessment import propose_grade
from include.incident.selection import Selection, check_selection
from include.local.postgres import EmbeddedPostgres
from include.registry import load_pack
from include.services.database import DatabaseAddress
from tests.policy.test_chinook import PACK
from tests.retention.chinook_pack import DATABASE
from tests.support.databases import temporary_database

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
    """The Chinook database, with a copy of its rows in memory."""

    address: DatabaseAddress
    customers: list[dict[str, Any]]
    invoices: list[dict[str, Any]]
    lines: list[dict[str, Any]]

    def count(self, **fields: Any) -> Scope:
        """Count the affected records with the rules of the Chinook policy pack.

        Args:
            fields: fields of the `Selection` that defines which records are affected.
        """
        return count_all(
            check_selection(Selection(**fields), RULES),
            RULES,
            _PACK.databases,
            {"chinook": self.address},
            version=1,
            moment=MOMENT,
            zone=ZONE,
        )

    def expect(
        self, customers: set[int], invoices: set[int], *, lines: bool = True, own: bool = True
    ) -> dict[str, Any]:
        """Return the expected counts, computed row by row.

        Args:
            customers: keys of the affected customers.
            invoices: keys of the affected invoices.
            lines: whether the lines of the invoices are affected too.
            own: whether the customers' own records are affected too.
        """
        records = {
            "customer": len(customers) if own else 0,
            "invoice": len(invoices),
            "invoice_line": sum(line["invoice_id"] in invoices for line in self.lines)
            if lines
            else 0,
        }
        values: dict[str, set[int]] = {}
        for customer in self.customers if own else []:
            for name, category in OF_CUSTOMERS.items():
                if customer["customer_id"] in customers and customer[name]:
                    values.setdefault(category, set()).add(customer["customer_id"])
        for invoice in self.invoices:
            for name, category in OF_INVOICES.items():
                if invoice["invoice_id"] in invoices and invoice[name]:
                    values.setdefault(category, set()).add(invoice["customer_id"])
        return {
            "subjects": len(customers),
            "records": {name: count for name, count in records.items() if count},
            "categories": {name: len(people) for name, people in sorted(values.items())},
        }


@pytest.fixture(scope="module")
def store(postgres: EmbeddedPostgres) -> Iterator[Store]:
    """Provide the Chinook database."""
    with temporary_database(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo, row_factory=dict_row) as connection:
            connection.execute(DATABASE.read_bytes())
            connection.commit()
            rows = [
                connection.execute(f"SELECT * FROM {table}".encode()).fetchall()
                for table in ("customer", "invoice", "invoice_line")
            ]
        yield Store(DatabaseAddress.from_conninfo(conninfo), *rows)


def counted_figures(scope: Scope) -> dict[str, Any]:
    """Return the counts of a scope in the format that `Store.expect` returns."""
    (counted,) = scope.counted
    assert isinstance(counted, DatabaseCount)
    return {
        "subjects": counted.subjects,
        "records": {name: count for name, count in counted.records.items() if count},
        "categories": counted.categories,
    }


def test_count_without_criteria_includes_all_people_and_records(store: Store) -> None:
    scope = store.count()
    customers = {customer["customer_id"] for customer in store.customers}
    invoices = {invoice["invoice_id"] for invoice in store.invoices}
    assert counted_figures(scope) == store.expect(customers, invoices)
    assert (scope.minors, scope.age_unknown, scope.sensitive) == (None, len(customers), 0)
    dates = [invoice["invoice_date"].replace(tzinfo=ZONE) for invoice in store.invoices]
    assert (scope.first, scope.last) == (min(dates), max(dates))


def test_count_by_time_window_includes_invoices_in_window(store: Store) -> None:
    since, until = (datetime(2021, month, 1, tzinfo=ZONE) for month in (2, 4))
    scope = store.count(
        since=since, until=until, collections=("chinook.invoice", "chinook.invoice_line")
    )
    affected_invoices = [
        invoice
        for invoice in store.invoices
        if since <= invoice["invoice_date"].replace(tzinfo=ZONE) < until
    ]
    assert affected_invoices
    expected = store.expect(
        {invoice["customer_id"] for invoice in affected_invoices},
        {invoice["invoice_id"] for invoice in affected_invoices},
        own=False,
    )
    assert counted_figures(scope) == expected


def test_count_for_a_department_includes_customers_and_invoices_of_that_department(
    store: Store,
) -> None:
    agent = store.customers[0]["support_rep_id"]
    affected_customers = {
        customer["customer_id"]
        for customer in store.customers
        if customer["support_rep_id"] == agent
    }
    invoices = {
        invoice["invoice_id"]
        for invoice in store.invoices
        if invoice["customer_id"] in affected_customers
    }
    scope = store.count(departments=(str(agent),))
    assert counted_figures(scope) == store.expect(affected_customers, invoices)
    assert scope.counted[0].departments == {str(agent): len(affected_customers)}


def test_count_by_record_keys_includes_those_records_and_reports_missing_keys(
    store: Store,
) -> None:
    numbers = [invoice["invoice_id"] for invoice in store.invoices[:3]]
    affected_customers = {invoice["customer_id"] for invoice in store.invoices[:3]}
    scope = store.count(keys_of="chinook.invoice", keys=(*map(str, numbers), "987654"))
    assert counted_figures(scope) == store.expect(
        affected_customers, set(numbers), lines=False, own=False
    )
    assert scope.counted[0].not_found_at == (4,)


def test_count_by_account_is_unknown_if_database_has_no_access_log(store: Store) -> None:
    scope = store.count(accounts=("ada",))
    assert scope.people_by_database() == {"chinook": None}


@pytest.mark.parametrize(("keys", "grade"), [((), "risk"), (("0",), "no_risk")])
def test_proposed_grade_in_chinook_is_risk_if_customers_are_affected_and_no_risk_if_none_are(
    store: Store, keys: tuple[str, ...], grade: str
) -> None:
    scope = store.count(keys=keys)
    assert propose_grade(scope, RULES).grade == grade
    assert propose_grade(scope, RULES).certain is (not scope.subjects)


def test_time_limits_of_chinook_pack_equal_those_of_gdpr_articles_33_and_34() -> None:
    clocks = {clock.id: clock for clock in RULES.clocks}
    authority, people = clocks["supervisory_authority"], clocks["individuals"]
    assert (authority.begins, authority.within.seconds, authority.immediate) == (
        "awareness", 72 * 3600, False,
    )  # fmt: skip
    assert people.immediate
    assert people.grades == ("high_risk",)
    cited = {
        clock.basis.article for clock in (authority, people) if not isinstance(clock.basis, str)
    }
    assert cited == {"33(1)", "34(1)"}
    assert {len(duty.people.accounts) for duty in RULES.team} == {1}
