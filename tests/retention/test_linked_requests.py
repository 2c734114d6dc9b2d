"""Tests of erasure requests whose records are found through a record that the same run erases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.erasure import requests
from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.planning import subjects
from include.retention.planning.planner import plan_database
from tests.retention.kills import Killed
from tests.retention.linked_schemas import ADDRESS_LINK, FIDES, PAGILA, found_by, linked_runner
from tests.retention.runner import OLD, ROTATED, YOUNG, RetentionRunner, rule


@pytest.fixture
def pagila(postgres: EmbeddedPostgres) -> Iterator[RetentionRunner]:
    """A runner with four customers. Customers 3 and 4 share the address 3."""
    with linked_runner(postgres, PAGILA) as runner:
        for address in (1, 2, 3):
            runner.insert("address", address_id=address, address="Main St", phone="1", at=YOUNG)
        for customer, address in ((1, 1), (2, 2), (3, 3), (4, 3)):
            runner.insert("customer", customer_id=customer, name="n", address_id=address, at=YOUNG)
            runner.insert("rental", rental_id=customer, customer_id=customer, at=YOUNG)
            runner.insert(
                "payment",
                payment_id=customer,
                paid_at=YOUNG,
                rental_id=customer,
                customer_id=customer,
                at=YOUNG,
            )
        yield runner


@pytest.fixture
def fides(postgres: EmbeddedPostgres) -> Iterator[RetentionRunner]:
    """A runner with customers 1 and 2, each with a visit and a login."""
    with linked_runner(postgres, FIDES) as runner:
        for number in (1, 2):
            email = f"user{number}@example.com"
            runner.insert("customer", id=number, email=email, name="n", at=YOUNG)
            runner.insert("visit", email=email, last_visit=YOUNG, at=YOUNG)
            runner.insert("login", id=number, customer_id=number, at=YOUNG)
        yield runner


def numbers(runner: RetentionRunner, table: str) -> set[Any]:
    """Return the primary keys of the records of a table.

    For a composite key, return its first column.
    """
    columns = {"visit": "email", "customer": "customer_id", "payment": "payment_id"}
    column = columns.get(table, f"{table}_id")
    if table in ("customer", "login") and "login" in runner.database.collections:
        column = "id"
    return {row[0] for row in runner.sql(f"SELECT {column} FROM {table}")}


def state(record: StepRecord) -> str:
    """Return the state of the only erasure request in a step record."""
    (request,) = record.data["requests"]
    return str(request["state"])


def kept_keys(runner: RetentionRunner) -> list[tuple[Any, ...]]:
    """Return record class and name of each record that a run stored for an erasure request."""
    return runner.state_sql("SELECT record_class, key FROM erasure_request_record ORDER BY 1, 2")


def killed_after(runner: RetentionRunner, planned: StepRecord, run: str, committed: int) -> None:
    """Execute a plan, and stop the execution after a number of batches has committed."""
    reached = 0

    def progress(stage: str) -> None:
        nonlocal reached
        reached += stage == "committed"
        if reached == committed:
            raise Killed

    with pytest.raises(Killed):
        runner.execute(planned, run, progress)


def test_erasure_request_also_erases_address_to_which_the_deleted_customer_referred(
    pagila: RetentionRunner,
) -> None:
    """The foreign key requires that the customer is deleted first."""
    pagila.request("1")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {2, 3, 4}
    assert numbers(pagila, "address") == {2, 3}
    assert numbers(pagila, "payment") == {2, 3, 4}
    assert state(counted) == "closed"
    assert kept_keys(pagila) == []


def test_erasure_request_also_erases_visit_with_the_email_of_the_deleted_customer(
    fides: RetentionRunner,
) -> None:
    """The login, whose reference the database sets to null, is erased too."""
    fides.request("1")
    *_, counted = fides.run()
    assert numbers(fides, "customer") == {2}
    assert numbers(fides, "visit") == {"user2@example.com"}
    assert numbers(fides, "login") == {2}
    assert state(counted) == "closed"
    assert kept_keys(fides) == []


def test_erasure_request_also_erases_visit_with_the_email_of_the_masked_customer(
    fides: RetentionRunner,
) -> None:
    masks = rule(
        "customer", **found_by("t.id", action="mask", mask={"email": "erase", "name": "name"})
    )
    runner = fides.but(rules=(masks, *FIDES.rules[1:]))
    runner.request("1")
    *_, counted = runner.run()
    assert runner.sql("SELECT email FROM customer ORDER BY id") == [(None,), ("user2@example.com",)]
    assert numbers(runner, "visit") == {"user2@example.com"}
    assert state(counted) == "closed"


def test_plan_stores_primary_key_with_email_address_in_state_database_only_as_digest(
    fides: RetentionRunner,
) -> None:
    """The state database does not store an e-mail address that is a primary key."""
    fides.request("1")
    fides.plan()
    kept = dict(kept_keys(fides))
    assert kept["customer"] == '["1"]'
    assert "@" not in kept["visit"]
    assert kept["visit"].startswith('["hmac:')


@pytest.mark.parametrize("committed", [1, 2, 3])
def test_retry_completes_run_that_was_killed_between_record_classes(
    pagila: RetentionRunner, committed: int
) -> None:
    """The customer may be deleted already, but the stored keys of the plan lead to the address."""
    pagila.request("1")
    planned = pagila.plan()
    killed_after(pagila, planned, "r1", committed)
    executed = pagila.execute(planned)
    assert numbers(pagila, "address") == {2, 3}
    assert state(pagila.verify(planned, executed)) == "closed"


@pytest.mark.parametrize("committed", [1, 2, 3])
def test_next_run_completes_erasure_request_that_killed_run_began(
    pagila: RetentionRunner, committed: int
) -> None:
    """The second run finds the address only by the keys that the first run stored."""
    pagila.request("1")
    killed_after(pagila, pagila.plan(), "r1", committed)
    *_, counted = pagila.run("r2")
    assert numbers(pagila, "address") == {2, 3}
    assert state(counted) == "closed"


def test_erasure_request_stays_open_if_a_killed_run_erased_only_some_of_the_requested_records(
    pagila: RetentionRunner,
) -> None:
    """The verification after a killed execution finds the address by its stored key."""
    pagila.request("1")
    planned = pagila.plan()
    killed_after(pagila, planned, "r1", 3)
    assert numbers(pagila, "customer") == {2, 3, 4}
    counted = pagila.verify(planned, None)
    assert state(counted) == "open"
    assert counted.data["requests"][0]["left"] == 1


def test_erasure_request_is_restricted_if_another_customer_refers_to_the_same_address(
    pagila: RetentionRunner,
) -> None:
    """Customer 4 has the same address, so the address is kept until this customer is deleted."""
    pagila.request("3")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {1, 2, 4}
    assert numbers(pagila, "address") == {1, 2, 3}
    assert state(counted) == "restricted"
    pagila.request("4")
    *_, counted = pagila.run("r2")
    assert numbers(pagila, "address") == {1, 2}
    assert {request["state"] for request in counted.data["requests"]} == {"closed"}


def test_erasure_request_is_restricted_while_a_store_refers_to_the_address_of_the_customer(
    pagila: RetentionRunner,
) -> None:
    """A table without a record class keeps the records to which it refers."""
    pagila.insert("store", store_id=1, address_id=1)
    pagila.request("1")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {2, 3, 4}
    assert state(counted) == "restricted"
    assert counted.data["requests"][0]["left"] == 1
    pagila.sql("DELETE FROM store")
    assert state(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}


def test_legal_hold_on_data_subject_keeps_address_of_a_customer_who_is_already_deleted(
    pagila: RetentionRunner,
) -> None:
    """The address still belongs to the data subject, although the customer is deleted."""
    pagila.request("1")
    planned = pagila.plan()
    killed_after(pagila, planned, "r1", 3)
    pagila.hold(HoldKind.SUBJECT, "1")
    executed = pagila.execute(planned)
    assert numbers(pagila, "address") == {1, 2, 3}
    assert state(pagila.verify(planned, executed)) == "restricted"


def test_erasure_request_is_restricted_until_legal_hold_on_record_class_of_addresses_is_released(
    pagila: RetentionRunner,
) -> None:
    """The customer is deleted, but the request stays open because of the address on hold."""
    hold = pagila.hold(HoldKind.CLASS, "address")
    pagila.request("1")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {2, 3, 4}
    assert state(counted) == "restricted"
    pagila.release(hold.id)
    assert state(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}


def test_next_run_erases_old_and_new_address_if_customer_moves_after_plan(
    pagila: RetentionRunner,
) -> None:
    """The next run erases the old and the new address."""
    pagila.request("1")
    planned = pagila.plan()
    pagila.insert("address", address_id=9, address="New St", phone="2", at=YOUNG)
    pagila.sql("UPDATE customer SET address_id = 9 WHERE customer_id = 1")
    executed = pagila.execute(planned)
    assert state(pagila.verify(planned, executed)) == "open"
    assert state(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}


def test_requested_record_is_kept_if_the_record_belongs_to_another_data_subject_after_plan(
    fides: RetentionRunner,
) -> None:
    fides.request("1")
    planned = fides.plan()
    fides.sql("UPDATE customer SET email = NULL WHERE id = 1")
    fides.sql("UPDATE customer SET email = 'user1@example.com' WHERE id = 2")
    executed = fides.execute(planned)
    assert "user1@example.com" in numbers(fides, "visit")
    counted = fides.verify(planned, executed)
    assert state(counted) == "restricted"
    assert counted.data["requests"][0]["taken_over"] == 1


def test_next_run_erases_linked_records_of_erasure_request_that_was_entered_during_execution(
    pagila: RetentionRunner,
) -> None:
    pagila.sql("UPDATE customer SET at = %s WHERE customer_id = 2", [OLD])
    pagila.sql("UPDATE rental SET at = %s WHERE rental_id = 2", [OLD])
    pagila.request("1")
    planned = pagila.plan()
    entered = False

    def progress(stage: str) -> None:
        nonlocal entered
        if stage == "committed" and not entered:
            entered = True
            pagila.request("2")

    executed = pagila.execute(planned, progress=progress)
    assert numbers(pagila, "customer") == {3, 4}
    counted = pagila.verify(planned, executed)
    states = {request["request"]: request["state"] for request in counted.data["requests"]}
    assert sorted(states.values()) == ["closed", "open"]
    assert state_of_last(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {3}


def state_of_last(record: StepRecord) -> str:
    """Return the state of the newest erasure request in a step record."""
    return str(max(record.data["requests"], key=lambda request: request["request"])["state"])


def test_erasure_request_erases_address_even_if_condition_of_address_class_needs_deleted_customer(
    pagila: RetentionRunner,
) -> None:
    where = "EXISTS (SELECT FROM customer c WHERE c.address_id = t.address_id)"
    rules = [
        rule("address", **found_by(ADDRESS_LINK, where=where))
        if other.collection == "address"
        else other
        for other in PAGILA.rules
    ]
    runner = pagila.but(rules=rules)
    runner.request("1")
    assert state(runner.run()[-1]) == "closed"
    assert numbers(runner, "address") == {2, 3}


def test_erasure_request_is_closed_after_linked_record_is_masked(pagila: RetentionRunner) -> None:
    masks = rule(
        "address",
        **found_by(ADDRESS_LINK, action="mask", mask={"address": "address", "phone": "erase"}),
    )
    rules = [masks if other.collection == "address" else other for other in PAGILA.rules]
    runner = pagila.but(rules=rules)
    runner.request("1")
    planned = runner.plan()
    runner.sql("DELETE FROM payment WHERE customer_id = 1")
    runner.sql("DELETE FROM rental WHERE customer_id = 1")
    runner.sql("DELETE FROM customer WHERE customer_id = 1")
    executed = runner.execute(planned)
    assert runner.sql("SELECT phone FROM address WHERE address_id = 1") == [(None,)]
    assert state(runner.verify(planned, executed)) == "closed"


def test_withdrawal_of_erasure_request_deletes_its_stored_record_keys(
    pagila: RetentionRunner,
) -> None:
    """The withdrawal of a request deletes the stored keys of its records."""
    request = pagila.request("1")
    pagila.plan()
    assert kept_keys(pagila)
    with pagila.engine.begin() as conn:
        requests.withdraw(conn, pagila.clock, request, by="dpo", because="withdrawn by letter")
    assert kept_keys(pagila) == []


def test_restricted_erasure_request_stores_only_keys_of_records_that_remain(
    pagila: RetentionRunner,
) -> None:
    pagila.insert("store", store_id=1, address_id=1)
    pagila.request("1")
    pagila.run()
    assert kept_keys(pagila) == [("address", '["1"]')]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the number of stored records for each request and record class to one."""
    monkeypatch.setattr(subjects, "MOST_RECORDS", 1)


