"""Requests whose records are found through a record that the same run erases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.erasure import requests
from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.planning import subjects
from include.retention.planning.planner import plan_of
from tests.retention.kills import Killed
from tests.retention.linked import ADDRESS_LINK, FIDES, PAGILA, found_by, linked_rig
from tests.retention.rig import OLD, ROTATED, YOUNG, Rig, rule


@pytest.fixture
def pagila(postgres: EmbeddedPostgres) -> Iterator[Rig]:
    """Customers 1 and 2 with an address of their own, and 3 and 4 who share the address 3."""
    with linked_rig(postgres, PAGILA) as rig:
        for address in (1, 2, 3):
            rig.insert("address", address_id=address, address="Main St", phone="1", at=YOUNG)
        for customer, address in ((1, 1), (2, 2), (3, 3), (4, 3)):
            rig.insert("customer", customer_id=customer, name="n", address_id=address, at=YOUNG)
            rig.insert("rental", rental_id=customer, customer_id=customer, at=YOUNG)
            rig.insert(
                "payment",
                payment_id=customer,
                paid_at=YOUNG,
                rental_id=customer,
                customer_id=customer,
                at=YOUNG,
            )
        yield rig


@pytest.fixture
def fides(postgres: EmbeddedPostgres) -> Iterator[Rig]:
    """Customers 1 and 2, each with a visit and a login."""
    with linked_rig(postgres, FIDES) as rig:
        for number in (1, 2):
            email = f"user{number}@example.com"
            rig.insert("customer", id=number, email=email, name="n", at=YOUNG)
            rig.insert("visit", email=email, last_visit=YOUNG, at=YOUNG)
            rig.insert("login", id=number, customer_id=number, at=YOUNG)
        yield rig


def numbers(rig: Rig, table: str) -> set[Any]:
    """Return the first column of the keys that a table has."""
    columns = {"visit": "email", "customer": "customer_id", "payment": "payment_id"}
    column = columns.get(table, f"{table}_id")
    if table in ("customer", "login") and "login" in rig.database.collections:
        column = "id"
    return {row[0] for row in rig.sql(f"SELECT {column} FROM {table}")}


def state(record: StepRecord) -> str:
    """Return what became of the only request."""
    (request,) = record.data["requests"]
    return str(request["state"])


def kept_keys(rig: Rig) -> list[tuple[Any, ...]]:
    """Return class and name of each record that is remembered for a request."""
    return rig.state_sql("SELECT record_class, key FROM erasure_request_record ORDER BY 1, 2")


def killed_after(rig: Rig, planned: StepRecord, run: str, committed: int) -> None:
    """Execute a plan and stop it when some batches have committed."""
    reached = 0

    def progress(stage: str) -> None:
        nonlocal reached
        reached += stage == "committed"
        if reached == committed:
            raise Killed

    with pytest.raises(Killed):
        rig.execute(planned, run, progress)


def test_request_erases_address_found_through_deleted_customer(pagila: Rig) -> None:
    """The foreign key has the customer go first; the address goes all the same."""
    pagila.request("1")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {2, 3, 4}
    assert numbers(pagila, "address") == {2, 3}
    assert numbers(pagila, "payment") == {2, 3, 4}
    assert state(counted) == "closed"
    assert kept_keys(pagila) == []


def test_request_erases_visit_found_through_deleted_email(fides: Rig) -> None:
    """Neither the visit nor the login, whose reference the database sets to null, is left."""
    fides.request("1")
    *_, counted = fides.run()
    assert numbers(fides, "customer") == {2}
    assert numbers(fides, "visit") == {"user2@example.com"}
    assert numbers(fides, "login") == {2}
    assert state(counted) == "closed"
    assert kept_keys(fides) == []


def test_request_erases_visit_found_through_masked_email(fides: Rig) -> None:
    """A masked link leads nowhere, as a deleted one."""
    masks = rule(
        "customer", **found_by("t.id", action="mask", mask={"email": "erase", "name": "name"})
    )
    rig = fides.but(rules=(masks, *FIDES.rules[1:]))
    rig.request("1")
    *_, counted = rig.run()
    assert rig.sql("SELECT email FROM customer ORDER BY id") == [(None,), ("user2@example.com",)]
    assert numbers(rig, "visit") == {"user2@example.com"}
    assert state(counted) == "closed"


def test_personal_keys_are_kept_as_digests_only(fides: Rig) -> None:
    """An e-mail address in a primary key does not enter the state database."""
    fides.request("1")
    fides.plan()
    kept = dict(kept_keys(fides))
    assert kept["customer"] == '["1"]'
    assert "@" not in kept["visit"]
    assert kept["visit"].startswith('["hmac:')


@pytest.mark.parametrize("committed", [1, 2, 3])
def test_killed_run_between_classes_is_finished_by_its_retry(pagila: Rig, committed: int) -> None:
    """The customer may be gone already; the keys of the plan find the address."""
    pagila.request("1")
    planned = pagila.plan()
    killed_after(pagila, planned, "r1", committed)
    executed = pagila.execute(planned)
    assert numbers(pagila, "address") == {2, 3}
    assert state(pagila.verify(planned, executed)) == "closed"


@pytest.mark.parametrize("committed", [1, 2, 3])
def test_killed_run_is_finished_by_the_next_run(pagila: Rig, committed: int) -> None:
    """The link is gone when the second run plans; the keys of the first run count."""
    pagila.request("1")
    killed_after(pagila, pagila.plan(), "r1", committed)
    *_, counted = pagila.run("r2")
    assert numbers(pagila, "address") == {2, 3}
    assert state(counted) == "closed"


def test_unreached_record_of_killed_run_keeps_request_open(pagila: Rig) -> None:
    """A count after a killed execution finds the address by its key."""
    pagila.request("1")
    planned = pagila.plan()
    killed_after(pagila, planned, "r1", 3)
    assert numbers(pagila, "customer") == {2, 3, 4}
    counted = pagila.verify(planned, None)
    assert state(counted) == "open"
    assert counted.data["requests"][0]["left"] == 1


def test_address_that_another_customer_refers_to_restricts_request(pagila: Rig) -> None:
    """Customer 4 lives there: the address stays until that customer goes."""
    pagila.request("3")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {1, 2, 4}
    assert numbers(pagila, "address") == {1, 2, 3}
    assert state(counted) == "restricted"
    pagila.request("4")
    *_, counted = pagila.run("r2")
    assert numbers(pagila, "address") == {1, 2}
    assert {request["state"] for request in counted.data["requests"]} == {"closed"}


def test_address_that_a_store_refers_to_restricts_request(pagila: Rig) -> None:
    """A table without a class keeps what it refers to."""
    pagila.insert("store", store_id=1, address_id=1)
    pagila.request("1")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {2, 3, 4}
    assert state(counted) == "restricted"
    assert counted.data["requests"][0]["left"] == 1
    pagila.sql("DELETE FROM store")
    assert state(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}


def test_hold_on_subject_placed_after_link_was_erased_keeps_linked_record(pagila: Rig) -> None:
    """The hold is on the person; the address is the person's although the customer is gone."""
    pagila.request("1")
    planned = pagila.plan()
    killed_after(pagila, planned, "r1", 3)
    pagila.hold(HoldKind.SUBJECT, "1")
    executed = pagila.execute(planned)
    assert numbers(pagila, "address") == {1, 2, 3}
    assert state(pagila.verify(planned, executed)) == "restricted"


