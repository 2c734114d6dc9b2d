"""Fixtures for incident tests. Tests of a module share a state database, but not incidents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from tests.incident.evidence.extract_fixtures import run
from tests.incident.incident_fixtures import TABLES, Company
from tests.support.databases import pooled, temporary_database


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Provide a state database."""
    with temporary_database(postgres, migrated_once) as name:
        engine = pooled(postgres.conninfo(name))
        yield engine
        engine.dispose()


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """Provide a transaction that is rolled back after the test."""
    with state.connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture(scope="module")
def address(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    """Provide a database with the tables of the sample company in `incident_fixtures`."""
    with temporary_database(postgres) as name:
        database = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        run(database, TABLES)
        yield database


@pytest.fixture
def company(state: Engine, address: DatabaseAddress, tmp_path: Path) -> Company:
    """Provide the sample company on the night of an incident.

    Its state database contains the incidents of earlier tests.
    """
    return Company(state, address, tmp_path)
