"""The shipped schedule on the sample: what goes is what the sample's answer sheet says."""

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
from include.retention.postgres.session import prepare
from include.sample_company import AnswerSheet, load
from include.sample_company.load import statements
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import erasure, erasure_batch
from include.workplace import ROOT
from tests.retention import step_records as steps
from tests.retention.database_fixtures import DAG, retention_database
from tests.sample_company.test_expired import KEYS, RULES, SHEET, goes

PACK = load_pack(SHIPPED)
DATABASE = PACK.database("courier")
CUSTOMERS = 3000
ERASURE_KEYS = ErasureKeys({"1": b"k" * 32}, "1")
NO_HOLDS = RecordHolds((), {}, {kind: {} for kind in RECORD_KINDS})
SHANGHAI = timezone(timedelta(hours=8))
CLASSES = {one.collection: one.record_class for one in PACK.retention if one.deletes}
HELD = {
    "electronic_waybill": "expired_waybill_open_complaint",
    "delivery_proof": "expired_delivery_proof_open_complaint",
}
ROLES = ("courier_owner", "courier_retention")

GRANTS = ROOT / "include/retention/sample_grants.sql"


def in_run(reader: str, writer: str, state: Engine) -> RetentionDatabase:
    """The sample company's database in a run on the shipped pack."""
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


def sheet_says(plan: Plan, sheet: AnswerSheet) -> None:
    """Compare a plan with the answer sheet, class by class."""
    for table, (expired, staying) in SHEET.items():
        one = plan.of(CLASSES[table])
        kept = set[int]().union(*(sheet.planted[name].keys() for name in staying))
        named = set(sheet.planted[expired].keys())
        assert one.expired == len(named), one.name
        assert one.to_delete == len(named - kept), one.name
        held = HELD.get(one.name)
        suspended = set(sheet.planted[held].keys()) if held else set()
        assert one.suspended == len(suspended), one.name
        assert one.kept_by_reference == len(kept & named) - len(suspended), one.name
        assert plan.table(table).to_delete == one.to_delete
    contact = plan.of("waybill_contact")
    disputed = sheet.planted["contact_not_masked_open_complaint"].count
    assert contact.expired == sheet.planted["contact_not_masked"].count
    assert contact.suspended == disputed
    assert contact.to_mask == contact.expired - disputed


@dataclass
class Run:
    """One run from the plan to the count afterwards, with what was there before and after."""

    database: RetentionDatabase
    sheet: AnswerSheet
    plan: Plan
    before: dict[str, set[int]]
    gone: dict[str, set[int]]
    held: dict[str, set[int]]
    records: dict[str, StepRecord]
    owner: psycopg.Connection[Any]

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        return self.owner.execute(query.encode(), given or None).fetchall()


def keys_of(connection: psycopg.Connection[Any]) -> dict[str, set[int]]:
    return {
        table: {row[0] for row in connection.execute(f"SELECT {key} FROM {table}".encode())}
        for table, key in KEYS.items()
    }


@pytest.fixture(scope="module")
def run(postgres: EmbeddedPostgres) -> Iterator[Run]:
    """One run as of the sample's moment with holds of every kind, executed by the role for it."""
    name, state_name = (f"{one}_{uuid.uuid4().hex[:8]}" for one in ("courier", "state"))
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
            for one in statements(GRANTS):
                owner.execute(one)
            owner.execute("SET TimeZone = 'Asia/Shanghai'")
            writer = postgres.conninfo(name, "courier_retention", "x")
            yield _run(owner, in_run(writer, writer, state), sheet, at)
        state.dispose()
        for one in (name, state_name):
            admin.execute(f"DROP DATABASE {one} WITH (FORCE)".encode())
        for role in reversed(ROLES):
            admin.execute(f"DROP ROLE {role}".encode())


