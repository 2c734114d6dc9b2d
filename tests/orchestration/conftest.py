"""Tests of this folder seal runs without PDF files; tests/e2e makes those of each workflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.without_pdf import without_pdf


@pytest.fixture(autouse=True)
def reports_without_pdf() -> Iterator[None]:
    """Leave PDF files out during a test; what tests of other folders share keeps them."""
    with without_pdf():
        yield
