"""Fixtures of intake tests: a sample courier company with pending batches, and a state database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.evidence.step_findings import record_step
from include.intake import table as tables
from include.intake.checks import ConditionChecks, SuiteChecks
from include.intake.incoming import Incoming
from include.intake.table import IncomingTable
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import load
from include.services.clock import Clock, FixedClock
from include.services.database import DatabaseAddress
from include.workflow.run_context import RunContext
from tests.intake import steps
from tests.support.airflow_task import with_services
from tests.support.contexts import services_of
from tests.support.databases import pooled, temporary_database
from tests.support.registers import content_of

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
NOW = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
CLOCK = FixedClock(NOW)
REVIEWER, ENTERER = "E00003", "E00030"
OLDEST = "IN-000003"  # of the sample with 300 customers; pending for 100 hours


@dataclass
class Rig:
    """An incoming table, together with the databases that it needs.

    Attributes:
        table: incoming table of the shipped pack.
        conninfo: connection string of the courier's database, as its owner.
        state: connection string of the state database.
    """

    table: IncomingTable
    conninfo: str
    state: str

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo) as connection:
            cursor = connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def one(self, query: str, *parameters: Any) -> Any:
        return self.rows(query, *parameters)[0][0]

    def checked(self, batch: str = OLDEST, table: IncomingTable | None = None) -> StepRecord:
        """Check a batch and store the step record, as a task of the workflow does."""
        table = table or self.table
        record = steps.check(table, batch)
        run = table.run.run
        with table.state.begin() as conn:
            record_step(conn, run.dag_id, run.run_id, record, table.clock)
        return record

    def answered(
        self, checked: StepRecord, option: str = "Approve", user: str | None = REVIEWER, **more: Any
    ) -> StepRecord:
        answer = {
            "reason": "forms are incomplete",
            "at": NOW,
            "content": content_of(self.table.state, checked),
        }
        return steps.take(self.table, checked, option=option, user=user, **answer | more)

    def states(self, batch: str = OLDEST) -> dict[str, int]:
        query = "SELECT status, count(*) FROM intake_record WHERE batch_id = %s GROUP BY 1"
        return dict(self.rows(query, batch))

    def later(self, **span: int) -> IncomingTable:
        """Return the incoming table for a run that starts later.

        Args:
            span: delay of the start, as arguments of `timedelta`.
        """
        clock = FixedClock(self.table.clock.now() + timedelta(**span))
        return table_in(self.conninfo, self.table.state, clock, run="later")

    def of_workflow(self, dag_id: str) -> IncomingTable:
        """Return the incoming table for a run of another workflow."""
        run = replace(self.table.run, run=Run(dag_id, "run"))
        return replace(self.table, run=run)


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Provide the name of a template database with the sample courier."""
    with temporary_database(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            load(connection, customers=300, as_of=NOW)
        yield name


@pytest.fixture
def rig(postgres: EmbeddedPostgres, template: str, migrated_database: str) -> Iterator[Rig]:
    """Provide a new courier database with an empty state database."""
    with temporary_database(postgres, template) as name:
        conninfo = postgres.conninfo(name)
        state = pooled(migrated_database)
        yield Rig(table_in(conninfo, state), conninfo, migrated_database)
        state.dispose()


@pytest.fixture
def run_of_tasks(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Provide dag id and run id of a run whose tasks use the courier database of ``rig``."""
    run = rig.table.run
    key = run.run.dag_id, run.run.run_id
    with_services(monkeypatch, key, run.services)
    monkeypatch.setattr(tables, "load_table", lambda run, _rule: replace(rig.table, run=run))
    return key


def table_in(conninfo: str, state: Engine, clock: Clock = CLOCK, run: str = "run") -> IncomingTable:
    """Return the incoming table of the shipped pack, connected to a courier's database."""
    pack = load_pack(SHIPPED)
    (rule,) = pack.intake
    (suite,) = pack.suites_of("courier", incoming=True)
    incoming = Incoming(rule, pack.database_of(rule.collection, rule.database))
    address = DatabaseAddress.from_conninfo(conninfo)
    services = services_of(pack, {"courier": conninfo}, state, clock)
    return IncomingTable(
        run=RunContext(services, None, Run("review_intake", run)),
        incoming=incoming,
        reader=address,
        writer=address,
        checkers=[SuiteChecks(incoming, suite.expectations), ConditionChecks(incoming)],
    )


def keyed_by_phone(incoming: Incoming) -> Incoming:
    """Return the table with the phone number as its primary key."""
    collection = incoming.collection
    fields = {
        name: field.model_copy(update={"primary_key": name == "phone"})
        for name, field in collection.fields.items()
    }
    collections = {
        **incoming.database.collections,
        collection.name: collection.model_copy(update={"fields": fields}),
    }
    database = incoming.database.model_copy(update={"collections": collections})
    return replace(incoming, database=database)
