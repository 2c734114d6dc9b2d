"""Fixtures of the orchestration tests, whose bundles have no PDF files.

Only tests/e2e renders PDF.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.without_pdf import without_pdf


@pytest.fixture(autouse=True)
def reports_without_pdf() -> Iterator[None]:
    """Omit PDF files during a test of this folder; fixtures shared with other folders keep them."""
    with without_pdf():
        yield
