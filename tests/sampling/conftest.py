"""A shop and a state database, once per module; each test begins as if it were the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.tables import metadata
from tests.sampling.closed import Audit
from tests.sampling.rig import Rig, new_rig
from tests.support.databases import fresh
from tests.support.registers import emptying


@pytest.fixture(scope="module")
def shop(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A shop that a module shares."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture
def rig(shop: Rig) -> Iterator[Rig]:
    """The shop at its beginning, with an evidence store of its own."""
    pack, root, folder = shop.pack, shop.root, shop.folder
    shop.empty()
    shop.root = root.parent / f"evidence-{len(list(root.parent.iterdir()))}"
    shop.root.mkdir()
    yield shop
    shop.pack, shop.root, shop.folder = pack, root, folder


@pytest.fixture(scope="module")
def state_database(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    """The connection string of a state database that a module shares."""
    with fresh(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture
def state(state_database: str) -> Engine:
    """An empty state database."""
    made = engine(state_database)
    with made.begin() as conn:
        conn.exec_driver_sql(emptying(metadata.tables))
    return made


@pytest.fixture
def audit(state: Engine) -> Audit:
    """A draw of two populations, one of them in stages, that was issued."""
    return Audit(state)