@pytest.mark.usefixtures("limited")
def test_erasure_request_with_too_many_linked_records_erases_nothing_and_stays_open(
    fides: RetentionRunner,
) -> None:
    fides.insert("visit", email="user1@example.com", last_visit=OLD, at=YOUNG)
    fides.request("1")
    *_, counted = fides.run()
    assert numbers(fides, "customer") == {1, 2}
    assert state(counted) == "open"
    assert [finding.code for finding in counted.findings] == ["retention.request_oversized"]
    fides.sql("DELETE FROM visit; DELETE FROM customer; DELETE FROM login")
    assert state(fides.run("r2")[-1]) == "open"


@pytest.mark.usefixtures("limited")
def test_erasure_request_with_many_records_is_closed_if_records_contain_key_of_data_subject(
    pagila: RetentionRunner,
) -> None:
    for rental in (11, 12, 13):
        pagila.insert("rental", rental_id=rental, customer_id=1, at=YOUNG)
    pagila.request("1")
    assert state(pagila.run()[-1]) == "closed"
    assert numbers(pagila, "rental") == {2, 3, 4}


def test_records_of_erasure_request_are_erased_after_their_record_class_was_renamed(
    pagila: RetentionRunner,
) -> None:
    pagila.request("1")
    killed_after(pagila, pagila.plan(), "r1", 3)
    renamed = rule("address", **{"class": "home"}, **found_by(ADDRESS_LINK))
    runner = pagila.but(
        rules=[renamed if other.collection == "address" else other for other in PAGILA.rules]
    )
    assert state(runner.run("r2")[-1]) == "closed"
    assert numbers(runner, "address") == {2, 3}


