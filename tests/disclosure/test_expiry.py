"""Accesses end in time, their extracts are deleted, and an independent listing proves it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from include.disclosure import grants, use_notifications
from include.disclosure.absence_proof import PROVE, AbsenceProof
from include.disclosure.delivery import DELIVER
from include.disclosure.expiry import EXPIRE, Expiry
from include.disclosure.grants import EndReason, GrantState
from include.disclosure.opening import open_extract
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.disclosure.workflow import unfinished_grants
from include.evidence.model import Outcome
from include.holds.registry import HoldKind, active_holds
from include.notify.notification import Notification
from include.notify.outbox import QueueCounts
from include.services.errors import CouldNotRun, ServiceError, UsageError
from include.services.objectstore.base import StoreError
from include.services.objectstore.directory import DirectoryStore
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import UseCompany, erase, hold, spec_of


def delivered(company: UseCompany) -> int:
    """Return the number of a request whose extract was delivered and opened."""
    run, number = approved(company)
    run.step(DELIVER)
    list(
        open_extract(
            company.state, company.store, company.clock, number, person="clerk", channel="page"
        ).pieces
    )
    return number


def test_expire_keeps_extract_before_its_end(company: UseCompany) -> None:
    number = delivered(company)
    record = company.expire()
    del record
    assert grant_of(company, number).state is GrantState.DELIVERED
    assert len(company.objects()) == 1


def test_expired_extract_is_deleted_and_proved(company: UseCompany) -> None:
    number = delivered(company)
    company.clock.at = grant_of(company, number).expires_at
    run = company.start("expire_grants", by=None)
    ended = Expiry.model_validate(run.step(EXPIRE).data)
    assert [(grant.request, grant.reason) for grant in ended.ended] == [(number, EndReason.EXPIRED)]
    proof = run.step(PROVE)
    assert proof.outcome is Outcome.PASS
    assert AbsenceProof.model_validate(proof.data).proved == 1
    assert company.objects() == []
    grant = grant_of(company, number)
    assert (grant.state, grant.end_reason) == (GrantState.ENDED, EndReason.EXPIRED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"active": False}, EndReason.NOT_ENTITLED),
        ({"trained": False}, EndReason.NOT_ENTITLED),
        ({"department": "warehouse"}, EndReason.TRANSFERRED),
    ],
)
def test_access_ends_if_the_requester_leaves_or_moves(
    company: UseCompany, change: dict[str, object], reason: EndReason
) -> None:
    number = delivered(company)
    company.set_employee("clerk", **change)
    company.expire()
    assert grant_of(company, number).end_reason is reason
    assert company.objects() == []


def test_access_ends_if_a_data_subject_asks_for_erasure(company: UseCompany) -> None:
    number = delivered(company)
    company.clock.at += timedelta(hours=1)
    erase(company, "3")
    company.expire()
    assert grant_of(company, number).end_reason is EndReason.ERASURE
    assert company.objects() == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (HoldKind.SUBJECT, "3"),
        (HoldKind.SUBJECT, "shop/3"),
        (HoldKind.CASE, "3"),
        (HoldKind.CLASS, "customer"),
        (HoldKind.DATABASE, "shop"),
    ],
)
def test_legal_hold_keeps_the_record_and_not_the_extract(
    company: UseCompany, kind: HoldKind, value: str
) -> None:
    number = delivered(company)
    placed = hold(company, kind, value)
    company.clock.at = grant_of(company, number).expires_at
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED
    assert company.objects() == []
    with company.state.connect() as conn:
        assert [active.id for active in active_holds(conn)] == [placed]
    assert company.execute("SELECT count(*) FROM customer WHERE customer_id = 3") == [(1,)]


def test_erasure_request_ends_the_access_although_the_record_is_on_hold(
    company: UseCompany,
) -> None:
    number = delivered(company)
    company.clock.at += timedelta(hours=1)
    hold(company, HoldKind.SUBJECT, "3")
    erase(company, "3")
    company.expire()
    assert grant_of(company, number).end_reason is EndReason.ERASURE
    assert company.objects() == []


def test_access_continues_if_another_person_asks_for_erasure(company: UseCompany) -> None:
    company.add_customers(1, status="closed")
    number = delivered(company)
    erase(company, "6")
    company.expire()
    assert grant_of(company, number).state is GrantState.DELIVERED


def test_uploaded_keys_and_subjects_are_deleted_at_the_end(company: UseCompany) -> None:
    run, number = approved(company, keys=frozenset({"1", "2"}))
    run.step(DELIVER)
    company.clock.at = grant_of(company, number).expires_at
    company.expire()
    with company.state.connect() as conn:
        for table in ("use_request_key", "use_subject"):
            assert conn.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_object_that_no_delivery_wrote_stays_and_fails_the_run(company: UseCompany) -> None:
    """It may be the trace of an extract without an approval."""
    for key in ("use/77/abc.zip", "use/abc/x", "backup/copy.xlsx"):
        company.store.put(key, b"unknown")
    run = company.start("expire_grants", by=None)
    assert Expiry.model_validate(run.step(EXPIRE).data).left_overs == 0
    proof = run.step(PROVE)
    assert {finding.code for finding in proof.findings} == {"use.extract_remains"}
    assert AbsenceProof.model_validate(proof.data).listed == len(company.objects()) == 3


def test_extract_that_cannot_be_deleted_fails_and_is_tried_again(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = delivered(company)
    company.clock.at = grant_of(company, number).expires_at

    def away(*_: object) -> None:
        raise StoreError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "delete", away)
        with pytest.raises(ServiceError):  # Airflow retries the task
            company.start("expire_grants", by=None).step(EXPIRE)
        company.is_last_try = True
        run = company.start("expire_grants", by=None)
        record = run.step(EXPIRE)
        assert [finding.code for finding in record.findings] == ["use.not_deleted"]
        proof = run.step(PROVE)
        assert [finding.code for finding in proof.findings] == ["use.extract_remains"]
    assert grant_of(company, number).state is GrantState.ENDING
    with pytest.raises(UsageError):
        open_extract(
            company.state, company.store, company.clock, number, person="clerk", channel="page"
        )
    company.is_last_try = False
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED


def test_access_that_ends_between_the_steps_is_left_for_the_next_run(company: UseCompany) -> None:
    number = delivered(company)
    run = company.start("expire_grants", by=None)
    run.step(EXPIRE)
    company.clock.at += timedelta(seconds=5)
    with company.state.begin() as conn:
        grants.end_access(conn, number, EndReason.ENDED_BY_PERSON, company.clock.now(), by="lead")
    proof = run.step(PROVE)
    assert (proof.outcome, proof.data["proved"]) == (Outcome.PASS, 0)
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED


def test_grant_whose_approval_was_removed_is_reported(company: UseCompany) -> None:
    number = delivered(company)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("DELETE FROM approval_decision"))
    run = company.start("expire_grants", by=None)
    run.step(EXPIRE)
    proof = run.step(PROVE)
    assert AbsenceProof.model_validate(proof.data).unapproved == (number,)
    assert proof.outcome is Outcome.FAIL


def test_missing_confirmation_becomes_a_finding_after_its_time(company: UseCompany) -> None:
    number = delivered(company)
    company.clock.at = grant_of(company, number).expires_at
    company.expire()
    company.clock.at += timedelta(days=4)
    record = company.start("expire_grants", by=None).step(EXPIRE)
    assert [finding.code for finding in record.findings] == ["use.copies_not_confirmed"]
    confirm = company.start(by="clerk", action="confirm", request=number)
    confirm.step(CONFIRM_COPIES)
    record = company.start("expire_grants", by=None).step(EXPIRE)
    assert record.findings == []


def test_confirmation_ends_a_live_access(company: UseCompany) -> None:
    number = delivered(company)
    company.start(by="clerk", action="confirm", request=number).step(CONFIRM_COPIES)
    grant = grant_of(company, number)
    assert (grant.state, grant.end_reason) == (GrantState.ENDING, EndReason.CONFIRMED)


@pytest.mark.parametrize("person", ["lead", None])
def test_only_the_requester_can_confirm(company: UseCompany, person: str | None) -> None:
    number = delivered(company)
    with pytest.raises(CouldNotRun):
        company.start(by=person, action="confirm", request=number).step(CONFIRM_COPIES)
    assert grant_of(company, number).state is GrantState.DELIVERED


def test_requester_is_reminded_once_before_the_end(company: UseCompany) -> None:
    number = delivered(company)
    company.clock.at = grant_of(company, number).expires_at - timedelta(hours=5)
    company.expire()
    company.expire()
    with company.state.connect() as conn:
        query = text("SELECT count(*) FROM notification WHERE kind = 'use.ending'")
        assert conn.scalar(query) == 1


@pytest.mark.parametrize(
    ("kind", "before_end"), [("use.ending", timedelta(hours=5)), ("use.confirm", timedelta())]
)
def test_reminders_are_queued_in_short_transactions(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch, kind: str, before_end: timedelta
) -> None:
    """Each transaction locks the queue, for which approvals and deliveries wait."""
    numbers = [delivered(company) for _request in range(3)]
    queued: list[tuple[object, list[str]]] = []
    queue = use_notifications.queue_notifications

    def record(conn: Connection, notifications: Iterable[Notification], *more: Any) -> QueueCounts:
        entries = list(notifications)
        queued.append((conn.get_transaction(), [entry.kind for entry in entries]))
        return queue(conn, entries, *more)

    monkeypatch.setattr(use_notifications, "queue_notifications", record)
    monkeypatch.setattr(use_notifications, "MOST_QUEUED", 2, raising=False)
    company.clock.at = grant_of(company, numbers[0]).expires_at - before_end
    company.expire()
    assert [kinds for _transaction, kinds in queued] == [[kind, kind], [kind]]
    assert len({id(transaction) for transaction, _kinds in queued}) == len(queued)
    with company.state.connect() as conn:
        query = text("SELECT count(*) FROM notification WHERE kind = :kind")
        assert conn.scalar(query, {"kind": kind}) == 3


def test_unconfigured_store_is_reported_and_live_grants_are_not_forgotten(
    company: UseCompany,
) -> None:
    company.extract_spec = None
    record = company.start("expire_grants", by=None).step(EXPIRE)
    assert [finding.code for finding in record.findings] == ["use.not_configured"]
    company.reset()
    company.add_customers()
    delivered(company)
    company.extract_spec = None
    with pytest.raises(UsageError, match="is missing, but 1 grants"):
        company.start("expire_grants", by=None).step(EXPIRE)


def test_extract_that_is_never_delivered_ends(company: UseCompany) -> None:
    _run, number = approved(company)
    with company.state.begin() as conn:
        from include.disclosure.requests import load_request

        grants.grant_request(
            conn, load_request(conn, number), approvals=[1], department="service",
            approved_at=company.clock.now(),
        )  # fmt: skip
    company.clock.at += timedelta(hours=7)
    company.expire()
    assert grant_of(company, number).end_reason is EndReason.NOT_DELIVERED


def test_empty_roster_is_reported_and_ends_no_access(company: UseCompany) -> None:
    number = delivered(company)
    company.execute("DELETE FROM roster")
    record = company.start("expire_grants", by=None).step(EXPIRE)
    assert [finding.code for finding in record.findings] == ["use.roster_empty"]
    assert grant_of(company, number).state is GrantState.DELIVERED


def test_expired_extract_is_deleted_although_the_roster_cannot_be_read(
    company: UseCompany,
) -> None:
    number = delivered(company)
    company.clock.at = grant_of(company, number).expires_at
    company.execute("ALTER TABLE roster RENAME COLUMN trained TO has_training")
    try:
        run = company.start("expire_grants", by=None)
        record = run.step(EXPIRE)
        run.step(PROVE)
    finally:
        company.execute("ALTER TABLE roster RENAME COLUMN has_training TO trained")
    assert [finding.code for finding in record.findings] == ["use.roster_unreadable"]
    assert grant_of(company, number).state is GrantState.ENDED


def test_changed_request_of_another_person_does_not_stop_the_end_of_accesses(
    company: UseCompany,
) -> None:
    number, other = delivered(company), delivered(company)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text("UPDATE use_request SET plan = plan || '{\"records\": 9}' WHERE id = :id"),
            {"id": other},
        )
    company.clock.at = grant_of(company, number).expires_at
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED
    assert grant_of(company, other).state is GrantState.ENDED


def test_many_erasure_requests_do_not_stop_the_end_of_accesses(company: UseCompany) -> None:
    number = delivered(company)
    with company.state.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO erasure_request (database, subject, reference, received_on, due_on,"
                " entered_by, entered_at) SELECT 'shop', (100000 + n)::text, 'R', '2026-11-30',"
                " '2026-12-30', 'x', now() FROM generate_series(1, 70000) n"
            )
        )
    company.expire()
    assert grant_of(company, number).state is GrantState.DELIVERED


@pytest.mark.parametrize("subject", ["03", " 3", "+3"])
def test_access_ends_if_the_erasure_request_spells_the_key_otherwise(
    company: UseCompany, subject: str
) -> None:
    number = delivered(company)
    erase(company, subject)
    company.expire()
    assert grant_of(company, number).end_reason is EndReason.ERASURE


def test_access_ends_if_an_erasure_request_was_closed_since_the_snapshot(
    company: UseCompany,
) -> None:
    number = delivered(company)
    company.clock.at += timedelta(minutes=5)
    erase(company, "3")
    with company.state.begin() as conn:
        conn.execute(
            text(
                "UPDATE erasure_request SET closed_at = :at, closed_by = 'x', closed_because = 'y'"
            ),
            {"at": company.clock.now()},
        )
    company.expire()
    assert grant_of(company, number).end_reason is EndReason.ERASURE


def test_extract_in_another_store_is_not_proved_to_be_deleted(
    company: UseCompany, tmp_path: Path
) -> None:
    number = delivered(company)
    company.clock.at = grant_of(company, number).expires_at
    company.extract_spec = spec_of(tmp_path)
    run = company.start("expire_grants", by=None)
    record = run.step(EXPIRE)
    assert [finding.code for finding in record.findings] == ["use.other_store"]
    assert run.step(PROVE).data["proved"] == 0
    assert grant_of(company, number).state is GrantState.ENDING
    company.extract_spec = spec_of(company.folder)
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED


def test_missing_extract_of_a_live_access_is_reported(company: UseCompany) -> None:
    number = delivered(company)
    company.clock.at += timedelta(minutes=1)
    company.store.delete(grant_of(company, number).object_key)
    run = company.start("expire_grants", by=None)
    run.step(EXPIRE)
    assert [finding.code for finding in run.step(PROVE).findings] == ["use.extract_missing"]


FORGERIES = {
    "no second approval": "DELETE FROM approval_decision WHERE request_id = (SELECT id FROM "
    "approval_request WHERE kind = 'use.second')",
    "decided by the requester": "UPDATE approval_decision SET decided_by = ' Clerk'",
    "decided twice by one person": "UPDATE approval_decision SET decided_by = 'lead'",
    "decided after the approval": "UPDATE approval_decision SET decided_at = decided_at + "
    "interval '1 second'",
    "decided after the deadline": "UPDATE approval_request SET deadline = requested_at - "
    "interval '1 second'",
    "another content": "UPDATE approval_request SET sha256 = repeat('0', 64)",
    "rejected": "UPDATE approval_decision SET decision = 'Reject'",
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("is_ended", [False, True])
def test_extract_without_each_required_approval_is_reported(
    company: UseCompany, forgery: str, is_ended: bool
) -> None:
    fields = ["name", "id_number"]
    run, number = approved(company, fields=fields, unmasked=["id_number"])
    run.step(DELIVER)
    if is_ended:
        company.clock.at = grant_of(company, number).expires_at
        company.expire()
        assert grant_of(company, number).state is GrantState.ENDED
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text(FORGERIES[forgery]))
    check = company.start("expire_grants", by=None)
    check.step(EXPIRE)
    proof = check.step(PROVE)
    assert AbsenceProof.model_validate(proof.data).unapproved == (number,)
    assert proof.outcome is Outcome.FAIL


def test_run_without_use_yaml_fails_while_extracts_are_not_deleted(company: UseCompany) -> None:
    number = delivered(company)
    with company.state.connect() as conn:
        assert unfinished_grants(conn) is not None
    company.clock.at = grant_of(company, number).expires_at
    company.expire()
    with company.state.connect() as conn:
        assert unfinished_grants(conn) is None
