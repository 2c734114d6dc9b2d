from __future__ import annotations

import pytest

from include.reports.render import pdf_unavailable_reason


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip PDF tests on machines that cannot make PDF files, and give the reason that users get.

    The CI installs the required libraries and fonts.
    """
    if not any(item.get_closest_marker("pdf") for item in items):
        return
    if reason := pdf_unavailable_reason():
        for item in items:
            if item.get_closest_marker("pdf"):
                item.add_marker(pytest.mark.skip(reason=reason))
