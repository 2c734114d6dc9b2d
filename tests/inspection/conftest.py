"""Fixtures: an evidence store with sealed bundles, from which tests create inspection packs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence.conftest import evidence, migrated, signer
from tests.evidence.support import Evidence
from tests.inspection.support import PackMaker

__all__ = ["evidence", "migrated", "signer"]


@pytest.fixture
def maker(evidence: Evidence, tmp_path: Path) -> PackMaker:
    """Return an object that seals bundles and creates packs. The evidence store is empty."""
    folder = tmp_path / "packs"
    folder.mkdir()
    return PackMaker(evidence, folder)
