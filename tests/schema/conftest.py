"""Fixtures: shared databases that the tests of this package only read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.sample_company import load
from tests.schema.support import scratch

AS_OF = datetime(2026, 2, 28, 19, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def courier(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """Provide the sample courier database with 3,000 customers."""
    with scratch(postgres) as connection:
        load(connection, customers=3000, as_of=AS_OF)
        connection.commit()
        yield connection


@pytest.fixture(autouse=True)
def _nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Roll back the transaction of the shared connection after each test."""
    yield
    if "courier" in request.fixturenames:
        request.getfixturevalue("courier").rollback()


@pytest.fixture(scope="session")
def chinook(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """Provide a part of the database of the Chinook music store."""
    script = (Path(__file__).parent / "chinook.sql").read_text(encoding="utf-8")
    with scratch(postgres, script) as connection:
        yield connection
