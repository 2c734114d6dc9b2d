"""A company of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quality.support import Company


@pytest.fixture
def state(migrated_database: str) -> str:
    """A database for the state, without a record."""
    return migrated_database


@pytest.fixture
def company(database: str, state: str, tmp_path: Path) -> Company:
    """The company, all of whose records are good."""
    return Company.make(database, state, tmp_path / "pack")
