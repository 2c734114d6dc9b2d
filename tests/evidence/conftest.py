"""A migrated state database is a copy of one made once; stores are fresh folders."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include.evidence.signing import Signer, generate_key
from include.local.postgres import EmbeddedPostgres
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.state.migrate import migrate
from tests.evidence.support import Evidence


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    name = f"template_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(engine(postgres.conninfo(name)))
    return name


@pytest.fixture
def state(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The connection string of a migrated, empty state database."""
    name = f"s_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        yield postgres.conninfo(name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "evidence.pem"
    path.write_bytes(generate_key())
    return path


@pytest.fixture
def evidence(state: str, tmp_path: Path, pem: Path) -> Iterator[Evidence]:
    root = tmp_path / "evidence store"
    root.mkdir()
    db = engine(state)
    with db.connect() as conn:
        signer = Signer.from_pem(pem.read_bytes())
        yield Evidence(DirectoryStore(root), root, db, conn, signer, state)


@pytest.fixture
def chain(evidence: Evidence) -> Evidence:
    """Three bundles of two workflows and two months."""
    evidence.seal(1)
    evidence.seal(2, dag_id="drill_restore")
    evidence.seal(10)
    return evidence
