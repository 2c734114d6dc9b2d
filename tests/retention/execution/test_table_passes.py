"""Tests of the passes of an execution over a table while other sessions write to the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import psycopg
import pytest

from include.erasure.ledger import ErasureKeys
from include.holds import registry
from include.holds.registry import HoldKind
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.retention import Disposition, RetentionRule
from include.retention.database import RetentionDatabase
from include.retention.execution import batches, executor
from include.retention.execution.counts import ExecutionCounts
from include.retention.planning.plan import Plan
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.session import prepare_session
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from tests.retention.database_fixtures import retention_database

TABLE = """
CREATE TABLE parcel (id bigint PRIMARY KEY, customer_id bigint, made timestamptz, note text);
ALTER TABLE parcel ALTER note SET STORAGE PLAIN;  -- a long one needs a page of its own
INSERT INTO parcel
SELECT n, n % 10, now() - interval '9 years', repeat('x', 100) FROM generate_series(1, 2000) AS n
"""
RULE = {
    "class": "parcel_record",
    "collection": "parcel",
    "clock": "made",
    "period": "P3Y",
    "action": "delete",
    "basis": "business",
    "keys": {"subject": "t.customer_id"},
}


@dataclass
class SmallTable:
    """A table with 2,000 records, a state database, and helpers to plan and execute."""

    conninfo: str
    rules: list[dict[str, Any]]

    @cached_property
    def database(self) -> RetentionDatabase:
        key = {"id": MappedField(name="id", primary_key=True)}
        parcel = MappedCollection(name="parcel", schema_name="public", table="parcel", fields=key)
        return retention_database(
            MappedDatabase(
                name="depot",
                title=verbatim("depot"),
                connection="depot_db",
                schema_name="public",
                rto=timedelta(),
                rpo=timedelta(),
                collections={"parcel": parcel},
            ),
            [RetentionRule.model_validate(rule) for rule in self.rules],
            Disposition.model_validate({"batch": {"rows": 100}}),
            reader=DatabaseAddress.from_conninfo(self.conninfo),
            state=engine(self.conninfo),
            keys=ErasureKeys({"1": b"k" * 32}, "1"),
            clock=SystemClock(),
            run_id="r1",
        )

    def plan(self) -> Plan:
        database = self.database
        with database.reader.connect(autocommit=True) as connection:
            prepare_session(connection, database.mapped)
            return make_plan(connection, schedule_of(database, database.run.clock.now()))

    def execute(self, plan: Plan, progress: Callable[[str], None]) -> ExecutionCounts:
        allowed = [planned.name for planned in plan.classes]
        schedule = schedule_of(self.database, plan.as_of)
        return executor.execute(self.database, plan, schedule, allowed, progress)

    def hold(self, kind: HoldKind, value: str) -> int:
        with self.database.run.state.begin() as conn:
            placed = registry.add(
                conn, SystemClock(), kind=kind, value=value, reason="a case", owner="legal",
                case_ref="1", review_on=date.max,
            )  # fmt: skip
        return placed.id


@pytest.fixture
def room(migrated_database: str) -> SmallTable:
    with psycopg.connect(migrated_database) as connection:
        connection.execute(TABLE)
    return SmallTable(migrated_database, [RULE])


def act_after_batch(batch: int, work: Callable[[], object]) -> Callable[[str], None]:
    """Return a progress callback that calls `work` after batch number `batch`."""
    committed = 0

    def progress(reached: str) -> None:
        nonlocal committed
        committed += reached == "committed"
        if reached == "committed" and committed == batch:
            work()

    return progress


def test_record_locked_by_other_session_is_deleted_later_in_the_same_execution(room: SmallTable):
    plan = room.plan()
    with psycopg.connect(room.conninfo) as other:
        other.execute("SELECT FROM parcel WHERE id = 5 FOR UPDATE")
        counts = room.execute(plan, act_after_batch(15, other.rollback))
        assert counts.done == {"parcel_record": 2000}
        assert other.execute("SELECT count(*) FROM parcel").fetchone() == (0,)


def test_record_that_update_moves_to_new_page_during_execution_is_deleted(room: SmallTable):
    plan = room.plan()

    def write() -> None:
        with psycopg.connect(room.conninfo) as other:
            other.execute("UPDATE parcel SET note = repeat('y', 7000) WHERE id > 1990")

    assert room.execute(plan, act_after_batch(1, write)).done == {"parcel_record": 2000}


def test_batches_with_slow_search_statements_delete_all_expired_records(
    room: SmallTable, monkeypatch: pytest.MonkeyPatch
):
    with psycopg.connect(room.conninfo) as connection:
        connection.execute("UPDATE parcel SET made = now() WHERE id BETWEEN 100 AND 1900")
    monkeypatch.setattr(batches, "MAX_SEARCH_SECONDS", 1e-6)
    assert room.execute(room.plan(), lambda _stage: None).done == {"parcel_record": 199}


def test_record_that_database_refuses_to_delete_is_counted_once_in_all_passes(room: SmallTable):
    with psycopg.connect(room.conninfo) as connection:
        connection.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN RAISE EXCEPTION 'not this one'; END$$;
            CREATE TRIGGER refuse BEFORE DELETE ON parcel FOR EACH ROW WHEN (OLD.id = 77)
                EXECUTE FUNCTION refuse()
            """
        )
    counts = room.execute(room.plan(), lambda _stage: None)
    assert counts.done == {"parcel_record": 1999}
    assert counts.refused == {("parcel_record", "P0001"): 1}


def test_plan_contains_number_of_records_that_each_legal_hold_keeps(room: SmallTable):
    room.rules = [
        RULE | {"where": "t.id <= 1000"},
        RULE | {"class": "late_parcel", "where": "t.id > 500", "period": "P20Y"},
    ]
    first = room.hold(HoldKind.SUBJECT, "3")
    second = room.hold(HoldKind.SUBJECT, "depot/3")
    third = room.hold(HoldKind.SUBJECT, "4")
    room.hold(HoldKind.SUBJECT, "no such customer")
    early, late = room.plan().classes
    assert {each.hold: each.records for each in early.held_by} == {
        first: 100,
        second: 100,
        third: 100,
    }
    assert (early.records, early.expired, early.held) == (1000, 1000, 200)
    assert early.kept_longer == 400  # 501 to 1000 are of the other class too, but for those held
    assert early.to_delete == 400
    assert (late.records, late.expired, late.held, late.held_by) == (1500, 0, 0, ())


def test_plan_contains_number_of_records_that_a_legal_hold_on_a_record_class_keeps(
    room: SmallTable,
):
    on_class = room.hold(HoldKind.CLASS, "parcel_record")
    on_one = room.hold(HoldKind.SUBJECT, "7")
    (found,) = room.plan().classes
    assert {each.hold: each.records for each in found.held_by} == {on_class: 2000, on_one: 200}
    assert (found.held, found.to_delete) == (2000, 0)