def test_records_of_erasure_request_are_erased_after_rotation_of_hmac_key(
    fides: RetentionRunner,
) -> None:
    fides.request("1")
    killed_after(fides, fides.plan(), "r1", 2)
    runner = fides.but(keys=ROTATED)
    assert state(runner.run("r2")[-1]) == "closed"
    assert numbers(runner, "visit") == {"user2@example.com"}


def test_preview_of_plan_stores_no_record_keys_of_erasure_request(pagila: RetentionRunner) -> None:
    pagila.request("1")
    plan = plan_database(pagila.in_run(), "2026-01-01", is_preview=True)
    assert plan.of("address").planned == 1
    assert kept_keys(pagila) == []


def test_plan_deletes_visits_before_customers_and_referring_records_before_referenced_records(
    pagila: RetentionRunner, fides: RetentionRunner
) -> None:
    orders = [
        plan_database(runner.in_run(), "2026-01-01", is_preview=True).order
        for runner in (pagila, fides)
    ]
    names = [[name for group in order for name in group] for order in orders]
    assert names[0] == ["payment", "rental", "customer", "address"]
    assert names[1].index("visit") < names[1].index("customer")


def test_execution_counts_planned_record_as_held_if_legal_hold_was_placed_after_plan(
    pagila: RetentionRunner,
) -> None:
    pagila.request("1")
    planned = pagila.plan()
    pagila.hold(HoldKind.CLASS, "address")
    executed = pagila.execute(planned)
    assert executed.data["staying"] == {"address": {"held": 1}}


def test_planned_record_that_application_deleted_before_execution_counts_as_not_due(
    pagila: RetentionRunner,
) -> None:
    pagila.sql("UPDATE rental SET at = %s WHERE rental_id = 2", [OLD])
    planned = pagila.plan()
    pagila.sql("DELETE FROM rental WHERE rental_id = 2")
    executed = pagila.execute(planned)
    assert executed.data["staying"] == {"rental": {"not_due": 1}}