def test_hold_on_linked_class_keeps_request_open(pagila: Rig) -> None:
    """A hold on the class of addresses: the customer goes, the address restricts the request."""
    hold = pagila.hold(HoldKind.CLASS, "address")
    pagila.request("1")
    *_, counted = pagila.run()
    assert numbers(pagila, "customer") == {2, 3, 4}
    assert state(counted) == "restricted"
    pagila.release(hold.id)
    assert state(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}


def test_link_that_the_application_changes_after_plan_keeps_both_records(pagila: Rig) -> None:
    """Customer 1 moves between plan and execution: old and new address go, one run later."""
    pagila.request("1")
    planned = pagila.plan()
    pagila.insert("address", address_id=9, address="New St", phone="2", at=YOUNG)
    pagila.sql("UPDATE customer SET address_id = 9 WHERE customer_id = 1")
    executed = pagila.execute(planned)
    assert state(pagila.verify(planned, executed)) == "open"
    assert state(pagila.run("r2")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}


def test_record_that_another_subject_took_over_is_not_erased(fides: Rig) -> None:
    """The e-mail address of the visit belongs to customer 2 by the time of the execution."""
    fides.request("1")
    planned = fides.plan()
    fides.sql("UPDATE customer SET email = NULL WHERE id = 1")
    fides.sql("UPDATE customer SET email = 'user1@example.com' WHERE id = 2")
    executed = fides.execute(planned)
    assert "user1@example.com" in numbers(fides, "visit")
    counted = fides.verify(planned, executed)
    assert state(counted) == "restricted"
    assert counted.data["requests"][0]["taken_over"] == 1


def test_request_entered_while_run_goes_on_is_found_by_next_run(pagila: Rig) -> None:
    """Customer 2 expires and goes in the run during which its request is entered."""
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
    """Return what became of the newest request."""
    return str(max(record.data["requests"], key=lambda request: request["request"])["state"])


def test_membership_through_lost_link_does_not_free_record(pagila: Rig) -> None:
    """The class is about addresses of customers only, by a condition over the customer."""
    where = "EXISTS (SELECT FROM customer c WHERE c.address_id = t.address_id)"
    rules = [
        rule("address", **found_by(ADDRESS_LINK, where=where))
        if other.collection == "address"
        else other
        for other in PAGILA.rules
    ]
    rig = pagila.but(rules=rules)
    rig.request("1")
    assert state(rig.run()[-1]) == "closed"
    assert numbers(rig, "address") == {2, 3}


