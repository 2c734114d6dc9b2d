"""One company, shown by one API server with FAB, for all tests of the pages."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from include.local.postgres import EmbeddedPostgres
from tests.e2e.browsing import chromium
from tests.plugins.browsing import OFFICER, People, ask
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
        everybody_at_once = {"AIRFLOW__FAB__AUTH_RATE_LIMITED": "False"}  # 5 in 40 s from one place
        with fab_airflow(postgres, folder, {**made.environment, **everybody_at_once}) as airflow:
            yield Shown(airflow, made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    expect.set_options(timeout=30_000)  # a slow moment of a busy machine is no finding
    with chromium() as made:
        yield made


@pytest.fixture(scope="package")
def people(browser: Browser, shown: Shown) -> People:
    """Who looks at the pages; a question waits for one of them."""
    ask(shown, OFFICER, "waiting")
    return People(browser, shown)
