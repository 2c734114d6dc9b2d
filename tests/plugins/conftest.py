"""Fixtures of the browser tests: a Chromium browser and logged-in users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.browsing import chromium
from tests.plugins.browsing import OFFICER, People, ask
from tests.plugins.pages_server import PagesServer


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium for all tests of the session."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def people(browser: Browser, pages_server: PagesServer) -> People:
    """Return users of all roles. A required action waits for the officer."""
    ask(pages_server, OFFICER, "waiting")
    return People(browser, pages_server)
