"""Delivery checks a request again, writes exactly the approved records, and reads them back."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
import pyzipper
from sqlalchemy import text

from include.disclosure import delivery, grants, verification
from include.disclosure.approval import APPROVE, APPROVE_SECOND
from include.disclosure.content import digest_document
from include.disclosure.delivery import DELIVER, deliver_extract
from include.disclosure.extracts.counting import CountedExtract
from include.disclosure.grants import GrantState
from include.disclosure.opening import open_extract
from include.disclosure.requests import load_request
from include.disclosure.use_check import CHECK
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.services.errors import ControlFailed, UsageError
from tests.disclosure.use_fixtures import RULES, UseCompany, UseRun, erase, new_pack


def grant_of(company: UseCompany, number: int) -> grants.Grant:
    """Return the grant of a request."""
    with company.state.connect() as conn:
        grant = grants.find_grant(conn, number)
    assert grant is not None
    return grant


def approved(company: UseCompany, **more: object) -> tuple[UseRun, int]:
    """Return a run whose request is approved, and the number of the request."""
    request = company.request(**more)
    run = company.start(request=request.id)
    run.step(CHECK)
    run.answer(APPROVE, "lead")
    run.answer(APPROVE_SECOND, "officer")
    return run, request.id


def opened_csv(company: UseCompany, number: int) -> str:
    """Return the CSV file of a ZIP extract that the requester opens with the mailed password."""
    opened = open_extract(
        company.state, company.store, company.clock, number, person="clerk", channel="command"
    )
    content = io.BytesIO(b"".join(opened.pieces))
    with pyzipper.AESZipFile(content) as archive:
        archive.setpassword(company.password(number).encode())
        return archive.read(f"extract-{number}.csv").decode("utf-8-sig")


def test_deliver_writes_approved_records_and_masked_columns(company: UseCompany) -> None:
    company.add_customers(2, status="closed")
    run, number = approved(company)
    record = run.step(DELIVER)
    assert record.outcome is Outcome.PASS
    lines = opened_csv(company, number).splitlines()
    assert lines[0] == "customer_id,name,phone,weight"
    assert lines[1] == "1,王**,138******01,10"
    assert len(lines) == 6
    assert run.verify().outcome is Outcome.PASS
    grant = grant_of(company, number)
    assert (grant.state, grant.records) == (GrantState.DELIVERED, 5)
    assert (grant.expires_at - grant.approved_at).days == 3


def test_deliver_shows_unmasked_columns_after_second_approval(company: UseCompany) -> None:
    fields = ["name", "id_number"]
    run, number = approved(company, fields=fields, unmasked=["id_number"])
    run.step(DELIVER)
    assert opened_csv(company, number).splitlines()[1] == "王**,ID1"


def test_deliver_leaves_personal_column_without_mask_empty(company: UseCompany) -> None:
    run, number = approved(company, fields=["customer_id", "id_number"])
    run.step(DELIVER)
    assert opened_csv(company, number).splitlines()[1] == "1,"


def test_deliver_without_approval_writes_nothing(company: UseCompany) -> None:
    request = company.request()
    run = company.start(request=request.id)
    run.step(CHECK)
    run.answer(APPROVE, "lead", "Reject")
    run.answer(APPROVE_SECOND, "officer")
    record = run.step(DELIVER)
    assert [finding.code for finding in record.findings] == ["use.not_approved"]
    assert company.objects() == []
    with company.state.connect() as conn:
        assert grants.find_grant(conn, request.id) is None


def test_deliver_refuses_if_more_records_match_than_were_approved(company: UseCompany) -> None:
    run, _number = approved(company)
    company.add_customers(1)
    with pytest.raises(ControlFailed, match="more than was approved"):
        run.step(DELIVER)
    assert company.objects() == []


def test_deliver_accepts_fewer_records_after_a_deletion(company: UseCompany) -> None:
    run, number = approved(company)
    company.execute("DELETE FROM customer WHERE customer_id = 2")
    run.step(DELIVER)
    assert len(opened_csv(company, number).splitlines()) == 5


def test_deliver_refuses_if_other_records_include_more_minors(company: UseCompany) -> None:
    run, _number = approved(company)
    company.execute("UPDATE customer SET birth_date = '2015-01-01' WHERE customer_id = 1")
    with pytest.raises(ControlFailed, match="more than was approved"):
        run.step(DELIVER)


@pytest.mark.parametrize("change", [{"active": False}, {"trained": False}])
def test_deliver_refuses_requester_who_left_after_approval(
    company: UseCompany, change: dict[str, bool]
) -> None:
    run, _number = approved(company)
    company.set_employee("clerk", **change)
    with pytest.raises(ControlFailed, match="no longer active or trained"):
        run.step(DELIVER)
    assert company.objects() == []


def test_deliver_refuses_request_that_was_changed_in_the_state_database(
    company: UseCompany,
) -> None:
    run, number = approved(company)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(
            text(
                "UPDATE use_request SET content = jsonb_set(content, '{days}', '7') WHERE id = :id"
            ),
            {"id": number},
        )
    with pytest.raises(ControlFailed, match="was changed after it was stored"):
        run.step(DELIVER)


def test_repeated_delivery_keeps_the_first_extract(company: UseCompany) -> None:
    run, number = approved(company)
    run.step(DELIVER)
    first = grant_of(company, number)
    run.step(DELIVER)
    assert grant_of(company, number) == first
    assert company.objects() == [first.object_key]


def test_delivery_after_killed_attempt_replaces_its_object(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = approved(company)

    def killed(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("include.disclosure.grants.record_delivery", killed)
        with pytest.raises(KeyboardInterrupt):
            deliver_extract(run.context, StepFindings("deliver", "5.3"))
    assert len(company.objects()) == 1
    run.step(DELIVER)
    grant = grant_of(company, number)
    assert grant.object_key in company.objects()
    company.expire()
    assert company.objects() == [grant.object_key]


def test_delivery_is_deleted_if_the_access_ended_meanwhile(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = approved(company)
    record = grants.record_delivery

    def end_first(conn: object, *args: object, **more: object) -> bool:
        with company.state.begin() as other:
            grants.end_access(other, number, grants.EndReason.ENDED_BY_PERSON, company.clock.now())
        return record(conn, *args, **more)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr("include.disclosure.grants.record_delivery", end_first)
    with pytest.raises(ControlFailed, match="ended while it was delivered"):
        run.step(DELIVER)
    assert company.objects() == []


def test_verify_reports_file_that_was_changed_in_the_store(company: UseCompany) -> None:
    run, number = approved(company)
    run.step(DELIVER)
    company.store.put(grant_of(company, number).object_key, b"other")
    record = run.verify()
    assert [finding.code for finding in record.findings] == ["use.file_changed"]


def test_open_refuses_other_people_and_records_each_opening(company: UseCompany) -> None:
    run, number = approved(company)
    run.step(DELIVER)
    for person in ("lead", "", "clerk2"):
        with pytest.raises(UsageError, match="no extract of request"):
            open_extract(
                company.state, company.store, company.clock, number, person=person, channel="page"
            )
    opened_csv(company, number)
    with company.state.connect() as conn:
        assert [row[0] for row in grants.openings(conn, number)] == ["clerk"]


def test_open_refuses_at_the_moment_of_expiry(company: UseCompany) -> None:
    run, number = approved(company)
    run.step(DELIVER)
    company.clock.at = grant_of(company, number).expires_at
    with pytest.raises(UsageError, match="cannot be opened"):
        opened_csv(company, number)


def test_deliver_refuses_long_after_the_approval(company: UseCompany) -> None:
    run, _number = approved(company)
    company.clock.at += timedelta(hours=7)
    with pytest.raises(ControlFailed, match="older than 6 hours"):
        run.step(DELIVER)
    assert company.objects() == []


def test_deliver_refuses_requester_who_was_transferred_after_the_check(
    company: UseCompany,
) -> None:
    run, _number = approved(company)
    company.set_employee("clerk", department="warehouse")
    with pytest.raises(ControlFailed, match="another department"):
        run.step(DELIVER)


def test_deliver_leaves_out_erased_people_with_keys_of_nineteen_digits(
    company: UseCompany,
) -> None:
    largest = 2**63 - 1
    company.add_customers(1, after=largest - 1)
    erase(company, str(largest))
    run, number = approved(company)
    run.step(DELIVER)
    assert str(largest) not in opened_csv(company, number)
    keys = frozenset({str(largest - 5), str(largest), "9" * 30})
    assert company.request(keys=keys).plan.excluded == 1


def test_delivery_that_ends_after_the_expiry_is_deleted(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = approved(company)
    write = delivery.write_extract

    def slow(*args: Any, **more: Any) -> Any:
        company.clock.at += timedelta(days=4)
        return write(*args, **more)

    monkeypatch.setattr(delivery, "write_extract", slow)
    with pytest.raises(ControlFailed, match="ended while it was delivered"):
        run.step(DELIVER)
    assert company.objects() == []
    assert grant_of(company, number).state is GrantState.DELIVERING


def test_deliver_refuses_records_of_more_people(company: UseCompany) -> None:
    company.execute("ALTER TABLE customer ADD COLUMN household bigint")
    try:
        company.execute("UPDATE customer SET household = 1")
        collection = RULES.collections[0].model_copy(update={"subjects": ("household",)})
        columns = {**company.pack.databases["shop"].collections["customer"].fields}
        assert columns
        company.pack = new_pack(RULES.model_copy(update={"collections": (collection,)}))
        run, _number = approved(company)
        company.execute("UPDATE customer SET household = 2 WHERE customer_id = 1")
        with pytest.raises(ControlFailed, match="more than was approved"):
            run.step(DELIVER)
    finally:
        company.execute("ALTER TABLE customer DROP COLUMN household")


@pytest.mark.parametrize("form", ["zip", "xlsx"])
def test_verify_counts_the_records_of_the_decrypted_file(company: UseCompany, form: str) -> None:
    run, number = approved(company, form=form)
    run.step(DELIVER)
    record = run.verify()
    assert record.findings == []
    assert record.data["counted_records"] == grant_of(company, number).records == 5


def test_verify_reports_extract_with_more_records_than_were_approved(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _number = approved(company)
    run.step(DELIVER)
    more = CountedExtract(records=6, columns=4)
    monkeypatch.setattr(verification, "count_extract", lambda *_: more)
    assert [finding.code for finding in run.verify().findings] == ["use.more_than_approved"]


def test_request_of_an_earlier_version_with_fewer_fields_is_still_valid(
    company: UseCompany,
) -> None:
    number = company.request().id
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        row = conn.execute(text("SELECT content, plan FROM use_request")).one()
        content = {key: value for key, value in row.content.items() if key != "recipient"}
        conn.execute(
            text("UPDATE use_request SET content = content - 'recipient', sha256 = :sha256"),
            {"sha256": digest_document(content, row.plan)},
        )
        assert load_request(conn, number).content.recipient == ""
