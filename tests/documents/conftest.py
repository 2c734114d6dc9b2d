from __future__ import annotations

from tests.reports.conftest import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]  # skips tests of PDF files if PDF cannot be rendered
