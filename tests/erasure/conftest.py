"""Fixtures: a state database with an erasure ledger, and a database for a restored copy."""

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
    """A migrated state database, shared by all tests of the session."""
    name = f"state_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    state = engine(postgres.conninfo(name))
    migrate(state)
    return state


@pytest.fixture
def empty_ledger(ledger_state: Engine) -> None:
    """An empty erasure ledger at the start of the test."""
    with ledger_state.begin() as conn:
        conn.exec_driver_sql(emptying(["erasure", "erasure_batch"]))


@pytest.fixture
def ledger(ledger_state: Engine, empty_ledger: None) -> Iterator[Connection]:
    """A connection to an empty ledger; its transaction is rolled back after the test."""
    with ledger_state.connect() as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def copy(database: str) -> Iterator[psycopg.Connection]:
    """An empty database for a restored copy. The test creates its tables."""
    with psycopg.connect(database) as conn:
        yield conn
        conn.rollback()
