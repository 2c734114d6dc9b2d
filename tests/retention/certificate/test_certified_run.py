"""Tests of runs on the sample database Chinook, and of the resulting certificates of deletion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from include.erasure import requests
from include.erasure.ledger import ErasureKeys
from include.evidence.model import Outcome, StepRecord
from include.holds import registry
from include.holds.records import StoredRestorePoint
from include.holds.registry import HoldKind
from include.policy.model import PolicyPack
from include.policy.retention import Limit
from include.registry import load_pack
from include.reports.conclusion import Conclusion
from include.retention.certificate import report
from include.retention.database import RetentionDatabase
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.state.migrate import migrate
from include.workflow.run_records import RunRecords
from tests.retention import step_records as steps
from tests.retention.certificate.certificate_records import indicators, sentences
from tests.retention.chinook_pack import AS_OF, DATABASE, chinook_pack
from tests.retention.database_fixtures import changed, retention_database
from tests.support.registers import content_of

CLOCK = SystemClock()


@pytest.fixture
def pack(tmp_path: Path) -> PolicyPack:
    return load_pack(chinook_pack(tmp_path))


@pytest.fixture
def shop(database: str, pack: PolicyPack) -> Iterator[RetentionDatabase]:
    """The database Chinook in a run, with a state database in a separate schema."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(DATABASE.read_bytes())
        admin.execute("CREATE SCHEMA our_state")
    state = engine(f"{database} options='-c search_path=our_state'")
    migrate(state)
    yield retention_database(
        pack.database("chinook"),
        pack.retention_of("chinook"),
        pack.disposition.model_copy(update={"limit": Limit(records=20)}),
        reader=DatabaseAddress.from_conninfo(database),
        state=state,
        keys=ErasureKeys({"k1": b"k" * 32}, "k1"),
        clock=CLOCK,
        run_id="manual__1",
    )
    state.dispose()


def run_all_steps(
    shop: RetentionDatabase, option: str = "Approve", copies: list[StoredRestorePoint] | None = None
) -> list[StepRecord]:
    """Run plan, approval if needed, execution and verification, and return their step records."""
    plan_record = steps.plan(shop, AS_OF.isoformat())
    records = [plan_record]
    if plan_record.data["request"]:
        at, content = CLOCK.now(), content_of(shop.run.state, plan_record)
        answer = steps.take(
            shop, plan_record, option=option, reason="too many", user="bo", at=at, content=content
        )
        records.append(answer)
    records.append(steps.execute(shop, plan_record))
    records.append(steps.verify(shop, plan_record, records[-1], copies))
    # in the form in which the seal task reads them
    return [StepRecord.model_validate(json.loads(record.model_dump_json())) for record in records]


def certificate(shop: RetentionDatabase, records: list[StepRecord]) -> Conclusion:
    with shop.run.state.connect() as conn:
        trend = report.read_past_runs(conn, "chinook")
    return report.certificate(
        RunRecords(records),
        databases=[shop.mapped],
        rules={"chinook": shop.rules},
        requested=["chinook"],
        approvals=[],
        trends={"chinook": trend},
    )


def hold(state: Engine, value: str) -> None:
    with state.begin() as conn:
        registry.add(
            conn,
            CLOCK,
            kind=HoldKind.SUBJECT,
            value=value,
            reason="claim pending",
            owner="legal",
            case_ref="C-1",
            review_on=CLOCK.now().date() + timedelta(days=90),
        )


def ask(state: Engine, subject: str, received: date) -> None:
    with state.begin() as conn:
        requests.add(
            conn,
            CLOCK,
            database="chinook",
            subject=subject,
            reference=f"R-{subject}",
            received_on=received,
            entered_by="privacy",
        )


