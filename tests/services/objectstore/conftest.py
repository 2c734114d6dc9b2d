"""One moto server for the session, and each kind of store for the shared behaviour suite."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from include.local.postgres import EmbeddedPostgres
from include.services.clock import SystemClock
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.sandbox import open_sandbox
from include.state.sandbox_objects import sandbox_object, sandbox_upload
from include.state.sandbox_store import SandboxStore
from tests.support.databases import fresh
from tests.support.s3 import MotoServer, client_for, new_bucket


@pytest.fixture
def s3_store(moto: MotoServer) -> S3Store:
    client = client_for(moto.endpoint)
    return S3Store(client, new_bucket(client), "off site/备份", site="shanghai")


@pytest.fixture
def directory_store(tmp_path: Path) -> DirectoryStore:
    root = tmp_path / "store"
    root.mkdir()
    return DirectoryStore(root, site="shanghai")


@pytest.fixture(scope="session")
def drilled(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """The state of a drill, which the tests of its stores share."""
    with fresh(postgres, migrated_once) as name:
        began = datetime(2026, 11, 26, tzinfo=UTC)
        yield open_sandbox(postgres.conninfo(name), "d", "r", began, lambda _conn: None)


@pytest.fixture
def sandbox_store(drilled: Engine) -> SandboxStore:
    with drilled.begin() as conn:
        conn.execute(sandbox_object.delete())
        conn.execute(sandbox_upload.delete())
    return SandboxStore(drilled, "offsite_store", SystemClock(), site="shanghai")


@pytest.fixture(params=["directory", "s3", "sandbox"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Each test that takes this runs against every kind."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - S3's lock follows the real clock
