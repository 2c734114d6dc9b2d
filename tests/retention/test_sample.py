"""Tests that a run with the shipped schedule gives the expected results of the sample data."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import Engine, func, select

from include.erasure.ledger import ErasureKeys
from include.evidence.model import Outcome, StepRecord
from include.holds.records import RecordHolds
from include.holds.registry import RECORD_KINDS, HoldKind, add
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run as RunKey
from include.policy import SHIPPED
from include.registry import load_pack
from include.retention.database import RetentionDatabase
from include.retention.planning.plan import Plan
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import Schedule, schedule_of
from include.retention.postgres.session import prepare_session
from include.sample_company import AnswerSheet, load
from include.sample_company.load import statements
from include.service_container import ROOT
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import erasure, erasure_batch
from tests.retention import step_records as steps
from tests.retention.database_fixtures import DAG, retention_database
from tests.sample_company.test_expired import KEYS, RULES, SHEET, deletable_keys

PACK = load_pack(SHIPPED)
DATABASE = PACK.database("courier")
CUSTOMERS = 3000
ERASURE_KEYS = ErasureKeys({"1": b"k" * 32}, "1")
NO_HOLDS = RecordHolds((), {}, {kind: {} for kind in RECORD_KINDS})
SHANGHAI = timezone(timedelta(hours=8))
CLASSES = {each.collection: each.record_class for each in PACK.retention if each.deletes}
HELD = {
    "electronic_waybill": "expired_waybill_open_complaint",
    "delivery_proof": "expired_delivery_proof_open_complaint",
}
ROLES = ("courier_owner", "courier_retention")

GRANTS = ROOT / "include/retention/sample_grants.sql"


def in_run(reader: str, writer: str, state: Engine) -> RetentionDatabase:
    """Return the sample company's database in a run with the shipped policy pack."""
    return retention_database(
        DATABASE,
        PACK.retention_of("courier"),
        PACK.disposition,
        reader=DatabaseAddress.from_conninfo(reader),
        writer=DatabaseAddress.from_conninfo(writer),
        state=state,
        keys=ERASURE_KEYS,
        clock=SystemClock(),
        timezone=PACK.calendar.timezone,
        run_id="one",
    )


def expected_counts(plan: Plan, sheet: AnswerSheet) -> None:
    """Check for each record class that a plan matches the expected results of the sample data."""
    for table, (expired, staying) in SHEET.items():
        each = plan.of(CLASSES[table])
        kept = set[int]().union(*(sheet.planted[name].keys() for name in staying))
        named = set(sheet.planted[expired].keys())
        assert each.expired == len(named), each.name
        assert each.to_delete == len(named - kept), each.name
        held = HELD.get(each.name)
        suspended = set(sheet.planted[held].keys()) if held else set()
        assert each.suspended == len(suspended), each.name
        assert each.kept_by_reference == len(kept & named) - len(suspended), each.name
        assert plan.table(table).to_delete == each.to_delete
    contact = plan.of("waybill_contact")
    disputed = sheet.planted["contact_not_masked_open_complaint"].count
    assert contact.expired == sheet.planted["contact_not_masked"].count
    assert contact.suspended == disputed
    assert contact.to_mask == contact.expired - disputed


@dataclass
class Run:
    """One run from the plan to the verification, with the records before and after it.

    Attributes:
        database: the database in the run.
        sheet: expected results of the sample data.
        plan: the executed plan.
        before: table -> primary keys before the run.
        gone: table -> primary keys of the records that the run has to delete.
        held: table -> primary keys of records on legal hold.
        records: step -> step record.
        owner: connection of the owner of the database.
    """

    database: RetentionDatabase
    sheet: AnswerSheet
    plan: Plan
    before: dict[str, set[int]]
    gone: dict[str, set[int]]
    held: dict[str, set[int]]
    records: dict[str, StepRecord]
    owner: psycopg.Connection[Any]

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.owner.execute(query.encode(), parameters or None).fetchall()


def keys_of(connection: psycopg.Connection[Any]) -> dict[str, set[int]]:
    return {
        table: {row[0] for row in connection.execute(f"SELECT {key} FROM {table}".encode())}
        for table, key in KEYS.items()
    }