def _run(
    owner: psycopg.Connection[Any], database: RetentionDatabase, sheet: AnswerSheet, at: datetime
) -> Run:
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        sheet_says(make_plan(connection, schedule_of(database, at)), sheet)
    going = goes(owner, at)
    held = _hold(database, owner, going)
    gone = goes(owner, at, held)
    before = keys_of(owner)
    planned = steps.plan(database, at.isoformat())
    question = steps.ask(database, planned)
    assert question is not None
    answered = steps.take(
        database, planned, option="Approve", reason="", user=question.assigned[0],
        at=database.run.clock.now(), content=question.content,
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
    """Place a hold of each kind on records that would go; returns which records they are on."""

    def keys(query: str, *given: Any) -> set[int]:
        return {row[0] for row in owner.execute(query.encode(), given)}

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


def test_exactly_what_the_sheet_and_the_holds_leave_is_gone(run: Run) -> None:
    """By key, in every table; nothing else went."""
    after = keys_of(run.owner)
    for table, keys in run.before.items():
        assert keys - after[table] == run.gone[table], table
        assert after[table] <= keys
        assert run.held.get(table, set()) <= after[table], table
    assert sum(len(keys) for keys in run.gone.values()) > 1000
    assert run.records["execute"].outcome is Outcome.PASS, run.records["execute"].findings
    assert run.records["execute"].data["partitions"]["electronic_waybill"] > 5


def test_the_counts_agree(run: Run) -> None:
    """The plan's, the steps', the ledger's and the tables' own."""
    plan, done = run.plan, run.records["execute"].data["done"]
    counted = {CLASSES[table]: len(keys) for table, keys in run.gone.items() if keys}
    masked = set(run.sheet.planted["contact_not_masked"].keys()) - _contacts_kept(run)
    assert done == counted | {"waybill_contact": len(masked)}
    rows = run.rows("SELECT waybill_id FROM waybill WHERE masked_at >= %s", plan.as_of)
    there = {row[0] for row in rows}
    assert there == masked - run.gone["waybill"]  # some were masked, and then deleted
    assert {one.name: one.planned for one in plan.classes if one.planned} == done
    assert run.records["verify"].data["done"] == done
    assert run.records["verify"].data["unexplained"] == 0
    with run.database.run.state.connect() as conn:
        query = (
            select(erasure_batch.c.record_class, func.count())
            .join_from(erasure, erasure_batch)
            .where(erasure_batch.c.settled_at.is_not(None))
            .group_by(erasure_batch.c.record_class)
        )
        assert {one[0]: one[1] for one in conn.execute(query)} == done


def test_nothing_that_expired_is_left_unless_it_is_held_or_referred_to(run: Run) -> None:
    """By queries of the test's own, in the timezone of the pack."""
    now = run.plan.as_of
    assert run.rows(
        "SELECT count(*) FROM waybill WHERE delivered_at < %s - interval '90 days' "
        "AND (masked_at IS NULL OR sender_name !~ '[*]{2}$' OR receiver_address !~ '[*]{2}$')",
        now,
    ) == [(len(_contacts_kept(run)),)]
    left = {
        one["name"]: (one["held"], one["referred"]) for one in run.records["verify"].data["left"]
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


def test_no_reference_leads_nowhere(run: Run) -> None:
    """Every foreign key of the database, by a query of the test's own."""
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


def test_every_hold_is_named_with_what_it_keeps(run: Run) -> None:
    """In the plan, by its number."""
    kept: dict[int, int] = {}
    for one in run.plan.classes:
        for by in one.held_by:
            kept[by.hold] = kept.get(by.hold, 0) + by.records
    assert set(kept) == set(run.plan.holds) == {1, 2, 3, 4}
    assert all(kept.values())


def test_a_second_run_finds_nothing_to_do(run: Run) -> None:
    """As of the same moment."""
    context = replace(run.database.run, run=RunKey(DAG, "two"))
    again = steps.plan(replace(run.database, run=context), run.plan.as_of.isoformat())
    assert [one["name"] for one in again.data["classes"] if one["to_delete"] + one["to_mask"]] == []


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
def test_the_plan_is_the_sheet_about_leap_days_and_ends_of_months(
    postgres: EmbeddedPostgres, day: tuple[int, int, int], second: int
) -> None:
    """At any second of such a day in Shanghai; a small sample each time."""
    at = datetime(*day, tzinfo=SHANGHAI) + timedelta(seconds=second)
    name = f"leap_{uuid.uuid4().hex[:8]}"
    database, rules, zone = DATABASE, PACK.retention_of("courier"), PACK.calendar.timezone
    schedule = Schedule(database, rules, at, at, zone, NO_HOLDS, [], ERASURE_KEYS)
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(postgres.conninfo(name), autocommit=True) as connection:
                sheet = load(connection, customers=800, as_of=at)
                prepare(connection, schedule.database)
                plan = make_plan(connection, schedule)
            sheet_says(plan, sheet)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
