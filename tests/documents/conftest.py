from __future__ import annotations

from tests.reports.conftest import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]  # PDF tests are skipped with the reason