def test_certificate_contains_correct_numbers_of_erased_and_remaining_records(
    shop: RetentionDatabase, database: str
) -> None:
    """The counts of the certificate are compared with counts in the database itself."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT min(customer_id), (SELECT max(customer_id) FROM invoice WHERE "
            "invoice_date >= '2021-04-01'), count(*) FROM invoice "
            "WHERE invoice_date < '2021-04-01'"
        ).fetchone()
        assert row is not None
        first, last, old = row
        mails = [row[0] for row in connection.execute("SELECT email FROM customer")]
    hold(shop.run.state, f"chinook/{first}")
    ask(shop.run.state, str(last), CLOCK.now().date())
    copy = StoredRestorePoint(
        "20211001", CLOCK.now() - timedelta(days=1), CLOCK.now() + timedelta(days=30)
    )
    later = replace(copy, id="later", taken_at=CLOCK.now() + timedelta(hours=1))
    records = run_all_steps(shop, copies=[copy, later])
    conclusion = certificate(shop, records)
    lines = sentences(conclusion)
    with psycopg.connect(database) as connection:
        left = connection.execute(
            "SELECT count(*) FROM invoice WHERE invoice_date < '2021-04-01'"
        ).fetchone()
    assert left is not None
    assert 0 < left[0] < old
    (row_of,) = [line for line in lines if line.startswith("Invoices | ") and line.count("|") == 6]
    assert row_of == f"Invoices | {old - left[0]} | {old - left[0]} | 0 | 0 | 0 | 0"
    assert any(line.startswith("1 | data subject | claim pending | legal | ") for line in lines)
    assert any(line.startswith(f"1 | R-{last} | ") for line in lines)
    assert any(line.startswith("20211001 | ") for line in lines)
    assert not any(line.startswith("later | ") for line in lines)
    assert "Approved by | bo" in lines
    assert (
        "Identification of records in the erasure ledger | HMAC-SHA-256 of the primary key, key k1"
        in lines
    )
    assert indicators(conclusion) == {
        "expired_records_unexplained": 0,
        "erasure_requests_overdue": 0,
    }
    assert conclusion.outcome is Outcome.ATTENTION  # the request's records are kept for now
    said = json.dumps([record.model_dump(mode="json") for record in records])
    assert not [mail for mail in mails if mail in said]
    assert f"chinook/{first}" not in said


def test_run_with_rejected_disposition_plan_fails_and_reports_remaining_expired_records(
    shop: RetentionDatabase,
) -> None:
    conclusion = certificate(shop, run_all_steps(shop, option="Reject"))
    assert conclusion.outcome is Outcome.FAIL
    assert {"retention.rejected", "retention.not_approved", "retention.backups_unread"} <= {
        finding.code for finding in conclusion.findings
    }
    assert any(
        "the disposition plan was not approved" in sentence for sentence in sentences(conclusion)
    )
    assert (indicators(conclusion)["expired_records_unexplained"] or 0) > 0


def test_erasure_request_stays_open_and_overdue_if_no_record_class_is_erased_on_request(
    shop: RetentionDatabase,
) -> None:
    """No record is searched if no record class is erased on request, so no erasure is proven."""
    without = changed(
        shop, retention=[rule.model_copy(update={"on_request": False}) for rule in shop.rules]
    )
    ask(shop.run.state, "1", CLOCK.now().date() - timedelta(days=40))
    conclusion = certificate(without, run_all_steps(without))
    assert indicators(conclusion)["erasure_requests_overdue"] == 1
    assert "retention.request_overdue" in {finding.code for finding in conclusion.findings}
    with shop.run.state.connect() as conn:
        assert len(requests.open_requests(conn, "chinook")) == 1


def test_retry_of_verification_reports_same_closed_erasure_request_as_first_attempt(
    shop: RetentionDatabase, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO customer (customer_id, first_name, last_name, email) "
            "VALUES (9001, 'a', 'b', 'c')"
        )
    ask(shop.run.state, "9001", CLOCK.now().date())
    records = run_all_steps(shop, copies=[])
    again = steps.verify(shop, records[0], records[2], [])
    for record in (records[-1], again):
        assert (record.data["requests_closed"], record.data["requests_open"]) == (1, 0)
        assert record.data["requests"][0]["state"] == "closed"


def test_all_steps_of_run_succeed_for_database_without_record_classes(
    shop: RetentionDatabase,
) -> None:
    """The certificate says that no record of this database ever expires."""
    bare = changed(shop, retention=[])
    copy = StoredRestorePoint(
        "20211001", CLOCK.now() - timedelta(days=1), CLOCK.now() + timedelta(days=30)
    )
    records = run_all_steps(bare, copies=[copy])
    assert records[-1].data["copies"] == []  # no backup has erased records
    conclusion = certificate(bare, records)
    assert conclusion.outcome is Outcome.ATTENTION
    assert [finding.code for finding in conclusion.findings] == ["retention.no_class"]
    with shop.run.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM erasure_batch")) == 0
