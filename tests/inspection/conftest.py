"""Fixtures: an evidence store, inspection packs, and a reader of verify.html in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from include.evidence.signing import Signer
from tests.e2e.browsing import chromium
from tests.evidence.conftest import evidence, migrated, open_evidence, signer
from tests.evidence.support import Evidence
from tests.inspection.inspector import Inspector
from tests.inspection.support import PackMaker
from tests.support.without_pdf import without_pdf

__all__ = ["evidence", "migrated", "signer"]


@pytest.fixture(autouse=True)
def _without_pdf_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip the conversion to PDF, which takes most of the time, except in tests marked `pdf`."""
    with nullcontext() if request.node.get_closest_marker("pdf") else without_pdf():
        yield


@pytest.fixture
def maker(evidence: Evidence, tmp_path: Path) -> PackMaker:
    """Return an object that seals bundles and creates packs. The evidence store is empty."""
    folder = tmp_path / "packs"
    folder.mkdir()
    return PackMaker(evidence, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def inspector(browser: Browser) -> Inspector:
    return Inspector(browser)


@pytest.fixture(scope="module")
def packed(migrated: str, signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pack with three bundles of a quarter, and its ZIP file beside it."""
    root = tmp_path_factory.mktemp("evidence")
    with open_evidence(migrated, signer, root) as evidence:
        maker = PackMaker(evidence, tmp_path_factory.mktemp("packs"))
        maker.quarter()
        return maker.unpacked(maker.pack())


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    """Return a copy of the pack, which a test may change."""
    shutil.copy(packed.parent / "pack.zip", tmp_path)
    return Path(shutil.copytree(packed, tmp_path / "unpacked"))
