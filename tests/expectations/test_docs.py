"""Tests that Data Docs show expectations and counts, and no values of records."""

from __future__ import annotations

from pathlib import Path

from include.expectations.docs import data_docs
from tests.quality.conftest import company as company
from tests.quality.conftest import state as state
from tests.quality.support import Company

CANARY = "CANARY-13812345"


def test_data_docs_page_shows_expectations_and_no_values_of_records(
    company: Company, tmp_path: Path
) -> None:
    company.do(f"UPDATE person SET phone = '{CANARY}', name = '' WHERE id <= 3")
    checked = company.check()
    page = data_docs("shop.person", checked.results["person"], "run-1", company.at).decode()
    assert "expect_column_values_to_be_mobile_numbers" in page
    assert CANARY not in page
    assert "Person 4" not in page
