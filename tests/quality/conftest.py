"""A company of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include.local.postgres import EmbeddedPostgres
from tests.quality.support import Company


@pytest.fixture
def state(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database for the state."""
    name = f"s_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgres.conninfo(name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def company(database: str, state: str, tmp_path: Path) -> Company:
    """The company, all of whose records are good."""
    return Company.make(database, state, tmp_path / "pack")
