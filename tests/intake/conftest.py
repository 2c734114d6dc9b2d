"""A sample courier whose batches the tests review, with a state database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.evidence.model import StepRecord
from include.evidence.steps import record_step
from include.intake import review
from include.intake.checks import OwnChecks, SuiteChecks
from include.intake.desk import Desk
from include.intake.names import Incoming
from include.local.postgres import EmbeddedPostgres
from include.local.sample import load
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from tests.support.airflow_task import in_task
from tests.support.databases import fresh, pooled
from tests.support.registers import content_of

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
NOW = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
REVIEWER, ENTERER = "E00003", "E00030"
OLDEST = "IN-000003"  # of 300 customers; waits for 100 hours


@dataclass
class Rig:
    """A desk and the database behind it.

    Attributes:
        desk: of the shipped pack's intake.
        conninfo: of the courier's owner.
        state: connection string of the state database.
    """

    desk: Desk
    conninfo: str
    state: str

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo) as connection:
            found = connection.execute(query.encode(), given)
            return found.fetchall() if found.description else []

    def one(self, query: str, *given: Any) -> Any:
        return self.rows(query, *given)[0][0]

    def checked(self, batch: str = OLDEST) -> StepRecord:
        """Check a batch and keep the record, as a task does."""
        record = review.check(self.desk, batch)
        with self.desk.state.begin() as conn:
            record_step(conn, self.desk.dag_id, self.desk.run_id, record, self.desk.clock)
        return record

    def answered(
        self, checked: StepRecord, option: str = "Approve", user: str | None = REVIEWER, **more: Any
    ) -> StepRecord:
        given = {
            "reason": "forms are incomplete",
            "at": NOW,
            "content": content_of(self.desk.state, checked),
        }
        return review.take(self.desk, checked, option=option, user=user, **given | more)

    def states(self, batch: str = OLDEST) -> dict[str, int]:
        query = "SELECT status, count(*) FROM intake_record WHERE batch_id = %s GROUP BY 1"
        return dict(self.rows(query, batch))

    def later(self, **span: int) -> Desk:
        """The desk of another run, later."""
        clock = FixedClock(self.desk.clock.now() + timedelta(**span))
        return replace(self.desk, clock=clock, run_id="later")


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a loaded courier that databases are copied from."""
    with fresh(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            load(connection, customers=300, as_of=NOW)
        yield name


@pytest.fixture
def rig(postgres: EmbeddedPostgres, template: str, migrated_database: str) -> Iterator[Rig]:
    """A fresh courier and an empty state database."""
    with fresh(postgres, template) as name:
        conninfo = postgres.conninfo(name)
        state = pooled(migrated_database)
        yield Rig(desk_of(conninfo, state), conninfo, migrated_database)
        state.dispose()


@pytest.fixture
def run_of_tasks(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Dag id and run id of a run whose tasks work on the courier of ``rig``."""
    from include.orchestration import intake

    key = rig.desk.dag_id, rig.desk.run_id
    pack = SimpleNamespace(intake_rule=lambda _rule: None)
    in_task(monkeypatch, key, rig.desk.state, rig.desk.clock, pack=pack)
    monkeypatch.setattr(intake, "_desk", lambda *_: rig.desk)
    return key


def desk_of(conninfo: str, state: Engine) -> Desk:
    """The desk of the shipped pack on a courier."""
    pack = load_pack(SHIPPED)
    (rule,) = pack.intake
    (suite,) = pack.suites_of("courier", incoming=True)
    incoming = Incoming(rule, pack.database_of(rule.collection, rule.database))
    address = DatabaseAddress.from_conninfo(conninfo)
    return Desk(
        incoming=incoming,
        reader=address,
        writer=address,
        state=state,
        clock=FixedClock(NOW),
        dag_id="review_intake",
        run_id="run",
        checkers=[SuiteChecks(incoming, suite.expectations), OwnChecks(incoming)],
    )


def keyed_by_phone(incoming: Incoming) -> Incoming:
    """The same table as if a phone number were its primary key."""
    collection = incoming.collection
    fields = {
        name: one.model_copy(update={"primary_key": name == "phone"})
        for name, one in collection.fields.items()
    }
    collections = {
        **incoming.database.collections,
        collection.name: collection.model_copy(update={"fields": fields}),
    }
    database = incoming.database.model_copy(update={"collections": collections})
    return replace(incoming, database=database)
