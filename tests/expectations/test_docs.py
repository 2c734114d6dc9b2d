"""Data Docs: expectations and counts, and no value of a record."""

from __future__ import annotations

from pathlib import Path

from include.expectations.docs import data_docs
from tests.quality.conftest import company as company
from tests.quality.conftest import state as state
from tests.quality.support import Company

CANARY = "CANARY-13812345"


def test_a_page_holds_counts_and_no_value(company: Company, tmp_path: Path) -> None:
    """The broken value is nowhere in it; the expectation and its count are."""
    company.do(f"UPDATE person SET phone = '{CANARY}', name = '' WHERE id <= 3")
    done = company.check()
    page = data_docs("shop.person", done.results["person"], "run-1", company.at).decode()
    assert "expect_column_values_to_be_mobile_numbers" in page
    assert CANARY not in page
    assert "Person 4" not in page
