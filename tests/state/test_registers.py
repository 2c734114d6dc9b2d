"""Triggers refuse changes of registers that the code of ParcelSeal never makes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from include.findings import register
from include.holds import registry
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.messages import Message
from include.services.clock import FixedClock
from include.state.connect import engine
from include.state.findings import finding, finding_event
from include.state.tables import (
    erasure,
    erasure_batch,
    erasure_request,
    evidence_checkpoint,
    evidence_ledger,
    legal_hold,
    register_loss,
)
from tests.support.databases import temporary_database
from tests.support.registers import emptying, unguarded

NOW = datetime(2026, 11, 27, 7, tzinfo=UTC)
CLOCK = FixedClock(NOW)
REGISTERS = ("legal_hold", "finding", "finding_event", "evidence_ledger")
ERASURES = (
    "erasure",
    "erasure_batch",
    "erasure_request",
    "erasure_request_record",
    "register_loss",
)


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine) -> Engine:
    """Return a state database with filled registers.

    It contains an active and a released hold, an open and a closed finding, and four ledger rows.
    """
    with shared.begin() as conn:
        conn.exec_driver_sql(emptying([*REGISTERS, *ERASURES, "evidence_checkpoint"]))
        fill(conn)
    return shared


def fill(conn: Connection) -> None:
    for number in (1, 2):
        registry.add(
            conn,
            CLOCK,
            kind=HoldKind.WAYBILL,
            value=f"SF{number}",
            reason="claim pending",
            owner="legal",
            case_ref="C-1",
            review_on=date(2027, 6, 1),
        )
        register.open_finding(
            conn,
            kind="audit",
            reference=f"2026Q3/accesses/{number}/approved",
            description=Message(text="Nobody approved it"),
            owner="management",
            opened_at=NOW,
            due_on=date(2026, 12, 20),
        )
        answered(conn, number)
    released(conn, 2)
    register.retest(conn, 2, met=True, by="tester", at=NOW)
    conn.execute(evidence_ledger.insert().values([row(seq) for seq in (1, 2, 3, 4)]))


def row(seq: int) -> dict[str, Any]:
    words = ("bundle", "dag_id", "run_id", "sums_sha256", "previous_sums_sha256", "key_fingerprint")
    return {name: f"{name} {seq}" for name in words} | {
        "seq": seq,
        "outcome": "fail",
        "controls": ["BK-1"],
        "started_at": NOW,
        "sealed_at": NOW,
        "row_signature": b"s",
    }


def checkpoint(seq: int) -> dict[str, Any]:
    words = dict.fromkeys(("bundle", "sums_sha256", "key_fingerprint"), "x")
    return words | {"up_to_seq": seq, "signed_at": NOW, "signature": b"s"}


def answered(conn: Connection, number: int) -> None:
    register.answer(conn, number, cause="No form", action="A form", by="owner", at=NOW)


def released(conn: Connection, number: int) -> None:
    registry.release(conn, CLOCK, number, released_by="counsel", reason="settled")


def content(state: Engine) -> list[object]:
    tables = (
        *(legal_hold, finding, finding_event, evidence_ledger, evidence_checkpoint),
        *(erasure, erasure_batch, erasure_request, register_loss),
    )
    with state.connect() as conn:
        return [sorted(map(str, conn.execute(table.select()))) for table in tables]


def refused(state: Engine, statement: str, table: str, what_to_do: str) -> None:
    """Assert that a statement fails and changes nothing, and that the error states an alternative.

    Args:
        state: engine of the state database.
        statement: the SQL statement.
        table: name of the register, which the error has to contain.
        what_to_do: the alternative, which the error has to contain.
    """
    before = content(state)
    with pytest.raises(IntegrityError) as caught, state.begin() as conn:
        conn.execute(text(statement))
    message = str(caught.value.orig)
    assert f"{table} is a register that stays" in message, statement
    assert what_to_do in message, statement
    assert content(state) == before


RELEASE = "released_at = now(), released_by = 'x', release_reason = 'x'"
HOLDS = (
    "DELETE FROM legal_hold WHERE id = 1",
    "DELETE FROM legal_hold WHERE id = 2",
    "TRUNCATE legal_hold",
    "UPDATE legal_hold SET value = value WHERE id = 1",
    f"UPDATE legal_hold SET {RELEASE} WHERE id = 2",  # it has been, by somebody else
    "UPDATE legal_hold SET released_at = NULL, released_by = NULL, release_reason = NULL"
    " WHERE id = 2",
    "INSERT INTO legal_hold OVERRIDING SYSTEM VALUE SELECT * FROM legal_hold WHERE id = 1"
    " ON CONFLICT (id) DO UPDATE SET value = 'SF9'",
)
OTHERS_OF_A_HOLD = ("kind", "value", "reason", "owner", "case_ref", "placed_at", "review_on")
ANOTHER = {
    "kind": "'case'",
    "placed_at": "placed_at - interval '1 us'",
    "review_on": "review_on + 1",
    "opened_at": "opened_at - interval '1 us'",
    "due_on": "due_on + 1",
    "description": """'{"text": "Nothing"}'""",
    "details": "'{}'",
    "severity": "'fail'",
    "opened_seq": "1",
}


def test_legal_hold_can_be_released_but_not_changed(state: Engine) -> None:
    assert {column.name for column in legal_hold.c} == {
        "id", *OTHERS_OF_A_HOLD, "released_at", "released_by", "release_reason"
    }  # fmt: skip
    changes = [f"{name} = {ANOTHER.get(name, repr('x'))}" for name in OTHERS_OF_A_HOLD]
    for statement in (
        *HOLDS,
        *(f"UPDATE legal_hold SET {change} WHERE id = 1" for change in changes),
        *(f"UPDATE legal_hold SET {change}, {RELEASE} WHERE id = 1" for change in changes),
    ):
        refused(state, statement, "legal_hold", "./parcelseal hold release")
    with state.begin() as conn:
        released(conn, 1)
        assert registry.active_holds(conn) == []
        assert len(registry.all_holds(conn)) == 2


FINDINGS = (
    ("finding", "DELETE FROM finding"),
    ("finding", "TRUNCATE finding CASCADE"),
    ("finding", "UPDATE finding SET closed_at = now() WHERE id = 1"),  # nobody tested it
    ("finding", "UPDATE finding SET closed_at = NULL WHERE id = 2"),
    ("finding", "UPDATE finding SET closed_at = now() - interval '1 year' WHERE id = 2"),
    ("finding_event", "DELETE FROM finding_event"),
    ("finding_event", "TRUNCATE finding_event"),
    ("finding_event", "UPDATE finding_event SET by = 'x'"),
    ("finding_event", "UPDATE finding_event SET kind = 'met' WHERE finding_id = 1"),
    ("finding_event", "UPDATE finding_event SET due_on = '2027-12-31'"),
)


def test_finding_can_be_closed_by_a_retest_but_not_changed(state: Engine) -> None:
    columns = {column.name for column in finding.c} - {"id", "closed_at"}
    changes = [f"{name} = {ANOTHER.get(name, repr('x'))}" for name in sorted(columns)]
    alone = [("finding", f"UPDATE finding SET {change} WHERE id = 1") for change in changes]
    for table, statement in (*FINDINGS, *alone):
        refused(state, statement, table, "./parcelseal findings answer, then retest")
    with state.begin() as conn:
        register.retest(conn, 1, met=False, by="tester", at=NOW)
        register.record_reminder(conn, 1, by="conclude_audit", at=NOW)
    refused(
        state, "UPDATE finding SET closed_at = now() WHERE id = 1", "finding", "findings answer"
    )
    with state.begin() as conn:
        answered(conn, 1)
        values = {"finding_id": 1, "kind": "met", "by": "tester", "at": NOW}
        conn.execute(finding_event.insert().values(values))
    for change in changes:
        statement = f"UPDATE finding SET {change}, closed_at = now() WHERE id = 1"
        refused(state, statement, "finding", "findings answer")
    with state.begin() as conn:
        conn.execute(finding.update().where(finding.c.id == 1).values(closed_at=NOW))
        assert register.list_findings(conn) == []


LEDGER = (
    *(
        f"UPDATE evidence_ledger SET {change} WHERE seq = 2"
        for change in (
            "dag_id = 'x'",
            "outcome = 'pass'",
            "seq = 9",
            "row_signature = ''",
            "dag_id = dag_id",
        )
    ),
    "UPDATE evidence_ledger SET controls = '{}'",
    "DELETE FROM evidence_ledger WHERE seq = 4",
    "DELETE FROM evidence_ledger WHERE seq = 1",
    "DELETE FROM evidence_ledger",
    "TRUNCATE evidence_ledger",
)


def test_rows_of_evidence_ledger_cannot_be_changed_or_deleted(state: Engine) -> None:
    """The row of a pruned bundle is protected like the other rows."""
    for statement in LEDGER:
        refused(state, statement, "evidence_ledger", "pruned evidence keeps it")
    with state.begin() as conn:
        conn.execute(evidence_checkpoint.insert().values([checkpoint(1), checkpoint(2)]))
    for statement in (*LEDGER, "DELETE FROM evidence_ledger WHERE seq <= 2"):
        refused(state, statement, "evidence_ledger", "pruned evidence keeps it")
    with state.begin() as conn:
        conn.execute(evidence_ledger.insert().values(row(5)))
        remaining = conn.execute(evidence_ledger.select().order_by(evidence_ledger.c.seq)).all()
    assert [entry.seq for entry in remaining] == [1, 2, 3, 4, 5]


def test_temporary_table_with_the_name_of_a_register_cannot_bypass_protecting_triggers(
    state: Engine,
) -> None:
    """By default, PostgreSQL searches for a table name among the temporary tables first."""
    for temporary, change in (
        (
            "CREATE TEMPORARY TABLE finding_event AS SELECT 1 AS finding_id, 'met' AS kind",
            "UPDATE finding SET closed_at = now()",
        ),
    ):
        with state.connect() as conn:
            conn.exec_driver_sql(temporary)
            with pytest.raises(IntegrityError, match="is a register that stays"):
                conn.exec_driver_sql(change)


def test_truncate_is_allowed_for_empty_registers(migrated_database: str) -> None:
    with engine(migrated_database).begin() as conn:
        conn.exec_driver_sql(f"TRUNCATE {', '.join((*REGISTERS, *ERASURES))} RESTART IDENTITY")


def test_owner_of_the_state_database_can_disable_the_protecting_triggers(state: Engine) -> None:
    """docs/explanation/evidence.md describes this limit of the protection."""
    with state.begin() as conn, unguarded(conn, "evidence_ledger"):
        conn.exec_driver_sql("UPDATE evidence_ledger SET outcome = 'pass' WHERE seq = 2")
    refused(state, LEDGER[0], "evidence_ledger", "pruned evidence keeps it")
