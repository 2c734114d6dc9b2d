"""Small schemas under a retention schedule, for tests that plan and execute on many of them.

A `Yard` is a PostgreSQL schema of its own in a database that all of them share, and counts as a
mapped database of its own; making one takes milliseconds.
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
from include.holds.records import on_records
from include.holds.registry import Hold, HoldKind, add
from include.local.postgres import EmbeddedPostgres
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.retention import Disposition, RetentionRule
from include.retention.certificate.count.inspection import Inspection, Left
from include.retention.execution import executor
from include.retention.execution.counts import ExecutionCounts
from include.retention.planning.plan import Plan
from include.retention.planning.planner import make_plan
from include.retention.planning.schedule import Schedule
from include.retention.postgres.session import one_view, prepare
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.state.migrate import migrate
from tests.retention.database_fixtures import retention_database

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
AS_OF = datetime(2026, 3, 2, tzinfo=UTC)
OVER, YOUNG = "2020-01-01", "2026-01-01"  # of clocks with a period of a year
CLOCK = SystemClock()
_SERVERS: dict[str, Engine] = {}


def rule(collection: str, action: str = "delete", **more: Any) -> RetentionRule:
    """A class over the column ``at``, kept for a year; ``name`` it where there are several."""
    given = {
        "class": more.pop("name", collection.lower()),
        "collection": collection,
        "clock": "at",
        "period": "P1Y",
        "action": action,
        "basis": "business",
    } | more
    return RetentionRule.model_validate(given)


@dataclass
class Yard:
    """A schema and its schedule.

    Attributes:
        connection: of its owner, autocommit, with the schema as its path.
        state: the state database.
        mapped: its tables in the data map, by collection; all of the schema where empty.
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
            one: MappedCollection(name=one, schema_name=self.name, table=table, fields={})
            for one, table in tables.items()
        }
        return MappedDatabase(
            name=self.name, title=self.name, connection="x", schema_name=self.name,
            rto=timedelta(1), rpo=timedelta(1), collections=collections,
        )  # fmt: skip

    def schedule(self) -> Schedule:
        with self.state.connect() as conn:
            holds = on_records(conn, self.name)
            requests: list[ErasureRequest] = open_requests(conn, self.name)
        return Schedule(
            self.database, self.rules, self.as_of, CLOCK.now(), self.timezone, holds, requests, KEYS
        )

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """A session as the steps open it."""
        address = DatabaseAddress.from_conninfo(self.conninfo)
        with address.connect(autocommit=True) as connection:
            prepare(connection, self.database)
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

    def done(self, run: str = "1") -> dict[str, int]:
        """Records that the ledger says a run erased, by class."""
        with self.state.connect() as conn:
            counted = ledger.counted(conn, "enforce_retention", f"{self.name} {run}")
        return {name: records for (_, name, _), records in counted.items()}

    @contextmanager
    def inspection(self) -> Iterator[Inspection]:
        """The independent count, with the holds of now."""
        with self.session() as connection, one_view(connection, self.database):
            with self.state.connect() as conn:
                holds = on_records(conn, self.name)
            yield Inspection(
                connection, self.database, self.rules,
                as_of=self.as_of, timezone=self.timezone, holds=holds,
            )  # fmt: skip

    def left(self) -> tuple[list[Left], int]:
        """What the independent count says is left, and how many records are orphans."""
        with self.inspection() as seen:
            return seen.left(), sum(one.records for one in seen.orphans())

    def hold(self, kind: HoldKind, value: str) -> Hold:
        value = value if kind is HoldKind.DATABASE else f"{self.name}/{value}"
        with self.state.begin() as conn:
            return add(
                conn, CLOCK, kind=kind, value=value, reason="claim", owner="legal", case_ref="C-1",
                review_on=(CLOCK.now() + timedelta(30)).date(),
            )  # fmt: skip

    def planned(self) -> dict[str, int]:
        """Plan only: how many go, by class."""
        return {one.name: one.planned for one in self.plan().classes}

    def enforced(self) -> dict[str, int]:
        """Plan, execute, count: what the plan said went and nothing is left unexplained."""
        plan = self.plan()
        counts = self.execute(plan)
        planned = {one.name: one.planned for one in plan.classes if one.planned}
        assert counts.done == planned == self.done()
        assert not counts.refused
        left, orphans = self.left()
        assert orphans == 0
        assert [one.unexplained for one in left] == [0] * len(left)
        again = replace(self, as_of=self.as_of)
        assert not any(again.planned().values())
        return planned


def state_of(postgres: EmbeddedPostgres) -> Engine:
    """The state database that all yards of a server share; made with theirs the first time."""
    server = postgres.conninfo("postgres")
    if server not in _SERVERS:
        with psycopg.connect(server, autocommit=True) as admin:
            for name in ("yards", "yards_state"):
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        _SERVERS[server] = engine(postgres.conninfo("yards_state"))
        migrate(_SERVERS[server])
    return _SERVERS[server]


@contextmanager
def yard(postgres: EmbeddedPostgres, *statements: str, **more: Any) -> Iterator[Yard]:
    """An empty schema for the test to fill; dropped afterwards."""
    conninfo, state = postgres.conninfo("yards"), state_of(postgres)
    name = f"y{uuid.uuid4().hex[:10]}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(name)))
        made = Yard(name, connection, conninfo, state, **more)
        for one in statements:
            made.run(one)
        yield made
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