@pytest.fixture(scope="module")
def run(postgres: EmbeddedPostgres) -> Iterator[Run]:
    """One run on the sample data with legal holds of four types.

    The login for dispositions executes the plan.
    """
    name, state_name = (f"{each}_{uuid.uuid4().hex[:8]}" for each in ("courier", "state"))
    at = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - the steps ask the servers' clocks
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for role in ROLES:
            admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        admin.execute("GRANT courier_owner TO courier_retention WITH INHERIT FALSE, SET TRUE")
        admin.execute(f"CREATE DATABASE {name} OWNER courier_owner".encode())
        admin.execute(f"CREATE DATABASE {state_name}".encode())
        state = engine(postgres.conninfo(state_name))
        migrate(state)
        owner = psycopg.connect(postgres.conninfo(name, "courier_owner", "x"), autocommit=True)
        with owner:
            sheet = load(owner, customers=CUSTOMERS, as_of=at)
            for statement in statements(GRANTS):
                owner.execute(statement)
            owner.execute("SET TimeZone = 'Asia/Shanghai'")
            writer = postgres.conninfo(name, "courier_retention", "x")
            yield _run(owner, in_run(writer, writer, state), sheet, at)
        state.dispose()
        for each in (name, state_name):
            admin.execute(f"DROP DATABASE {each} WITH (FORCE)".encode())
        for role in reversed(ROLES):
            admin.execute(f"DROP ROLE {role}".encode())


def _run(
    owner: psycopg.Connection[Any], database: RetentionDatabase, sheet: AnswerSheet, at: datetime
) -> Run:
    with database.reader.connect(autocommit=True) as connection:
        prepare_session(connection, database.mapped)
        expected_counts(make_plan(connection, schedule_of(database, at)), sheet)
    going = deletable_keys(owner, at)
    held = _hold(database, owner, going)
    gone = deletable_keys(owner, at, held)
    before = keys_of(owner)
    planned = steps.plan(database, at.isoformat())
    action = steps.ask(database, planned)
    assert action is not None
    answered = steps.take(
        database, planned, option="Approve", reason="", user=action.assigned[0],
        at=database.run.clock.now(), content=action.content,
    )  # fmt: skip
    executed = steps.execute(database, planned)
    records = {
        "plan": planned, "approve": answered, "execute": executed,
        "verify": steps.verify(database, planned, executed, []),
    }  # fmt: skip
    return Run(
        database, sheet, steps.planned(database, planned), before, gone, held, records, owner
    )


def _hold(
    database: RetentionDatabase, owner: psycopg.Connection[Any], going: dict[str, set[int]]
) -> dict[str, set[int]]:
    """Place legal holds of four types on records that would be deleted.

    Returns:
        Table -> primary keys of the records on hold.
    """

    def keys(query: str, *parameters: Any) -> set[int]:
        return {row[0] for row in owner.execute(query.encode(), parameters)}

    waybill = min(going["waybill"])
    customer = min(going["customer"])
    case = max(going["complaint"])
    holds = [
        (HoldKind.WAYBILL, str(waybill)), (HoldKind.SUBJECT, f"courier/{customer}"),
        (HoldKind.CASE, str(case)), (HoldKind.CLASS, "training_record"),
    ]  # fmt: skip
    with database.run.state.begin() as conn:
        for kind, value in holds:
            add(
                conn, database.run.clock, kind=kind, value=value, reason="claim", owner="legal",
                case_ref="C-1", review_on=database.run.clock.now().date() + timedelta(30),
            )  # fmt: skip
    of = "WHERE customer_id = %s"
    labels = "SELECT waybill_id FROM waybill WHERE sender_id = %s OR receiver_id = %s"
    return {
        "waybill": {waybill} | keys(labels, customer, customer),
        "delivery_proof": keys(
            "SELECT proof_id FROM delivery_proof JOIN waybill USING (waybill_id) "
            "WHERE waybill_id = %s OR sender_id = %s OR receiver_id = %s",
            waybill, customer, customer,
        ),
        "complaint": {case}
        | keys(f"SELECT complaint_id FROM complaint {of} OR waybill_id = %s", customer, waybill),
        "training_completion": keys("SELECT completion_id FROM training_completion"),
        **{
            table: keys(f"SELECT {KEYS[table]} FROM {table} {of}", customer)
            for table in ("customer", "consent", "address", "share_log", "access_log",
                          "intake_record")
        },
    }  # fmt: skip


def test_run_of_sample_company_deletes_exactly_the_records_of_expected_results(run: Run) -> None:
    after = keys_of(run.owner)
    for table, keys in run.before.items():
        assert keys - after[table] == run.gone[table], table
        assert after[table] <= keys
        assert run.held.get(table, set()) <= after[table], table
    assert sum(len(keys) for keys in run.gone.values()) > 1000
    assert run.records["execute"].outcome is Outcome.PASS, run.records["execute"].findings
    assert run.records["execute"].data["partitions"]["electronic_waybill"] > 5


