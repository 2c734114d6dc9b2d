"""A small database with a retention schedule, and the steps of runs on it, for tests of failures.

Each table has another relation between records:

    parcel      composite key; two classes: `claim` keeps open parcels for longer
    scan        refers to parcel and keeps it; may be suspended
    detail      refers to scan and keeps it
    tag         refers to scan; the schedule sets the reference to null (`detach`)
    note        refers to scan; the database sets the reference to null (ON DELETE SET NULL)
    event       partitioned by year; whole partitions are dropped
    remark      refers to event and keeps it
    node        refers to itself
    ring_a, ring_b  refer to each other in a cycle
    person      is masked
Records are kept for a year. At `AS_OF`, `OLD` records have expired, `YOUNG` records have not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from include.approvals.registry import APPROVE
from include.erasure import requests
from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.evidence.step_findings import record_step
from include.holds import registry
from include.holds.registry import Hold, HoldKind
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.retention import Disposition, RetentionRule
from include.retention.database import RetentionDatabase
from include.retention.execution.state import Progress
from include.services.clock import Clock, SystemClock
from include.services.database import DatabaseAddress
from include.state.locks import hold_exclusive_lock
from include.state.tables import metadata
from tests.retention import step_records as steps
from tests.retention.database_fixtures import DAG, retention_database
from tests.support.databases import migrated, pooled, temporary_database
from tests.support.registers import content_of, emptying

NAME = "courier"
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
OLD, YOUNG = datetime(2023, 6, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
KEYS = ErasureKeys({"1": b"1" * 32}, "1")
ROTATED = ErasureKeys({"1": b"1" * 32, "2": b"2" * 32}, "2")

TABLES = """
CREATE TABLE parcel (
    region text, no integer, at timestamptz, who text, open boolean NOT NULL DEFAULT false,
    PRIMARY KEY (region, no));
CREATE TABLE scan (
    id integer PRIMARY KEY, region text, no integer, at timestamptz, who text,
    open boolean NOT NULL DEFAULT false,
    CONSTRAINT scan_parcel FOREIGN KEY (region, no) REFERENCES parcel);
CREATE TABLE detail (
    id integer PRIMARY KEY, scan integer CONSTRAINT detail_scan REFERENCES scan,
    at timestamptz, who text);
CREATE TABLE tag (
    id integer PRIMARY KEY, scan integer CONSTRAINT tag_scan REFERENCES scan,
    at timestamptz, who text);
CREATE TABLE note (
    id integer PRIMARY KEY, scan integer CONSTRAINT note_scan REFERENCES scan ON DELETE SET NULL,
    at timestamptz, who text);
CREATE TABLE event (no integer, at timestamptz, who text, PRIMARY KEY (no, at))
    PARTITION BY RANGE (at);
CREATE TABLE remark (
    id integer PRIMARY KEY, no integer, event_at timestamptz, at timestamptz, who text,
    CONSTRAINT remark_event FOREIGN KEY (no, event_at) REFERENCES event);
CREATE TABLE node (
    id integer PRIMARY KEY, up integer CONSTRAINT node_up REFERENCES node, at timestamptz,
    who text);
CREATE TABLE ring_a (id integer PRIMARY KEY, b integer, at timestamptz, who text);
CREATE TABLE ring_b (
    id integer PRIMARY KEY, a integer CONSTRAINT ring_b_a REFERENCES ring_a, at timestamptz,
    who text);
ALTER TABLE ring_a ADD CONSTRAINT ring_a_b FOREIGN KEY (b) REFERENCES ring_b;
CREATE TABLE person (
    id integer PRIMARY KEY, name text, phone text, at timestamptz, who text,
    masked_at timestamptz);
"""
YEARS = (2022, 2023, 2025)  # partitions of event: two expired, one not
KEY = {"parcel": ("region", "no"), "event": ("no", "at")}
COLLECTIONS = (
    "parcel", "scan", "detail", "tag", "note", "event", "remark", "node", "ring_a", "ring_b",
    "person",
)  # fmt: skip


def key_of(table: str) -> tuple[str, ...]:
    """Return the columns of a table's primary key."""
    return KEY.get(table, ("id",))


def mapped(collections: Sequence[str] = COLLECTIONS) -> MappedDatabase:
    """Return the database of the runner in the data map.

    Args:
        collections: tables that are mapped.
    """
    return MappedDatabase(
        name=NAME,
        title=verbatim("Courier"),
        connection="customer_db",
        schema_name="public",
        rto=timedelta(hours=4),
        rpo=timedelta(days=1),
        collections={
            collection: MappedCollection(
                name=collection,
                schema_name="public",
                table=collection,
                fields={
                    name: MappedField(name=name, primary_key=True) for name in key_of(collection)
                },
            )
            for collection in collections
        },
    )


def rule(collection: str, **changes: Any) -> RetentionRule:
    """Return a record class whose records are deleted a year after `at`.

    The column `who` contains the key of the data subject.
    """
    fields = {
        "class": collection,
        "collection": collection,
        "clock": "at",
        "period": "P1Y",
        "action": "delete",
        "basis": "business",
        "keys": {"subject": "t.who"},
    }
    return RetentionRule.model_validate(fields | changes)


