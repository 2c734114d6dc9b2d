"""Fixtures: a state database that the tests of a module share, and a mail server per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from include.local.postgres import EmbeddedPostgres
from tests.notify.notify_fixtures import Post
from tests.support.databases import pooled, temporary_database
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    with temporary_database(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture(scope="module")
def kept(shared: str) -> Iterator[Engine]:
    """Provide the state database with pooled connections; these tests open four thousand."""
    engine = pooled(shared)
    yield engine
    engine.dispose()


@pytest.fixture
def state(kept: Engine) -> Engine:
    with kept.begin() as conn:
        conn.execute(
            text(
                "TRUNCATE notification, notification_message, notification_optout,"
                " notification_text RESTART IDENTITY"
            )
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
