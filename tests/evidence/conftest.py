"""Fixtures: an empty, migrated state database, and copies of a sealed chain of bundles."""

from __future__ import annotations

import functools
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from include.evidence import ledger
from include.evidence.control_index import fill_index
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.local.postgres import EmbeddedPostgres
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import evidence_ledger, metadata
from tests.evidence.register_fixtures import Company
from tests.evidence.support import Evidence
from tests.support.databases import pooled
from tests.support.registers import emptying
from tests.support.s3 import MotoServer


@pytest.fixture(scope="session")
def migrated(postgres: EmbeddedPostgres) -> str:
    name = f"state_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(engine(postgres.conninfo(name)))
    return postgres.conninfo(name)


@pytest.fixture(scope="session")
def endpoint(moto: MotoServer) -> str:
    """Return the URL of an S3 server."""
    return moto.endpoint


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer.from_pem(generate_key())


@functools.cache
def kept_engine(conninfo: str) -> Engine:
    """Return the engine of a database, which all tests share. Its connections stay open.

    Args:
        conninfo: connection string of the database.
    """
    return pooled(conninfo, checked=True)


@contextmanager
def open_evidence(migrated: str, signer: Signer, root: Path) -> Iterator[Evidence]:
    db = kept_engine(migrated)
    with db.begin() as conn:
        conn.exec_driver_sql(emptying(metadata.tables))  # those of all imported modules
    with db.connect() as conn:
        yield Evidence(DirectoryStore(root), root, db, conn, signer, migrated)


@pytest.fixture
def evidence(migrated: str, signer: Signer, tmp_path: Path) -> Iterator[Evidence]:
    """Yield an empty evidence store with an empty state database."""
    root = tmp_path / "evidence store"
    root.mkdir()
    with open_evidence(migrated, signer, root) as made:
        yield made


@pytest.fixture(scope="session")
def sealed_once(
    migrated: str, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[ledger.LedgerRow]]:
    """Return the folder of an evidence store with three sealed bundles, and their ledger rows.

    The bundles belong to two workflows and to runs of two months.
    """
    root = tmp_path_factory.mktemp("sealed")
    with open_evidence(migrated, signer, root) as made:
        made.seal(1)
        made.seal(2, dag_id="drill_restore")
        made.seal(10)
        return root, ledger.rows(made.conn)


@pytest.fixture
def chain(sealed_once: tuple[Path, list[ledger.LedgerRow]], evidence: Evidence) -> Evidence:
    """Return an evidence store with three sealed bundles, which a test may damage."""
    folder, rows = sealed_once
    shutil.copytree(folder, evidence.root, dirs_exist_ok=True)
    evidence.execute(evidence_ledger.insert().values([vars(row) for row in rows]))
    fill_index(evidence.store, evidence.conn, TrustedKeys([evidence.signer.public_pem]))
    return evidence


@pytest.fixture
def company(evidence: Evidence) -> Company:
    """Return a company with two legal holds. Both are in the figures of one sealed bundle."""
    company = Company(evidence, evidence.engine)
    company.hold()
    company.hold()
    company.seal()
    return company
