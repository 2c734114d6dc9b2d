"""Fixtures: a database with an access log, a directory store, and S3 behind a faulty proxy."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.incident.evidence.extract_fixtures import FILL, WIDE, run
from tests.support.databases import temporary_database
from tests.support.faulty_proxy import FaultyProxy
from tests.support.s3 import MotoServer, client_for, new_bucket, start_moto


@pytest.fixture(scope="module")
def source(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    """Provide the database with the access log. Tests only read it."""
    with temporary_database(postgres) as name:
        address = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        run(address, FILL)
        run(address, f"ALTER DATABASE {name} SET timezone = 'Asia/Shanghai'")
        run(address, f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
        yield address


@pytest.fixture(scope="module")
def wide(source: DatabaseAddress) -> DatabaseAddress:
    """Provide the database of `source` with an additional log of 37 MB."""
    run(source, WIDE)
    return source


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


@functools.cache
def moto() -> MotoServer:
    """Provide an S3 server. All modules share it, because it takes three seconds to start."""
    server = start_moto()
    atexit.register(server.stop)
    return server


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    with FaultyProxy(moto().endpoint) as faulty_proxy:
        yield faulty_proxy


@pytest.fixture
def s3(proxy: FaultyProxy) -> S3Store:
    client = client_for(proxy.endpoint, max_attempts=2)
    return S3Store(client, new_bucket(client))


@pytest.fixture(params=["store", "s3"])
def any_store(request: pytest.FixtureRequest) -> ObjectStore:
    store: ObjectStore = request.getfixturevalue(request.param)
    return store
