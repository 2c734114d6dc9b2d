"""Fixtures: a company and a state database per module, reset for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.tables import metadata
from tests.sampling.audit_fixtures import Audit
from tests.sampling.company import Company, new_company
from tests.support.databases import temporary_database
from tests.support.registers import emptying


@pytest.fixture(scope="module")
def shop(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Company]:
    """Provide the company that the tests of a module share."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("shop")) as company:
        yield company


@pytest.fixture
def company(shop: Company) -> Iterator[Company]:
    """Provide the company after a reset, with a separate evidence store."""
    pack, root, folder = shop.pack, shop.root, shop.folder
    shop.reset()
    shop.root = root.parent / f"evidence-{len(list(root.parent.iterdir()))}"
    shop.root.mkdir()
    yield shop
    shop.pack, shop.root, shop.folder = pack, root, folder


@pytest.fixture(scope="module")
def state_database(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    """Provide the connection string of a state database that the tests of a module share."""
    with temporary_database(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture
def state(state_database: str) -> Engine:
    """Provide an empty state database."""
    database = engine(state_database)
    with database.begin() as conn:
        conn.exec_driver_sql(emptying(metadata.tables))
    return database


@pytest.fixture
def audit(state: Engine) -> Audit:
    """Provide the issued workpapers of two populations, one of which has a staged plan."""
    return Audit(state)