RULES: tuple[RetentionRule, ...] = (
    rule("parcel", on_request=True),
    rule("parcel", **{"class": "claim", "where": "t.open", "period": "P10Y"}),
    rule(
        "scan",
        detach="tag.scan",
        on_request=True,
        suspended={"where": "t.open", "title": {"en": "Open claim", "zh-CN": "理赔中"}},
    ),
    rule("detail", on_request=True),
    rule("tag"),
    rule("note"),
    rule("event", action="drop_partition"),
    rule("remark"),
    rule("node"),
    rule("ring_a"),
    rule("ring_b"),
    rule(
        "person",
        action="mask",
        mask={"name": "name", "phone": "phone"},
        stamp="masked_at",
        on_request=True,
    ),
)


def disposition(**changes: Any) -> Disposition:
    """Return the rules of disposition.yaml: ana owns the schedule, bo and chen may approve."""
    fields: dict[str, Any] = {
        "approval": {"owners": {"accounts": ["ana"]}, "approvers": {"accounts": ["bo", "chen"]}},
        "batch": {"lock_timeout_ms": 300, "statement_timeout_s": 5},
    }
    return Disposition.model_validate(fields | changes)


ALL_NEED_APPROVAL = {"records": 0, "percent": "0%", "times_trend": 1}
"""A limit (`disposition(limit=...)`) that every plan exceeds, so that it needs approval."""


