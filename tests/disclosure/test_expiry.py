"""Accesses end in time, their extracts are deleted, and an independent listing proves it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from include.disclosure import grants
from include.disclosure.delivery import DELIVER
from include.disclosure.expiry import EXPIRE, PROVE, AbsenceProof, Expiry
from include.disclosure.grants import EndReason, GrantState
from include.disclosure.opening import open_extract
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.evidence.model import Outcome
from include.services.errors import CouldNotRun, ServiceError, UsageError
from include.services.objectstore.base import StoreError
from include.services.objectstore.directory import DirectoryStore
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.test_use_check import erase
from tests.disclosure.use_fixtures import UseCompany


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


def test_left_over_object_of_killed_delivery_is_deleted(company: UseCompany) -> None:
    company.store.put("use/77/abc.zip", b"left over")
    record = company.start("expire_grants", by=None).step(EXPIRE)
    assert Expiry.model_validate(record.data).left_overs == 1
    assert company.objects() == []


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


def test_object_outside_of_the_folders_of_requests_is_deleted(company: UseCompany) -> None:
    company.store.put("use/abc/x", b"left over")
    run = company.expire()
    del run
    assert company.objects() == []


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
