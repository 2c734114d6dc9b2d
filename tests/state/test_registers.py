"""Registers change as the code changes them; plain SQL that would do more is refused loudly."""

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
from tests.support.databases import fresh
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
    with fresh(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture
def state(shared: Engine) -> Engine:
    """Two holds, one of them released; two findings, one of them closed; a ledger of four."""
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
            what=Message(text="Nobody approved it"),
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
        return [sorted(map(str, conn.execute(one.select()))) for one in tables]


def refused(state: Engine, statement: str, table: str, what_to_do: str) -> None:
    """A statement fails, says of which table and what to do instead, and changes nothing."""
    before = content(state)
    with pytest.raises(IntegrityError) as caught, state.begin() as conn:
        conn.execute(text(statement))
    said = str(caught.value.orig)
    assert f"{table} is a register that stays" in said, statement
    assert what_to_do in said, statement
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
    "what": """'{"text": "Nothing"}'""",
}


def test_a_hold_is_only_ever_released(state: Engine) -> None:
    """Neither deleted nor moved to another thing, alone or while it is released; only once."""
    assert {one.name for one in legal_hold.c} == {
        "id", *OTHERS_OF_A_HOLD, "released_at", "released_by", "release_reason"
    }  # fmt: skip
    changes = [f"{name} = {ANOTHER.get(name, repr('x'))}" for name in OTHERS_OF_A_HOLD]
    for statement in (
        *HOLDS,
        *(f"UPDATE legal_hold SET {one} WHERE id = 1" for one in changes),
        *(f"UPDATE legal_hold SET {one}, {RELEASE} WHERE id = 1" for one in changes),
    ):
        refused(state, statement, "legal_hold", "./parcelseal hold release")
    with state.begin() as conn:
        released(conn, 1)
        assert registry.active(conn) == []
        assert len(registry.every(conn)) == 2


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


def test_a_finding_is_only_ever_closed_by_a_test(state: Engine) -> None:
    """Its day, its owner and what was found stay, also in what closes it; so do its events."""
    columns = {one.name for one in finding.c} - {"id", "closed_at"}
    changes = [f"{name} = {ANOTHER.get(name, repr('x'))}" for name in sorted(columns)]
    alone = [("finding", f"UPDATE finding SET {one} WHERE id = 1") for one in changes]
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
    for one in changes:
        statement = f"UPDATE finding SET {one}, closed_at = now() WHERE id = 1"
        refused(state, statement, "finding", "findings answer")
    with state.begin() as conn:
        conn.execute(finding.update().where(finding.c.id == 1).values(closed_at=NOW))
        assert register.listed(conn) == []


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


def test_a_row_of_the_ledger_of_evidence_stays(state: Engine) -> None:
    """Also up to the newest checkpoint: the row of a pruned bundle is its tombstone."""
    for statement in LEDGER:
        refused(state, statement, "evidence_ledger", "pruned evidence keeps it")
    with state.begin() as conn:
        conn.execute(evidence_checkpoint.insert().values([checkpoint(1), checkpoint(2)]))
    for statement in (*LEDGER, "DELETE FROM evidence_ledger WHERE seq <= 2"):
        refused(state, statement, "evidence_ledger", "pruned evidence keeps it")
    with state.begin() as conn:
        conn.execute(evidence_ledger.insert().values(row(5)))
        left = conn.execute(evidence_ledger.select().order_by(evidence_ledger.c.seq)).all()
    assert [one.seq for one in left] == [1, 2, 3, 4, 5]


def test_a_table_that_a_session_puts_before_the_real_one_excuses_nothing(state: Engine) -> None:
    """Temporary tables are found first: a test that was met in one of them closes nothing."""
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


def test_registers_without_a_row_may_be_emptied(migrated_database: str) -> None:
    """As new homes and tests do; nothing is lost by it."""
    with engine(migrated_database).begin() as conn:
        conn.exec_driver_sql(f"TRUNCATE {', '.join((*REGISTERS, *ERASURES))} RESTART IDENTITY")


def test_the_owner_can_take_the_triggers_away_by_a_statement_of_its_own(state: Engine) -> None:
    """So it says in docs/evidence.md: this is no wall against whoever owns the tables."""
    with state.begin() as conn, unguarded(conn, "evidence_ledger"):
        conn.exec_driver_sql("UPDATE evidence_ledger SET outcome = 'pass' WHERE seq = 2")
    refused(state, LEDGER[0], "evidence_ledger", "pruned evidence keeps it")
