"""A state database for the ledger, made once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.migrate import migrate
from tests.support.registers import emptying


@pytest.fixture(scope="session")
def ledger_state(postgres: EmbeddedPostgres) -> Engine:
    name = f"state_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    made = engine(postgres.conninfo(name))
    migrate(made)
    return made


@pytest.fixture
def empty_ledger(ledger_state: Engine) -> None:
    """Nothing that another test entered is in the ledger."""
    with ledger_state.begin() as conn:
        conn.exec_driver_sql(emptying(["erasure", "erasure_batch"]))


@pytest.fixture
def ledger(ledger_state: Engine, empty_ledger: None) -> Iterator[Connection]:
    """A connection to an empty ledger; what the test enters is taken back."""
    with ledger_state.connect() as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def copy(database: str) -> Iterator[psycopg.Connection]:
    """A restored copy for the test to fill."""
    with psycopg.connect(database) as conn:
        yield conn
        conn.rollback()
