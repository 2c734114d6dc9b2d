"""Tests of the preservation of evidence: list of people, legal holds, log extracts and failures."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, timedelta
from time import process_time

import pytest

from include.evidence.model import Outcome
from include.evidence.step_findings import artifacts_of
from include.holds import registry
from include.incident import incident_run
from include.incident.evidence import evidence_check, preservation
from include.incident.evidence.extract import Extract, decrypt_extract
from include.incident.incident_ids import UPDATES, Kind
from include.incident.rules import HoldRule
from include.incident.selection import Selection
from include.notify.outbox import Run
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from tests.incident.incident_fixtures import (
    EACH_UP_TO,
    NIGHT,
    Case,
    Company,
    assess,
    english,
    holds,
    key,
    widen,
)


def holds_of(case: Case) -> set[tuple[str, str]]:
    with case.company.state.connect() as conn:
        return holds(conn, case.number)


def subject_holds(*keys: int) -> set[tuple[str, str]]:
    return {("subject", f"courier/{key}") for key in keys}


def test_legal_hold_is_placed_on_each_person_if_few_are_affected_and_on_database_if_many(
    company: Company,
) -> None:
    few = company.open(*range(1, EACH_UP_TO + 1)).counted()
    assert holds_of(few) == subject_holds(1, 2, 3, 4)
    many = company.open(*range(1, EACH_UP_TO + 2)).counted()
    assert holds_of(many) == {("database", "courier")}
    run = company.context(Run(UPDATES, "more"))
    more = Selection(databases=("courier",), keys=tuple(f"courier/{key}" for key in range(1, 8)))
    widen(run, few.number, more, by="L1")
    few.preserve(run.run)
    assert holds_of(few) == subject_holds(1, 2, 3, 4) | {("database", "courier")}


def test_release_of_hold_for_first_incident_keeps_hold_of_second_incident_on_same_person(
    company: Company,
) -> None:
    first, second = company.open(1, 2).counted(), company.open(2, 3).counted()
    first.preserve()
    assert (holds_of(first), holds_of(second)) == (subject_holds(1, 2), subject_holds(2, 3))
    with company.state.begin() as conn:
        for hold in registry.active_holds(conn):
            if hold.value == "courier/2" and hold.case_ref == first.number:
                registry.release(
                    conn, company.clock, hold.id, released_by="C1", reason="The case is over"
                )
    assert (holds_of(first), holds_of(second)) == (subject_holds(1), subject_holds(2, 3))


def test_hold_has_reason_owner_and_review_date(company: Company) -> None:
    case = company.open(5).counted()
    with company.state.connect() as conn:
        (hold,) = [hold for hold in registry.active_holds(conn) if hold.case_ref == case.number]
    assert hold.reason == f"Evidence of incident {case.number}"
    assert hold.owner == "information_management"
    assert hold.review_on == date(2026, 11, 26) + timedelta(days=90)


def test_hold_is_placed_on_whole_database_that_cannot_be_read(company: Company) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1"])
    record = assess(case.context)
    assert record.outcome is Outcome.FAIL
    assert case.preserve().outcome is Outcome.FAIL
    assert holds_of(case) == {*subject_holds(1), ("database", "archive")}
    company.broken = set()
    other = company.open(databases=["archive"], keys=["archive/1"])
    assess(other.context)
    company.broken = {"archive"}
    other.preserve()
    assert holds_of(other) == {("database", "archive")}
    (entry,) = other.entries(Kind.PRESERVED)
    assert (entry.data["not_listed"], entry.data["complete"]) == (["archive"], False)


def test_hold_is_placed_on_whole_database_if_key_looks_like_id_number(
    company: Company,
) -> None:
    case = company.open(1)
    with company.state.begin() as conn:
        placed = preservation.place_holds(
            conn, case.context, case.number, {"courier": 2, "archive": 1},
            [("courier", "1"), ("courier", "11010119900307123X"), ("archive", "7")],
        )  # fmt: skip
    assert placed == {"database": 1, "subject": 1}
    assert holds_of(case) == {("database", "courier"), ("subject", "archive/7")}


def test_thousand_legal_holds_are_placed_within_3_seconds_of_process_time(company: Company) -> None:
    case = company.open(1)
    rules = case.context.rules.model_copy(update={"hold": HoldRule(each_up_to=1_000)})
    company.rules = rules
    keys = [("courier", str(number)) for number in range(1, 1_001)]
    before = process_time()
    with company.state.begin() as conn:
        placed = preservation.place_holds(conn, case.context, case.number, {"courier": 1_000}, keys)
    assert placed == {"database": 0, "subject": 1_000}
    assert process_time() - before < 3  # seconds of this process; most of it waits for the server


def test_access_log_is_extracted_again_after_a_new_count_and_earlier_extract_is_kept(
    company: Company,
) -> None:
    case = company.open(1).counted()
    (first,) = case.entries(Kind.PRESERVED)
    case.preserve()
    assert case.entries(Kind.PRESERVED) == [first]
    extract = first.data["extracts"]["courier"]
    assert extract["key"] == f"incidents/{case.number}/access.courier.1.csv.zst.enc"
    assert extract["rows"] == 3
    run = company.context(Run(UPDATES, f"more {case.number}"))
    selection = Selection(databases=("courier",), keys=("courier/1", "courier/2"))
    widen(run, case.number, selection, by="L1")
    case.preserve(run.run)
    other = case.entries(Kind.PRESERVED)[-1].data["extracts"]["courier"]
    assert other["key"].startswith(f"incidents/{case.number}/access.courier.2.")
    case.preserve()  # the task of the incident's own run is cleared: no extract is overwritten
    third = case.entries(Kind.PRESERVED)[-1].data["extracts"]["courier"]
    keys = {item["key"] for item in (extract, other, third)}
    records = {path.name for path in company.folder.rglob("*.enc")}
    assert {key.rpartition("/")[2] for key in keys} == records
    assert len(records) == 3


def test_failed_extract_raises_error_and_becomes_finding_on_last_attempt(company: Company) -> None:
    case = company.open(1)
    assess(case.context)
    company.folder.rmdir()
    company.folder.write_text("a file where the store was")
    with pytest.raises(ServiceError):
        case.preserve()
    assert holds_of(case) == subject_holds(1)
    record = case.preserve(last=True)
    assert [finding.code for finding in record.findings] == ["incident.not_extracted"]
    (entry,) = case.entries(Kind.PRESERVED)
    assert (entry.data["people"], entry.data["complete"]) == (1, False)
    company.folder.unlink()
    company.folder.mkdir()
    assert case.preserve().outcome is Outcome.PASS
    assert case.entries(Kind.PRESERVED)[-1].data["complete"]


def test_database_without_access_log_gives_finding_of_severity_attention(company: Company) -> None:
    case = company.open(databases=["archive"], keys=["archive/1"])
    assess(case.context)
    record = case.preserve()
    assert (record.outcome, [finding.code for finding in record.findings]) == (
        Outcome.ATTENTION, ["incident.no_access_log"],
    )  # fmt: skip
    assert case.entries(Kind.PRESERVED)[0].data["complete"]


def test_state_database_contains_no_name_or_mail_address_of_customer(company: Company) -> None:
    case = company.open(1, 2).until("notify")
    with company.state.connect() as conn:
        rows = [str(row) for row in conn.exec_driver_sql("SELECT i::text FROM incident i")]
        for table in (
            "incident_entry",
            "incident_scope",
            "incident_subject",
            "notification",
            "run_step",
        ):
            rows += [str(row) for row in conn.exec_driver_sql(f"SELECT t::text FROM {table} t")]
    assert rows
    text = json.dumps(rows)
    assert "customer.example" not in text
    assert "Name 1" not in text
    assert case.entries(Kind.QUEUED)
    assert company.clock.now() > NIGHT


def opened_rows(company: Company, case: Case, name: str) -> list[list[str]]:
    """Return the rows of an extract, decrypted with the recipient's key."""
    with company.state.connect() as conn:
        description = artifacts_of(conn, case.run.dag_id, case.run.run_id)[name]
    pieces = decrypt_extract(
        DirectoryStore(company.folder), Extract.model_validate_json(description), key()
    )
    return sorted(list(csv.reader(io.StringIO(b"".join(pieces).decode())))[1:])


