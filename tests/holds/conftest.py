"""Fixtures: a state database for the register of legal holds, created once for each session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, Engine

from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import legal_hold
from tests.support.registers import UNGUARDED


@pytest.fixture(scope="session")
def holds_conninfo(postgres: EmbeddedPostgres) -> str:
    """Connection string of a migrated state database."""
    name = f"holds_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    conninfo = postgres.conninfo(name)
    migrate(engine(conninfo))
    return conninfo


@pytest.fixture
def state(holds_conninfo: str) -> Iterator[Engine]:
    """A state database without legal holds."""
    state_engine = engine(holds_conninfo)
    yield state_engine
    with state_engine.begin() as conn:
        conn.exec_driver_sql(UNGUARDED)
        conn.execute(legal_hold.delete())


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """A connection to the state database; its transaction is rolled back after the test."""
    with state.connect() as connection:
        yield connection
        connection.rollback()
