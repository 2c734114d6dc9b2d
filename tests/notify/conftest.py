"""A state database that the tests of a module share, and a mail server for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from tests.notify.rig import Post
from tests.support.databases import fresh
from tests.support.robots import RobotServer
from tests.support.smtp import Smtp


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    with fresh(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture
def state(shared: str) -> Engine:
    made = engine(shared)
    with made.begin() as conn:
        conn.execute(
            text("TRUNCATE notice, notice_message, notice_optout, notice_text RESTART IDENTITY")
        )
    return made


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