def log_rows(company: Company, statement: str) -> list[list[str]]:
    """Return the rows of a query on the company's database, for comparison with an extract."""
    with company.address.connect() as connection:
        rows = connection.execute(statement.encode()).fetchall()
    return sorted([str(value) for value in row] for row in rows)


def test_extract_limited_to_accounts_contains_all_counted_rows(company: Company) -> None:
    query = "SELECT opened_id, number, customer_id FROM opened WHERE number = 'OLD'"
    company.run("INSERT INTO opened SELECT n, 'OLD', n % 5, timestamptz '2020-01-01Z'"
                " + n * interval '10 days' FROM generate_series(100, 130) n")  # fmt: skip
    try:
        for more, window in (
            ({}, ""),
            ({"since": "2023-01-01T00:00+00:00"}, " AND at >= '2023-01-01Z'"),
        ):
            case = company.open(keys=[], accounts=["OLD"], **more)
            assess(case.context)
            assert case.preserve().outcome is Outcome.PASS
            rows = opened_rows(company, case, "extract.courier.1.json")
            assert [row[:3] for row in rows] == log_rows(company, query + window)
            scope = incident_run.require_scope(case.context, case.record.incident.id)
            assert len(rows) == scope.counted[0].log_rows
    finally:
        company.run("DELETE FROM opened WHERE number = 'OLD'")


def test_extract_of_sharing_log_is_created_if_scope_has_a_partner(company: Company) -> None:
    case = company.open(keys=[], partner="7")
    assess(case.context)
    assert case.preserve().outcome is Outcome.PASS
    rows = opened_rows(company, case, "extract.courier.shares.1.json")
    own = "SELECT given_id, partner, customer_id FROM given WHERE partner = 7"
    assert [row[:3] for row in rows] == log_rows(company, own)
    assert len(rows) == 2
    (entry,) = case.entries(Kind.PRESERVED)
    extract = entry.data["extracts"]["courier.shares"]
    assert (extract["database"], extract["log"], extract["rows"]) == ("courier", "shares", 2)
    assert extract["key"] == f"incidents/{case.number}/shares.courier.1.csv.zst.enc"
    lines = [english(line) for line in evidence_check.evidence_lines(case.context, case.record)]
    assert (
        f"Extract of the sharing log of Courier: 2 rows, SHA-256 {extract['sha256_clear']}" in lines
    )


def test_extract_with_fewer_rows_than_counted_is_reported_as_failure(company: Company) -> None:
    company.run("INSERT INTO opened VALUES (90, 'B2', 9, '2026-11-24 13:00Z')")
    case = company.open(keys=[], accounts=["B2"])
    assess(case.context)
    company.run("DELETE FROM opened WHERE opened_id = 90")
    record = case.preserve()
    findings = [
        finding for finding in record.findings if finding.code == "incident.extract_incomplete"
    ]
    assert english(findings[0].message) == (
        "courier: 4 rows of a log show access to affected people or their data, "
        "but only 3 of these rows were extracted."
    )
    assert record.outcome is Outcome.FAIL
    assert not case.entries(Kind.PRESERVED)[-1].data["complete"]
