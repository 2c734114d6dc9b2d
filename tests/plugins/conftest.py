"""One company, shown by one API server with FAB, for all tests of the pages."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.plugins.company import Company, company
from tests.plugins.shown import Shown
from tests.support.fab import fab_airflow


@pytest.fixture(scope="package")
def made(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Company]:
    """The company, which no test changes but for a moment."""
    root = Path(tempfile.mkdtemp(prefix="parcelseal-company-"))
    try:
        with company(postgres, migrated_once, root) as found:
            yield found
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="package")
def shown(postgres: EmbeddedPostgres, made: Company) -> Iterator[Shown]:
    """The pages that show it."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-pages-"))
    try:
        with fab_airflow(postgres, folder, made.environment) as airflow:
            yield Shown(airflow, made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
