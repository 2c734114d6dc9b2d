"""A state database that the tests of a module share, and a mail server for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from include.local.postgres import EmbeddedPostgres
from tests.notify.rig import Post
from tests.support.databases import fresh, pooled
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    with fresh(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture(scope="module")
def kept(shared: str) -> Iterator[Engine]:
    """The database with connections that are kept: these tests alone open four thousand."""
    made = pooled(shared)
    yield made
    made.dispose()


@pytest.fixture
def state(kept: Engine) -> Engine:
    with kept.begin() as conn:
        conn.execute(
            text("TRUNCATE notice, notice_message, notice_optout, notice_text RESTART IDENTITY")
        )
    return kept


@pytest.fixture
def server() -> Iterator[Smtp]:
    with Smtp() as made:
        yield made


@pytest.fixture
def robots() -> Iterator[RobotServer]:
    with RobotServer() as made:
        yield made


@pytest.fixture
def post(state: Engine, server: Smtp) -> Post:
    return Post(state, server.port)