@dataclass(repr=False)
class RetentionRunner:
    """A mapped database, its state database, and the steps of runs on them.

    Attributes:
        source: connection string of the mapped database.
        state_source: connection string of the state database.
        writer: connection string of the login that deletes; empty for ``source``.
        pool: engine of the state database; by default, an engine that opens new connections.
    """

    source: str
    state_source: str
    rules: Sequence[RetentionRule] = RULES
    rules_of_disposition: Disposition = field(default_factory=disposition)
    database: MappedDatabase = field(default_factory=mapped)
    keys: ErasureKeys = KEYS
    clock: Clock = field(default_factory=SystemClock)
    timezone: str = "UTC"
    writer: str = ""
    starter: str | None = None
    pool: Engine | None = None
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = self.pool or pooled(self.state_source)

    def but(self, **changes: Any) -> RetentionRunner:
        """Return a runner on the same databases with changed attributes, such as rules or clock."""
        return replace(self, **changes)

    def address(self, source: str) -> DatabaseAddress:
        """Return the database address for a connection string."""
        return DatabaseAddress.from_conninfo(source)

    def in_run(self, run: str = "r1") -> RetentionDatabase:
        """Return the mapped database in a run."""
        return retention_database(
            self.database,
            self.rules,
            self.rules_of_disposition,
            reader=self.address(self.source),
            writer=self.address(self.writer or self.source),
            state=self.engine,
            keys=self.keys,
            clock=self.clock,
            timezone=self.timezone,
            run_id=run,
            starter=self.starter,
        )

    def plan(self, run: str = "r1", as_of: datetime = AS_OF) -> StepRecord:
        """Make the plan, and store its step record."""
        return self._stored(run, steps.plan(self.in_run(run), as_of.isoformat()))

    def answer(
        self, record: StepRecord, run: str = "r1", *, by: str = "bo", option: str = APPROVE
    ) -> StepRecord:
        """Record the decision of an approver on a plan."""
        answer: Any = {"option": option, "reason": "seen", "user": by, "at": self.clock.now()}
        return steps.take(
            self.in_run(run), record, content=content_of(self.engine, record), **answer
        )

    def execute(
        self, record: StepRecord, run: str = "r1", progress: Progress = lambda _stage: None
    ) -> StepRecord:
        """Execute the plan, with the lock that prevents a second execution at the same time."""
        with hold_exclusive_lock(self.engine, f"retention:{NAME}", f"retention of {NAME}") as alone:
            return self._stored(run, steps.execute(self.in_run(run), record, progress, alone))

    def verify(
        self, record: StepRecord, executed: StepRecord | None, run: str = "r1"
    ) -> StepRecord:
        """Count the remaining records."""
        return self._stored(run, steps.verify(self.in_run(run), record, executed, []))

    def run(self, run: str = "r1", as_of: datetime = AS_OF) -> tuple[StepRecord, ...]:
        """Run all steps: plan, approval if needed, execution, verification."""
        planned = self.plan(run, as_of)
        if planned.data["request"]:
            self.answer(planned, run)
        executed = self.execute(planned, run)
        return planned, executed, self.verify(planned, executed, run)

    def hold(self, kind: HoldKind, value: str) -> Hold:
        """Place a legal hold."""
        with self.engine.begin() as conn:
            return registry.add(
                conn,
                self.clock,
                kind=kind,
                value=value,
                reason="claim pending",
                owner="legal",
                case_ref="C-1",
                review_on=self.clock.now().date() + timedelta(days=90),
            )

    def release(self, hold: int) -> None:
        """Release a legal hold."""
        with self.engine.begin() as conn:
            registry.release(conn, self.clock, hold, released_by="legal", reason="settled")

    def request(
        self, subject: str, received_on: date | None = None, *, entered_by: str = "dpo"
    ) -> int:
        """Enter an erasure request of a data subject."""
        with self.engine.begin() as conn:
            return requests.add(
                conn,
                self.clock,
                database=NAME,
                subject=subject,
                reference="R-1",
                received_on=received_on or self.clock.now().date(),
                entered_by=entered_by,
            ).id

    def insert(self, table: str, **values: Any) -> None:
        """Insert one record."""
        self.sql(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(map(sql.Literal, values.values())),
            )
        )

    def sql(self, statement: Any, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run SQL on the mapped database, as the application would."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def state_sql(self, statement: Any, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run SQL on the state database."""
        with psycopg.connect(self.state_source, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def keys_in(self, table: str) -> set[tuple[str, ...]]:
        """Return the primary keys of a table, as the erasure ledger encodes them."""
        columns = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(column)) for column in key_of(table)
        )
        query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table))
        with psycopg.connect(self.source, options="-c TimeZone=UTC") as connection:
            return set(connection.execute(query).fetchall())

    def empty(self) -> None:
        """Empty both databases."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            make_partitions(connection)
            connection.execute(f"TRUNCATE {', '.join(COLLECTIONS)}".encode())
        self.state_sql(emptying(metadata.tables))

    def _stored(self, run: str, record: StepRecord) -> StepRecord:
        with self.engine.begin() as conn:
            record_step(conn, DAG, run, record, self.clock)
        return record


def make_partitions(connection: psycopg.Connection[Any]) -> None:
    """Create the missing partitions of `event`."""
    for year in YEARS:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS event_{year} PARTITION OF event "
            f"FOR VALUES FROM ('{year}-01-01+00') TO ('{year + 1}-01-01+00')".encode()
        )


@contextmanager
def new_runner(server: EmbeddedPostgres, **more: Any) -> Iterator[RetentionRunner]:
    """Create both databases of a runner, and drop them afterwards."""
    with (
        temporary_database(server) as source,
        temporary_database(server, migrated(server)) as state,
    ):
        runner = RetentionRunner(server.conninfo(source), server.conninfo(state), **more)
        with psycopg.connect(runner.source, autocommit=True) as connection:
            connection.execute(TABLES)
            make_partitions(connection)
        yield runner


FAMILY: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "parcel": [{"region": "n", "no": 1, "at": OLD, "who": "p1"},
               {"region": "n", "no": 2, "at": OLD, "who": "p2"},
               {"region": "n", "no": 3, "at": YOUNG, "who": "p3"}],
    "scan": [{"id": 1, "region": "n", "no": 1, "at": OLD, "who": "p1"},
             {"id": 2, "region": "n", "no": 2, "at": OLD, "who": "p2"},
             {"id": 3, "region": "n", "no": 3, "at": YOUNG, "who": "p3"}],
    "detail": [{"id": 1, "scan": 1, "at": OLD, "who": "p1"},
               {"id": 2, "scan": 2, "at": YOUNG, "who": "p2"}],
    "tag": [{"id": 1, "scan": 1, "at": YOUNG, "who": "p1"}],
    "note": [{"id": 1, "scan": 1, "at": YOUNG, "who": "p1"}],
    "event": [{"no": 1, "at": OLD, "who": "p1"}, {"no": 2, "at": OLD, "who": "p2"},
              {"no": 3, "at": YOUNG, "who": "p3"}],
    "remark": [{"id": 1, "no": 1, "event_at": OLD, "at": OLD, "who": "p1"}],
    "node": [{"id": 1, "up": None, "at": OLD, "who": "p1"},
             {"id": 2, "up": 1, "at": OLD, "who": "p1"},
             {"id": 3, "up": 3, "at": OLD, "who": "p3"}],
    "ring_a": [{"id": 1, "b": None, "at": OLD, "who": "p1"}],
    "ring_b": [{"id": 1, "a": 1, "at": OLD, "who": "p1"}],
    "person": [{"id": 1, "name": "Wang Fang", "phone": "13800138000", "at": OLD, "who": "p1"},
               {"id": 2, "name": "Li Na", "phone": "13900139000", "at": YOUNG, "who": "p2"}],
}  # fmt: skip
"""Records of every table. Parcel 2 and its scan are kept, since a young detail needs the scan."""


def fill(
    runner: RetentionRunner, records: Mapping[str, Sequence[Mapping[str, Any]]] = FAMILY
) -> None:
    """Insert records, parents first, and let ring_a refer to ring_b so that both form a cycle."""
    for table in COLLECTIONS:
        for values in records.get(table, ()):
            runner.insert(table, **values)
    if records is FAMILY:
        runner.sql("UPDATE ring_a SET b = 1")
