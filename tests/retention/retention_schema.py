"""Small PostgreSQL schemas with a retention schedule, for tests of planning and execution.

Each `RetentionSchema` is a schema in a shared database, and is used as a mapped database. Creating
a schema takes milliseconds.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from include.erasure import ledger
from include.erasure.ledger import ErasureKeys
from include.erasure.requests import ErasureRequest, open_requests
from include.holds.records import load_record_holds
from include.holds.registry import Hold, HoldKind, add
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.retention import Disposition, RetentionRule
from include.retention.certificate.count.inspection import Inspection, RemainingRecords
from include.retention.execution import executor
from include.retention.execution.counts import ExecutionCounts
from include.retention.planning.plan import Plan
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import Schedule
from include.retention.postgres.session import open_snapshot, prepare_session
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.state.migrate import migrate
from tests.retention.database_fixtures import retention_database

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
AS_OF = datetime(2026, 3, 2, tzinfo=UTC)
OVER, YOUNG = "2020-01-01", "2026-01-01"  # clocks; with a period of a year, OVER has expired
CLOCK = SystemClock()
_SERVERS: dict[str, Engine] = {}


def rule(collection: str, action: str = "delete", **more: Any) -> RetentionRule:
    """Return a record class that is kept for a year from ``at``.

    Args:
        collection: name of the collection.
        action: disposition of expired records.
        more: further fields of the class. By default, the class has the name of the collection.
    """
    fields = {
        "class": more.pop("name", collection.lower()),
        "collection": collection,
        "clock": "at",
        "period": "P1Y",
        "action": action,
        "basis": "business",
    } | more
    return RetentionRule.model_validate(fields)


@dataclass
class RetentionSchema:
    """A PostgreSQL schema and its retention schedule.

    Attributes:
        connection: connection of the owner, in autocommit, with the schema as its search path.
        state: the state database.
        mapped: tables in the data map by collection; empty for all tables of the schema.
        rules: record classes.
    """

    name: str
    connection: psycopg.Connection[Any]
    conninfo: str
    state: Engine
    mapped: dict[str, str] = field(default_factory=dict)
    rules: Sequence[RetentionRule] = ()
    timezone: str = "Asia/Shanghai"
    as_of: datetime = AS_OF
    batch: Mapping[str, int] = field(default_factory=dict)

    def run(self, text: str) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(text.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []

    def keys(self, table: str, columns: str = "id") -> set[Any]:
        rows = self.run(f"SELECT {columns} FROM {table}")
        return {row[0] if len(row) == 1 else row for row in rows}

    @property
    def database(self) -> MappedDatabase:
        tables = self.mapped or {
            row[0]: row[0]
            for row in self.run(
                "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') "
                "AND relnamespace = current_schema::regnamespace AND NOT relispartition ORDER BY 1"
            )
        }
        collections = {
            name: MappedCollection(name=name, schema_name=self.name, table=table, fields={})
            for name, table in tables.items()
        }
        return MappedDatabase(
            name=self.name, title=verbatim(self.name), connection="x", schema_name=self.name,
            rto=timedelta(1), rpo=timedelta(1), collections=collections,
        )  # fmt: skip

    def schedule(self) -> Schedule:
        with self.state.connect() as conn:
            holds = load_record_holds(conn, self.name)
            requests: list[ErasureRequest] = open_requests(conn, self.name)
        return Schedule(
            self.database, self.rules, self.as_of, CLOCK.now(), self.timezone, holds, requests, KEYS
        )

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a session with the settings that the steps use."""
        address = DatabaseAddress.from_conninfo(self.conninfo)
        with address.connect(autocommit=True) as connection:
            prepare_session(connection, self.database)
            yield connection

    def plan(self) -> Plan:
        with self.session() as connection:
            return make_plan(connection, self.schedule())

    def execute(
        self, plan: Plan, allowed: Collection[str] | None = None, run: str = "1"
    ) -> ExecutionCounts:
        database = retention_database(
            self.database, self.rules, Disposition.model_validate({"batch": dict(self.batch)}),
            reader=DatabaseAddress.from_conninfo(self.conninfo), state=self.state, keys=KEYS,
            clock=CLOCK, timezone=self.timezone, run_id=f"{self.name} {run}",
        )  # fmt: skip
        allowed = allowed or [planned.name for planned in plan.classes]
        return executor.execute(database, plan, self.schedule(), allowed)

    def erased(self, run: str = "1") -> dict[str, int]:
        """Return how many records a run erased, by record class, from the erasure ledger."""
        with self.state.connect() as conn:
            counted = ledger.count_erased(conn, "enforce_retention", f"{self.name} {run}")
        return {name: records for (_, name, _), records in counted.items()}

    @contextmanager
    def inspection(self) -> Iterator[Inspection]:
        """Open the independent count, with the current legal holds."""
        with self.session() as connection, open_snapshot(connection, self.database):
            with self.state.connect() as conn:
                holds = load_record_holds(conn, self.name)
            yield Inspection(
                connection, self.database, self.rules,
                as_of=self.as_of, timezone=self.timezone, holds=holds,
            )  # fmt: skip

    def left(self) -> tuple[list[RemainingRecords], int]:
        """Return the remaining records of the independent count, and the number of orphans."""
        with self.inspection() as inspection:
            return inspection.count_remaining_expired(), sum(
                orphan.records for orphan in inspection.count_orphans()
            )

    def hold(self, kind: HoldKind, value: str) -> Hold:
        value = value if kind is HoldKind.DATABASE else f"{self.name}/{value}"
        with self.state.begin() as conn:
            return add(
                conn, CLOCK, kind=kind, value=value, reason="claim", owner="legal", case_ref="C-1",
                review_on=(CLOCK.now() + timedelta(30)).date(),
            )  # fmt: skip

    def planned(self) -> dict[str, int]:
        """Make a plan, and return the numbers of planned records by record class."""
        return {record_class.name: record_class.planned for record_class in self.plan().classes}

    def enforced(self) -> dict[str, int]:
        """Plan, execute and count.

        Check that the plan was executed, and that remaining records are explained.

        Returns:
            Numbers of planned records by class.
        """
        plan = self.plan()
        counts = self.execute(plan)
        planned = {
            record_class.name: record_class.planned
            for record_class in plan.classes
            if record_class.planned
        }
        assert counts.done == planned == self.erased()
        assert not counts.refused
        left, orphans = self.left()
        assert orphans == 0
        assert [remaining.unexplained for remaining in left] == [0] * len(left)
        same_schema = replace(self, as_of=self.as_of)
        assert not any(same_schema.planned().values())
        return planned


def state_of(postgres: EmbeddedPostgres) -> Engine:
    """Return the state database that all schemas of a server share.

    It is created, together with the database of the schemas, when it is used first.
    """
    server = postgres.conninfo("postgres")
    if server not in _SERVERS:
        with psycopg.connect(server, autocommit=True) as admin:
            for name in ("schemas", "schemas_state"):
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        _SERVERS[server] = engine(postgres.conninfo("schemas_state"))
        migrate(_SERVERS[server])
    return _SERVERS[server]


@contextmanager
def retention_schema(
    postgres: EmbeddedPostgres, *statements: str, **more: Any
) -> Iterator[RetentionSchema]:
    """Create a schema by SQL statements, and drop it after the test."""
    conninfo, state = postgres.conninfo("schemas"), state_of(postgres)
    name = f"y{uuid.uuid4().hex[:10]}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(name)))
        schema = RetentionSchema(name, connection, conninfo, state, **more)
        for statement in statements:
            schema.run(statement)
        yield schema
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
