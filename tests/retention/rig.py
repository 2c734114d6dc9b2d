"""A small database under a retention schedule, and every step of a run on it, for hard days.

Each table stands for one way in which records hang together:

    parcel      composite key; two classes: `claim` keeps what is open for longer
    scan        refers to parcel and keeps it; may be suspended
    detail      refers to scan and keeps it
    tag         refers to scan; the schedule sets it to null (`detach`)
    note        refers to scan; the database sets it to null (ON DELETE SET NULL)
    event       partitioned by year; whole partitions go
    remark      refers to event and keeps it
    node        refers to itself
    ring_a, ring_b  refer to each other in a circle
    person      is masked
Everything is kept for a year and looked at for `AS_OF`: `OLD` is over and `YOUNG` is not.
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
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.retention import Disposition, RetentionRule
from include.retention.database import RetentionDatabase
from include.retention.execution.state import Progress
from include.services.clock import Clock, SystemClock
from include.services.database import DatabaseAddress
from include.state.locks import exclusive
from include.state.tables import metadata
from tests.retention import step_records as steps
from tests.retention.database_fixtures import DAG, retention_database
from tests.support.databases import fresh, migrated, pooled
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
YEARS = (2022, 2023, 2025)  # of event's partitions: two that are over, and one that is not
KEY = {"parcel": ("region", "no"), "event": ("no", "at")}
COLLECTIONS = (
    "parcel", "scan", "detail", "tag", "note", "event", "remark", "node", "ring_a", "ring_b",
    "person",
)  # fmt: skip


def key_of(table: str) -> tuple[str, ...]:
    """Columns of a table's primary key."""
    return KEY.get(table, ("id",))


def mapped(collections: Sequence[str] = COLLECTIONS) -> MappedDatabase:
    """The data map of the rig; a table left out is one that nobody mapped."""
    return MappedDatabase(
        name=NAME,
        title="Courier",
        connection="customer_db",
        schema_name="public",
        rto=timedelta(hours=4),
        rpo=timedelta(days=1),
        collections={
            one: MappedCollection(
                name=one,
                schema_name="public",
                table=one,
                fields={name: MappedField(name=name, primary_key=True) for name in key_of(one)},
            )
            for one in collections
        },
    )


def rule(collection: str, **more: Any) -> RetentionRule:
    """A record class named as its collection: a year from `at`, then deleted, found by `who`."""
    said = {
        "class": collection,
        "collection": collection,
        "clock": "at",
        "period": "P1Y",
        "action": "delete",
        "basis": "business",
        "keys": {"subject": "t.who"},
    }
    return RetentionRule.model_validate(said | more)


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


def disposition(**more: Any) -> Disposition:
    """disposition.yaml: ana owns the schedule, bo and chen may approve; nothing waits by itself."""
    said: dict[str, Any] = {
        "approval": {"owners": {"accounts": ["ana"]}, "approvers": {"accounts": ["bo", "chen"]}},
        "batch": {"lock_timeout_ms": 300, "statement_timeout_s": 5},
    }
    return Disposition.model_validate(said | more)


EVERYTHING_WAITS = {"records": 0, "percent": "0%", "times_trend": 1}
"""A limit (`disposition(limit=...)`) that every plan is beyond, so that somebody has to approve."""


@dataclass(repr=False)
class Rig:
    """One database, its state database, and the steps of runs between them.

    Attributes:
        source: connection string of the mapped database.
        state_source: of the state database.
        writer: connection string of who deletes; ``source`` where nothing is said.
        pool: an engine of the state database in place of one that always connects anew.
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

    def but(self, **changes: Any) -> Rig:
        """The same databases with another clock, rules, keys, data map or disposition."""
        return replace(self, **changes)

    def address(self, source: str) -> DatabaseAddress:
        """An address of the mapped database."""
        return DatabaseAddress.from_conninfo(source)

    def in_run(self, run: str = "r1") -> RetentionDatabase:
        """The mapped database in a run."""
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
        """First step: the plan, kept for the run."""
        return self._kept(run, steps.plan(self.in_run(run), as_of.isoformat()))

    def answer(
        self, record: StepRecord, run: str = "r1", *, by: str = "bo", option: str = APPROVE
    ) -> StepRecord:
        """Second step, of a plan that waits: somebody's answer."""
        given: Any = {"option": option, "reason": "seen", "user": by, "at": self.clock.now()}
        return steps.take(
            self.in_run(run), record, content=content_of(self.engine, record), **given
        )

    def execute(
        self, record: StepRecord, run: str = "r1", progress: Progress = lambda _stage: None
    ) -> StepRecord:
        """Third step, under the lock that keeps a second execution out."""
        with exclusive(self.engine, f"retention:{NAME}", f"retention of {NAME}") as alone:
            return self._kept(run, steps.execute(self.in_run(run), record, progress, alone))

    def verify(
        self, record: StepRecord, executed: StepRecord | None, run: str = "r1"
    ) -> StepRecord:
        """Last step: the count afterwards."""
        return self._kept(run, steps.verify(self.in_run(run), record, executed, []))

    def run(self, run: str = "r1", as_of: datetime = AS_OF) -> tuple[StepRecord, ...]:
        """A whole run that nothing disturbs: plan, (approval,) execution, count."""
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
        """End a hold."""
        with self.engine.begin() as conn:
            registry.release(conn, self.clock, hold, released_by="legal", reason="settled")

    def request(
        self, subject: str, received_on: date | None = None, *, entered_by: str = "dpo"
    ) -> int:
        """Enter a data subject's request to be erased."""
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
        """Primary keys of a table as the ledger spells them."""
        columns = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(one)) for one in key_of(table)
        )
        query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table))
        with psycopg.connect(self.source, options="-c TimeZone=UTC") as connection:
            return set(connection.execute(query).fetchall())

    def empty(self) -> None:
        """Bring both databases back to their beginning."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            make_partitions(connection)
            connection.execute(f"TRUNCATE {', '.join(COLLECTIONS)}".encode())
        self.state_sql(emptying(metadata.tables))

    def _kept(self, run: str, record: StepRecord) -> StepRecord:
        with self.engine.begin() as conn:
            record_step(conn, DAG, run, record, self.clock)
        return record


def make_partitions(connection: psycopg.Connection[Any]) -> None:
    """Make the partitions of `event` that are not there; dropped ones come back."""
    for year in YEARS:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS event_{year} PARTITION OF event "
            f"FOR VALUES FROM ('{year}-01-01+00') TO ('{year + 1}-01-01+00')".encode()
        )


@contextmanager
def new_rig(server: EmbeddedPostgres, **more: Any) -> Iterator[Rig]:
    """Make both databases of a rig, and drop them afterwards."""
    with fresh(server) as source, fresh(server, migrated(server)) as state:
        rig = Rig(server.conninfo(source), server.conninfo(state), **more)
        with psycopg.connect(rig.source, autocommit=True) as connection:
            connection.execute(TABLES)
            make_partitions(connection)
        yield rig


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
"""Records of every table; parcel 2 and its scan stay, since a young detail refers to that."""


def fill(rig: Rig, records: Mapping[str, Sequence[Mapping[str, Any]]] = FAMILY) -> None:
    """Insert records, parents first, and close the circle of ring_a and ring_b."""
    for table in COLLECTIONS:
        for one in records.get(table, ()):
            rig.insert(table, **one)
    if records is FAMILY:
        rig.sql("UPDATE ring_a SET b = 1")
