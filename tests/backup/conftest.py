"""Provide the keys, databases and stores of the backup tests.

Those that take long to create are created once and shared by all tests.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from include.encryption.recipients import Recipient
from include.evidence.signing import Signer, generate_key
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import metadata
from tests.backup.support import RICH, Taken, take
from tests.support.databases import pooled
from tests.support.holders import NOW, offline, operations, recipients, stranger
from tests.support.registers import emptying
from tests.support.s3 import MotoServer, client_for, new_bucket

__all__ = ["offline", "operations", "recipients", "stranger"]

EMPTY = emptying(metadata.tables)


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer.from_pem(generate_key())


@pytest.fixture(scope="session")
def new_database(postgres: EmbeddedPostgres) -> Iterator[Callable[..., DatabaseAddress]]:
    """Create databases that are dropped at the end of the session."""
    databases = []

    def new(fill: str = "", name: str = "", options: str = "") -> DatabaseAddress:
        name = name or f"b_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} " + options).format(sql.Identifier(name))  # type: ignore[arg-type]
            )
        databases.append(name)
        address = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        if fill:
            with address.connect() as conn:
                conn.execute(fill)  # type: ignore[arg-type]
        return address

    yield new
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for name in databases:
            admin.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture
def source(database: str) -> DatabaseAddress:
    """Return the empty database of the test as the database to back up."""
    return DatabaseAddress.from_conninfo(database)


@pytest.fixture
def target(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    """Return an empty database into which a test restores."""
    name = f"r_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield DatabaseAddress.from_conninfo(postgres.conninfo(name))
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def server(postgres: EmbeddedPostgres) -> DatabaseAddress:
    return DatabaseAddress.from_conninfo(postgres.conninfo("postgres"))


@pytest.fixture(scope="session")
def rich(new_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    """Return a database that uses many features of PostgreSQL; tests only read it."""
    return new_database(RICH)


@pytest.fixture(scope="session")
def taken(
    rich: DatabaseAddress,
    tmp_path_factory: pytest.TempPathFactory,
    recipients: list[Recipient],
    signer: Signer,
) -> Taken:
    """Return a published restore point of the database ``rich``; tests only read it."""
    return take(rich, DirectoryStore(tmp_path_factory.mktemp("store")), recipients, signer)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    folder = tmp_path / "off site"
    folder.mkdir()
    return DirectoryStore(folder, site="shanghai")


@pytest.fixture(scope="session")
def migrated(new_database: Callable[..., DatabaseAddress]) -> Engine:
    conninfo = new_database().conninfo()
    migrate(engine(conninfo))
    return pooled(conninfo, checked=True)


@pytest.fixture
def state(migrated: Engine) -> Engine:
    """Return an empty state database."""
    with migrated.begin() as conn:
        conn.exec_driver_sql(EMPTY)
    return migrated


@pytest.fixture(params=["directory", "s3"])
def any_store(request: pytest.FixtureRequest, moto: MotoServer) -> ObjectStore:
    if request.param == "s3":
        client = client_for(moto.endpoint)
        return S3Store(client, new_bucket(client), "offsite", "shanghai")
    directory: DirectoryStore = request.getfixturevalue("store")
    return directory


@pytest.fixture(scope="session")
def tiny(new_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    return new_database(
        f"CREATE TABLE customer (id int, seen timestamptz); CREATE TABLE waybill (id int); "
        f"INSERT INTO customer VALUES (1, '{NOW}'), (2, NULL)"
    )
