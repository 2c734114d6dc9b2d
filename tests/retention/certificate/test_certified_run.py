"""A whole run on a database nobody here designed: what its certificate says is what happened."""

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
from tests.retention.certificate.certified import indicators, sentences
from tests.retention.chinook import AS_OF, DATABASE, chinook_pack
from tests.retention.database_fixtures import changed, retention_database
from tests.support.registers import content_of

CLOCK = SystemClock()


@pytest.fixture
def pack(tmp_path: Path) -> PolicyPack:
    return load_pack(chinook_pack(tmp_path))


@pytest.fixture
def shop(database: str, pack: PolicyPack) -> Iterator[RetentionDatabase]:
    """The shop, and a state database beside it in a schema of its own."""
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


def a_run(
    shop: RetentionDatabase, option: str = "Approve", copies: list[StoredRestorePoint] | None = None
) -> list[StepRecord]:
    """Plan, answer where there is a question, execute, count."""
    made = steps.plan(shop, AS_OF.isoformat())
    records = [made]
    if made.data["request"]:
        at, content = CLOCK.now(), content_of(shop.run.state, made)
        answer = steps.take(
            shop, made, option=option, reason="too many", user="bo", at=at, content=content
        )
        records.append(answer)
    records.append(steps.execute(shop, made))
    records.append(steps.verify(shop, made, records[-1], copies))
    # as the seal reads them
    return [StepRecord.model_validate(json.loads(one.model_dump_json())) for one in records]


def certificate(shop: RetentionDatabase, records: list[StepRecord]) -> Conclusion:
    with shop.run.state.connect() as conn:
        trend = report.past(conn, "chinook")
    return report.certificate(
        RunRecords(records),
        databases=[shop.mapped],
        rules={"chinook": shop.rules},
        asked=["chinook"],
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


def test_the_certificate_tells_what_was_erased_and_what_stays(
    shop: RetentionDatabase, database: str
) -> None:
    """Counts of the database itself, the hold by number, the request by file, the backup by id."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT min(customer_id), (SELECT max(customer_id) FROM invoice WHERE "
            "invoice_date >= '2021-04-01'), count(*) FROM invoice "
            "WHERE invoice_date < '2021-04-01'"
        ).fetchone()
        assert row is not None
        first, last, old = row
        mails = [one[0] for one in connection.execute("SELECT email FROM customer")]
    hold(shop.run.state, f"chinook/{first}")
    ask(shop.run.state, str(last), CLOCK.now().date())
    copy = StoredRestorePoint(
        "20211001", CLOCK.now() - timedelta(days=1), CLOCK.now() + timedelta(days=30)
    )
    later = replace(copy, id="later", taken_at=CLOCK.now() + timedelta(hours=1))
    records = a_run(shop, copies=[copy, later])
    found = certificate(shop, records)
    lines = sentences(found)
    with psycopg.connect(database) as connection:
        left = connection.execute(
            "SELECT count(*) FROM invoice WHERE invoice_date < '2021-04-01'"
        ).fetchone()
    assert left is not None
    assert 0 < left[0] < old
    (row_of,) = [one for one in lines if one.startswith("Invoices | ") and one.count("|") == 6]
    assert row_of == f"Invoices | {old - left[0]} | {old - left[0]} | 0 | 0 | 0 | 0"
    assert any(one.startswith("1 | a person | claim pending | legal | ") for one in lines)
    assert any(one.startswith(f"1 | R-{last} | ") for one in lines)
    assert any(one.startswith("20211001 | ") for one in lines)
    assert not any(one.startswith("later | ") for one in lines)
    assert "Approved by | bo" in lines
    assert "Named in the ledger by | HMAC-SHA-256 of the primary key, key k1" in lines
    assert indicators(found) == {"expired_records_unexplained": 0, "erasure_requests_overdue": 0}
    assert found.outcome is Outcome.ATTENTION  # the request's records are kept for now
    said = json.dumps([one.model_dump(mode="json") for one in records])
    assert not [one for one in mails if one in said]
    assert f"chinook/{first}" not in said


def test_nobody_approving_leaves_what_is_over_and_fails(shop: RetentionDatabase) -> None:
    """Rejected: the records are there, and nothing else explains them."""
    found = certificate(shop, a_run(shop, option="Reject"))
    assert found.outcome is Outcome.FAIL
    assert {"retention.rejected", "retention.not_approved", "retention.backups_unread"} <= {
        one.code for one in found.findings
    }
    assert any("nobody approved" in one for one in sentences(found))
    assert (indicators(found)["expired_records_unexplained"] or 0) > 0


def test_a_request_that_no_class_answers_stays_open_and_becomes_overdue(
    shop: RetentionDatabase,
) -> None:
    """Nothing was looked for, so nothing is shown to be gone."""
    without = changed(
        shop, retention=[rule.model_copy(update={"on_request": False}) for rule in shop.rules]
    )
    ask(shop.run.state, "1", CLOCK.now().date() - timedelta(days=40))
    found = certificate(without, a_run(without))
    assert indicators(found)["erasure_requests_overdue"] == 1
    assert "retention.request_overdue" in {one.code for one in found.findings}
    with shop.run.state.connect() as conn:
        assert len(requests.open_requests(conn, "chinook")) == 1


def test_a_count_that_is_repeated_still_tells_of_the_request_it_closed(
    shop: RetentionDatabase, database: str
) -> None:
    """The task was killed after its commit; the certificate says the same."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO customer (customer_id, first_name, last_name, email) "
            "VALUES (9001, 'a', 'b', 'c')"
        )
    ask(shop.run.state, "9001", CLOCK.now().date())
    records = a_run(shop, copies=[])
    again = steps.verify(shop, records[0], records[2], [])
    for one in (records[-1], again):
        assert (one.data["requests_closed"], one.data["requests_open"]) == (1, 0)
        assert one.data["requests"][0]["state"] == "closed"


def test_a_database_without_record_classes_goes_through_all_steps(shop: RetentionDatabase) -> None:
    """Nothing is planned, executed or left; the certificate says that nothing expires there."""
    bare = changed(shop, retention=[])
    copy = StoredRestorePoint(
        "20211001", CLOCK.now() - timedelta(days=1), CLOCK.now() + timedelta(days=30)
    )
    records = a_run(bare, copies=[copy])
    assert records[-1].data["copies"] == []  # a backup holds nothing of it that was erased
    found = certificate(bare, records)
    assert found.outcome is Outcome.ATTENTION
    assert [one.code for one in found.findings] == ["retention.no_class"]
    with shop.run.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM erasure_batch")) == 0
