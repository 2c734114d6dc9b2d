"""A state database for incidents, once per module; each test begins with none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from tests.incident.desk_rig import TABLES, Company
from tests.incident.evidence.extract_rig import run
from tests.support.databases import fresh, pooled


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """A state database."""
    with fresh(postgres, migrated_once) as name:
        made = pooled(postgres.conninfo(name))
        yield made
        made.dispose()


@pytest.fixture
def conn(state: Engine) -> Iterator[Connection]:
    """A transaction in it, of which nothing stays."""
    with state.connect() as made:
        yield made
        made.rollback()


@pytest.fixture(scope="module")
def address(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    """The tables of the small company of `desk_rig`."""
    with fresh(postgres) as name:
        found = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        run(found, TABLES)
        yield found


@pytest.fixture
def company(state: Engine, address: DatabaseAddress, tmp_path: Path) -> Company:
    """That company at night; incidents of tests before stay in its state."""
    return Company(state, address, tmp_path)
