"""A sample database that tests share and do not change."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.local.postgres import EmbeddedPostgres
from include.sample_company import AnswerSheet, load

# At night in Shanghai, where it is already March, so that time of day and timezone matter.
AS_OF = datetime(2026, 2, 28, 19, 30, tzinfo=UTC)
CUSTOMERS = 6000


@dataclass
class Sample:
    """A loaded sample database and its answer sheet."""

    connection: psycopg.Connection[Any]
    sheet: AnswerSheet

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query, in which ``%(now)s`` is the time of the sample, and return its rows."""
        return self.connection.execute(query, {"now": AS_OF}).fetchall()


@pytest.fixture(scope="session")
def sample(postgres: EmbeddedPostgres) -> Iterator[Sample]:
    """A sample of 6,000 customers."""
    name = f"sample_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with psycopg.connect(postgres.conninfo(name), autocommit=True) as connection:
            sheet = load(connection, customers=CUSTOMERS, as_of=AS_OF)
            connection.execute("SET TimeZone = 'Asia/Shanghai'")
            connection.execute("SET default_transaction_read_only = on")
            yield Sample(connection, sheet)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