def test_counts_of_plan_execution_verification_ledger_and_tables_agree(run: Run) -> None:
    plan, done = run.plan, run.records["execute"].data["done"]
    counted = {CLASSES[table]: len(keys) for table, keys in run.gone.items() if keys}
    masked = set(run.sheet.planted["contact_not_masked"].keys()) - _contacts_kept(run)
    assert done == counted | {"waybill_contact": len(masked)}
    rows = run.rows("SELECT waybill_id FROM waybill WHERE masked_at >= %s", plan.as_of)
    there = {row[0] for row in rows}
    assert there == masked - run.gone["waybill"]  # some records were masked and then deleted
    assert {each.name: each.planned for each in plan.classes if each.planned} == done
    assert run.records["verify"].data["done"] == done
    assert run.records["verify"].data["unexplained"] == 0
    with run.database.run.state.connect() as conn:
        query = (
            select(erasure_batch.c.record_class, func.count())
            .join_from(erasure, erasure_batch)
            .where(erasure_batch.c.settled_at.is_not(None))
            .group_by(erasure_batch.c.record_class)
        )
        assert {row[0]: row[1] for row in conn.execute(query)} == done


def test_remaining_expired_records_are_on_hold_or_referenced(run: Run) -> None:
    now = run.plan.as_of
    assert run.rows(
        "SELECT count(*) FROM waybill WHERE delivered_at < %s - interval '90 days' "
        "AND (masked_at IS NULL OR sender_name !~ '[*]{2}$' OR receiver_address !~ '[*]{2}$')",
        now,
    ) == [(len(_contacts_kept(run)),)]
    left = {
        each["name"]: (each["held"], each["referred"])
        for each in run.records["verify"].data["left"]
    }
    for table in RULES:
        name, suspended = SHEET[table][0], HELD.get(CLASSES[table])
        there = set(run.sheet.planted[name].keys()) - run.gone[table]
        held = there & run.held.get(table, set())
        held |= there & set(run.sheet.planted[suspended].keys()) if suspended else set()
        assert left[CLASSES[table]] == (len(held), len(there - held)), table


def _contacts_kept(run: Run) -> set[int]:
    sheet = run.sheet.planted
    held = set(sheet["contact_not_masked"].keys()) & run.held["waybill"]
    return held | set(sheet["contact_not_masked_open_complaint"].keys())


def test_run_leaves_no_reference_to_missing_record(run: Run) -> None:
    keys = run.rows(
        "SELECT conrelid::regclass::text, confrelid::regclass::text, "
        "(SELECT array_agg(attname::text ORDER BY o) FROM unnest(conkey) WITH ORDINALITY u (n, o) "
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = n), "
        "(SELECT array_agg(attname::text ORDER BY o) FROM unnest(confkey) WITH ORDINALITY u (n, o) "
        " JOIN pg_attribute ON attrelid = confrelid AND attnum = n) "
        "FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
    )
    assert len(keys) > 20
    for child, parent, columns, targets in keys:
        on = " AND ".join(f"c.{a} = p.{b}" for a, b in zip(columns, targets, strict=True))
        filled = " AND ".join(f"c.{a} IS NOT NULL" for a in columns)
        assert run.rows(
            f"SELECT count(*) FROM {child} c LEFT JOIN {parent} p ON {on} "
            f"WHERE {filled} AND p.{targets[0]} IS NULL"
        ) == [(0,)]
    assert run.records["verify"].data["orphans"] == []


def test_plan_contains_each_legal_hold_with_the_number_of_records_it_keeps(run: Run) -> None:
    kept: dict[int, int] = {}
    for each in run.plan.classes:
        for by in each.held_by:
            kept[by.hold] = kept.get(by.hold, 0) + by.records
    assert set(kept) == set(run.plan.holds) == {1, 2, 3, 4}
    assert all(kept.values())


def test_second_run_plans_no_record(run: Run) -> None:
    context = replace(run.database.run, run=RunKey(DAG, "two"))
    again = steps.plan(replace(run.database, run=context), run.plan.as_of.isoformat())
    assert [
        each["name"] for each in again.data["classes"] if each["to_delete"] + each["to_mask"]
    ] == []


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([
        (2026, 2, 28), (2026, 3, 1), (2027, 2, 28), (2028, 2, 28), (2028, 2, 29), (2028, 3, 1),
        (2031, 2, 28), (2026, 4, 30), (2026, 12, 31),
    ]),
    st.integers(0, 86_399),
)  # fmt: skip
def test_plan_of_sample_company_matches_expected_results_on_leap_days_and_month_ends(
    postgres: EmbeddedPostgres, day: tuple[int, int, int], second: int
) -> None:
    at = datetime(*day, tzinfo=SHANGHAI) + timedelta(seconds=second)
    name = f"leap_{uuid.uuid4().hex[:8]}"
    database, rules, zone = DATABASE, PACK.retention_of("courier"), PACK.calendar.timezone
    schedule = Schedule(database, rules, at, at, zone, NO_HOLDS, [], ERASURE_KEYS)
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(postgres.conninfo(name), autocommit=True) as connection:
                sheet = load(connection, customers=800, as_of=at)
                prepare_session(connection, schedule.database)
                plan = make_plan(connection, schedule)
            expected_counts(plan, sheet)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
