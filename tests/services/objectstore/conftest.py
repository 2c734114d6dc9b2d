"""Provide one moto server for the test session, and the stores on which shared tests run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
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


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Return a store. A test with this fixture runs once for each kind of store."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - S3's lock follows the real clock
