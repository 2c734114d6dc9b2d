"""Fixtures for quality checks: a small company with its databases for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quality.support import Company


@pytest.fixture
def state(migrated_database: str) -> str:
    """Provide a migrated state database without records."""
    return migrated_database


@pytest.fixture
def company(database: str, state: str, tmp_path: Path) -> Company:
    """Provide a company whose records meet all expectations."""
    return Company.make(database, state, tmp_path / "pack")