def test_masked_linked_record_closes_request(pagila: Rig) -> None:
    """An address that is masked instead of deleted is masked after its customer is gone."""
    masks = rule(
        "address",
        **found_by(ADDRESS_LINK, action="mask", mask={"address": "address", "phone": "erase"}),
    )
    rules = [masks if other.collection == "address" else other for other in PAGILA.rules]
    rig = pagila.but(rules=rules)
    rig.request("1")
    planned = rig.plan()
    rig.sql("DELETE FROM payment WHERE customer_id = 1")
    rig.sql("DELETE FROM rental WHERE customer_id = 1")
    rig.sql("DELETE FROM customer WHERE customer_id = 1")
    executed = rig.execute(planned)
    assert rig.sql("SELECT phone FROM address WHERE address_id = 1") == [(None,)]
    assert state(rig.verify(planned, executed)) == "closed"


def test_withdrawn_request_leaves_no_keys(pagila: Rig) -> None:
    """Withdrawing a request deletes the keys of its records."""
    request = pagila.request("1")
    pagila.plan()
    assert kept_keys(pagila)
    with pagila.engine.begin() as conn:
        requests.withdraw(conn, pagila.clock, request, by="dpo", because="withdrawn by letter")
    assert kept_keys(pagila) == []


def test_keys_of_erased_records_do_not_stay_with_restricted_request(pagila: Rig) -> None:
    """Only the record that is left is remembered by its key."""
    pagila.insert("store", store_id=1, address_id=1)
    pagila.request("1")
    pagila.run()
    assert kept_keys(pagila) == [("address", '["1"]')]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember one record of a request in each class only."""
    monkeypatch.setattr(subjects, "MOST_RECORDS", 1)


@pytest.mark.usefixtures("limited")
def test_request_with_too_many_linked_records_is_left_to_a_person(fides: Rig) -> None:
    """Nothing is erased whose keys could not be kept, and no run closes the request."""
    fides.insert("visit", email="user1@example.com", last_visit=OLD, at=YOUNG)
    fides.request("1")
    *_, counted = fides.run()
    assert numbers(fides, "customer") == {1, 2}
    assert state(counted) == "open"
    assert [finding.code for finding in counted.findings] == ["retention.request_oversized"]
    fides.sql("DELETE FROM visit; DELETE FROM customer; DELETE FROM login")
    assert state(fides.run("r2")[-1]) == "open"


@pytest.mark.usefixtures("limited")
def test_records_named_by_their_own_column_need_no_keys(pagila: Rig) -> None:
    """No erasure changes the column of a rental: more than are remembered are erased too."""
    for rental in (11, 12, 13):
        pagila.insert("rental", rental_id=rental, customer_id=1, at=YOUNG)
    pagila.request("1")
    assert state(pagila.run()[-1]) == "closed"
    assert numbers(pagila, "rental") == {2, 3, 4}


def test_renamed_class_keeps_what_was_found(pagila: Rig) -> None:
    """The class of addresses has another name when the next run plans."""
    pagila.request("1")
    killed_after(pagila, pagila.plan(), "r1", 3)
    renamed = rule("address", **{"class": "home"}, **found_by(ADDRESS_LINK))
    rig = pagila.but(
        rules=[renamed if other.collection == "address" else other for other in PAGILA.rules]
    )
    assert state(rig.run("r2")[-1]) == "closed"
    assert numbers(rig, "address") == {2, 3}


def test_rotated_key_of_the_ledger_finds_what_was_named_before(fides: Rig) -> None:
    """A digest of the older key still names the visit."""
    fides.request("1")
    killed_after(fides, fides.plan(), "r1", 2)
    rig = fides.but(keys=ROTATED)
    assert state(rig.run("r2")[-1]) == "closed"
    assert numbers(rig, "visit") == {"user2@example.com"}


def test_preview_of_a_plan_remembers_nothing(pagila: Rig) -> None:
    """A preview counts, and writes nothing."""
    pagila.request("1")
    plan = plan_of(pagila.in_run(), "2026-01-01", is_preview=True)
    assert plan.of("address").planned == 1
    assert kept_keys(pagila) == []


def test_records_found_through_others_go_first_where_no_key_forbids(
    pagila: Rig, fides: Rig
) -> None:
    """Visits and payments go before customers and rentals; a foreign key puts an address last."""
    orders = [plan_of(rig.in_run(), "2026-01-01", is_preview=True).order for rig in (pagila, fides)]
    names = [[name for group in order for name in group] for order in orders]
    assert names[0] == ["payment", "rental", "customer", "address"]
    assert names[1].index("visit") < names[1].index("customer")


def test_execution_counts_records_under_a_hold_placed_after_the_plan(pagila: Rig) -> None:
    """A plan after the execution finds the hold."""
    pagila.request("1")
    planned = pagila.plan()
    pagila.hold(HoldKind.CLASS, "address")
    executed = pagila.execute(planned)
    assert executed.data["staying"] == {"address": {"held": 1}}


def test_execution_counts_records_deleted_after_the_plan(pagila: Rig) -> None:
    """The application deleted the record itself."""
    pagila.sql("UPDATE rental SET at = %s WHERE rental_id = 2", [OLD])
    planned = pagila.plan()
    pagila.sql("DELETE FROM rental WHERE rental_id = 2")
    executed = pagila.execute(planned)
    assert executed.data["staying"] == {"rental": {"not_due": 1}}
