"""One Chromium for all tests of the pages; the server is that of tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.browsing import chromium
from tests.plugins.browsing import OFFICER, People, ask
from tests.plugins.shown import Shown


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with chromium() as made:
        yield made


@pytest.fixture(scope="package")
def people(browser: Browser, shown: Shown) -> People:
    """Who looks at the pages; a question waits for one of them."""
    ask(shown, OFFICER, "waiting")
    return People(browser, shown)
