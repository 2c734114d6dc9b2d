"""Evidence that is secured: the list, the holds, the log; and what could not be is said."""

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
from include.incident.evidence import kept, preserving
from include.incident.evidence.extract import Extract, opened
from include.incident.names import UPDATES, Kind
from include.incident.rules import HoldRule
from include.incident.selection import Selection
from include.notify.outbox import Run
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from tests.incident.desk_rig import (
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


def held(case: Case) -> set[tuple[str, str]]:
    with case.company.state.connect() as conn:
        return holds(conn, case.number)


def each(*keys: int) -> set[tuple[str, str]]:
    return {("subject", f"courier/{one}") for one in keys}


def test_few_people_are_held_one_by_one_and_many_with_their_database(company: Company) -> None:
    """Where that changes by what was found later, the holds of before stay."""
    few = company.open(*range(1, EACH_UP_TO + 1)).counted()
    assert held(few) == each(1, 2, 3, 4)
    many = company.open(*range(1, EACH_UP_TO + 2)).counted()
    assert held(many) == {("database", "courier")}
    run = company.context(Run(UPDATES, "more"))
    more = Selection(databases=("courier",), keys=tuple(f"courier/{one}" for one in range(1, 8)))
    widen(run, few.number, more, by="L1")
    few.preserve(run.run)
    assert held(few) == each(1, 2, 3, 4) | {("database", "courier")}


def test_holds_of_two_incidents_on_the_same_people_are_independent(company: Company) -> None:
    """One is released, the other stays; repeated, nothing is held twice."""
    first, second = company.open(1, 2).counted(), company.open(2, 3).counted()
    first.preserve()
    assert (held(first), held(second)) == (each(1, 2), each(2, 3))
    with company.state.begin() as conn:
        for hold in registry.active(conn):
            if hold.value == "courier/2" and hold.case_ref == first.number:
                registry.release(
                    conn, company.clock, hold.id, released_by="C1", reason="The case is over"
                )
    assert (held(first), held(second)) == (each(1), each(2, 3))


def test_a_hold_says_why_whose_it_is_and_when_to_ask_again(company: Company) -> None:
    """Of the day in the pack's timezone."""
    case = company.open(5).counted()
    with company.state.connect() as conn:
        (one,) = [one for one in registry.active(conn) if one.case_ref == case.number]
    assert one.reason == f"Evidence of incident {case.number}"
    assert one.owner == "information_management"
    assert one.review_on == date(2026, 11, 26) + timedelta(days=90)


def test_a_database_that_nobody_could_count_in_is_held_as_a_whole(company: Company) -> None:
    """Unknown is not zero; nor is one that went away before its list was secured."""
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1"])
    record = assess(case.context)
    assert record.outcome is Outcome.FAIL
    assert case.preserve().outcome is Outcome.FAIL
    assert held(case) == {*each(1), ("database", "archive")}
    company.broken = set()
    other = company.open(databases=["archive"], keys=["archive/1"])
    assess(other.context)
    company.broken = {"archive"}
    other.preserve()
    assert held(other) == {("database", "archive")}
    (entry,) = other.entries(Kind.PRESERVED)
    assert (entry.data["not_listed"], entry.data["complete"]) == (["archive"], False)


def test_a_key_that_looks_like_a_persons_number_is_not_kept_in_the_registry(
    company: Company,
) -> None:
    """Its database is held instead."""
    case = company.open(1)
    with company.state.begin() as conn:
        made = preserving.place(
            conn, case.context, case.number, {"courier": 2, "archive": 1},
            [("courier", "1"), ("courier", "11010119900307123X"), ("archive", "7")],
        )  # fmt: skip
    assert made == {"database": 1, "subject": 1}
    assert held(case) == {("database", "courier"), ("subject", "archive/7")}


def test_a_thousand_people_are_held_in_a_moment(company: Company) -> None:
    """Deletions wait meanwhile."""
    case = company.open(1)
    rules = case.context.rules.model_copy(update={"hold": HoldRule(each_up_to=1_000)})
    company.rules = rules
    keys = [("courier", str(one)) for one in range(1, 1_001)]
    before = process_time()
    with company.state.begin() as conn:
        made = preserving.place(conn, case.context, case.number, {"courier": 1_000}, keys)
    assert made == {"database": 0, "subject": 1_000}
    assert process_time() - before < 3  # seconds of this process; most of it waits for the server


def test_the_log_is_extracted_once_a_count_and_named_with_its_digest(company: Company) -> None:
    """A repeated task verifies what is there; an addition makes one of its own."""
    case = company.open(1).counted()
    (first,) = case.entries(Kind.PRESERVED)
    case.preserve()
    assert case.entries(Kind.PRESERVED) == [first]
    made = first.data["extracts"]["courier"]
    assert made["key"] == f"incidents/{case.number}/access.courier.1.csv.zst.enc"
    assert made["rows"] == 3
    run = company.context(Run(UPDATES, f"more {case.number}"))
    chosen = Selection(databases=("courier",), keys=("courier/1", "courier/2"))
    widen(run, case.number, chosen, by="L1")
    case.preserve(run.run)
    other = case.entries(Kind.PRESERVED)[-1].data["extracts"]["courier"]
    assert other["key"].startswith(f"incidents/{case.number}/access.courier.2.")
    case.preserve()  # somebody clears the task of the incident's own run: nothing is written over
    third = case.entries(Kind.PRESERVED)[-1].data["extracts"]["courier"]
    keys = {one["key"] for one in (made, other, third)}
    records = {path.name for path in company.folder.rglob("*.enc")}
    assert {key.rpartition("/")[2] for key in keys} == records
    assert len(records) == 3


def test_a_log_that_cannot_be_extracted_holds_nobody_up(company: Company) -> None:
    """It is tried again; then it is told, holds and list stand, and closing waits for it."""
    case = company.open(1)
    assess(case.context)
    company.folder.rmdir()
    company.folder.write_text("a file where the store was")
    with pytest.raises(ServiceError):
        case.preserve()
    assert held(case) == each(1)
    record = case.preserve(last=True)
    assert [one.code for one in record.findings] == ["incident.not_extracted"]
    (entry,) = case.entries(Kind.PRESERVED)
    assert (entry.data["people"], entry.data["complete"]) == (1, False)
    company.folder.unlink()
    company.folder.mkdir()
    assert case.preserve().outcome is Outcome.PASS
    assert case.entries(Kind.PRESERVED)[-1].data["complete"]


def test_a_database_without_a_log_is_told_and_is_no_failure(company: Company) -> None:
    """What there is was secured."""
    case = company.open(databases=["archive"], keys=["archive/1"])
    assess(case.context)
    record = case.preserve()
    assert (record.outcome, [one.code for one in record.findings]) == (
        Outcome.ATTENTION, ["incident.no_access_log"],
    )  # fmt: skip
    assert case.entries(Kind.PRESERVED)[0].data["complete"]


def test_nothing_that_is_kept_has_a_customers_value(company: Company) -> None:
    """Keys only: neither timeline nor counts nor the step's records have a name or an address."""
    case = company.open(1, 2).until("notify")
    with company.state.connect() as conn:
        rows = [str(one) for one in conn.exec_driver_sql("SELECT i::text FROM incident i")]
        for table in ("incident_entry", "incident_scope", "incident_subject", "notice", "run_step"):
            rows += [str(one) for one in conn.exec_driver_sql(f"SELECT t::text FROM {table} t")]
    assert rows
    text = json.dumps(rows)
    assert "customer.example" not in text
    assert "Name 1" not in text
    assert case.entries(Kind.QUEUED)
    assert company.clock.now() > NIGHT


def opened_rows(company: Company, case: Case, name: str) -> list[list[str]]:
    """The rows of an extract, opened with the recipient's key."""
    with company.state.connect() as conn:
        found = artifacts_of(conn, case.run.dag_id, case.run.run_id)[name]
    pieces = opened(DirectoryStore(company.folder), Extract.model_validate_json(found), key())
    return sorted(list(csv.reader(io.StringIO(b"".join(pieces).decode())))[1:])


def log_rows(company: Company, statement: str) -> list[list[str]]:
    """What the test's own query finds."""
    with company.address.connect() as connection:
        rows = connection.execute(statement.encode()).fetchall()
    return sorted([str(one) for one in row] for row in rows)


def test_all_that_was_counted_by_accounts_is_extracted_however_old(company: Company) -> None:
    """Without a time the count takes all of the log; with one both take the same."""
    mine = "SELECT opened_id, number, customer_id FROM opened WHERE number = 'OLD'"
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
            assert [row[:3] for row in rows] == log_rows(company, mine + window)
            scope = incident_run.require_scope(case.context, case.record.incident.id)
            assert len(rows) == scope.counted[0].log_rows
    finally:
        company.run("DELETE FROM opened WHERE number = 'OLD'")


def test_what_a_partner_was_given_is_extracted_beside_the_log_of_accesses(company: Company) -> None:
    """All of its rows, of any age, and of no other partner."""
    case = company.open(keys=[], partner="7")
    assess(case.context)
    assert case.preserve().outcome is Outcome.PASS
    rows = opened_rows(company, case, "extract.courier.shares.1.json")
    own = "SELECT given_id, partner, customer_id FROM given WHERE partner = 7"
    assert [row[:3] for row in rows] == log_rows(company, own)
    assert len(rows) == 2
    (entry,) = case.entries(Kind.PRESERVED)
    made = entry.data["extracts"]["courier.shares"]
    assert (made["database"], made["log"], made["rows"]) == ("courier", "shares", 2)
    assert made["key"] == f"incidents/{case.number}/shares.courier.1.csv.zst.enc"
    said = [english(one) for one in kept.lines(case.context, case.record)]
    assert (
        f"Extract of the log of sharing of courier: 2 rows, SHA-256 {made['sha256_clear']}" in said
    )


def test_fewer_rows_than_were_counted_are_no_complete_evidence(company: Company) -> None:
    """Somebody deleted from the log meanwhile: both numbers are told, and it is not closed."""
    company.run("INSERT INTO opened VALUES (90, 'B2', 9, '2026-11-24 13:00Z')")
    case = company.open(keys=[], accounts=["B2"])
    assess(case.context)
    company.run("DELETE FROM opened WHERE opened_id = 90")
    record = case.preserve()
    found = [one for one in record.findings if one.code == "incident.extract_incomplete"]
    assert english(found[0].message) == (
        "courier: 4 log rows say who is affected, 3 of them were extracted."
    )
    assert record.outcome is Outcome.FAIL
    assert not case.entries(Kind.PRESERVED)[-1].data["complete"]
