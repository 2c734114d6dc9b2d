"""The history of checks: the trend in reports, and the state that the next check needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.quality import history
from include.quality.collection import CollectionCheck
from include.registry import load_pack
from tests.policy.packs import write_pack
from tests.quality.support import MAP, Company, suite


@pytest.fixture
def company_with_aborted_check(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """Provide a company whose second check raised an error.

    The evidence of this check is sealed.
    """
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2)")
    company.check()
    with monkeypatch.context() as patched:
        patched.setattr(CollectionCheck, "_check", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            company.check()
    company.seal()
    return company


def test_quality_trend_has_no_value_for_a_check_in_which_an_expectation_was_not_checked(
    company: Company,
) -> None:
    """Without the gap, an expectation that could not be checked would look like an improvement."""
    company.do("UPDATE person SET name = '' WHERE id <= 2")
    company.check()
    company.do("ALTER TABLE person DROP COLUMN phone")
    company.check()
    with company.state.connect() as conn:
        assert [run.broken for run in history.trend(conn, "shop")] == [2, None]


def test_quality_trend_has_no_value_for_an_aborted_check(
    company_with_aborted_check: Company,
) -> None:
    company_with_aborted_check.check()
    with company_with_aborted_check.state.connect() as conn:
        assert [run.broken for run in history.trend(conn, "shop")] == [2, None, 2]


def test_check_after_aborted_check_is_full(company_with_aborted_check: Company) -> None:
    """The stated reason must be the aborted check, and not a changed expectation."""
    reason = company_with_aborted_check.collection(company_with_aborted_check.check())[
        "whole_because"
    ]
    assert reason["text"] == "the last check did not finish"


def test_table_that_was_emptied_after_an_aborted_check_is_reported(
    company_with_aborted_check: Company,
) -> None:
    company_with_aborted_check.do("TRUNCATE person, consent")
    assert "quality.emptied" in {
        finding.code for finding in company_with_aborted_check.check().record.findings
    }


def test_quality_trend_has_no_value_if_table_is_missing_when_aborted_check_is_retried(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table was renamed before the retry, so the retry could not check it."""
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2)")
    company.check()
    with monkeypatch.context() as patched:
        patched.setattr(CollectionCheck, "_check", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            company.check()
    company.runs -= 1  # a second attempt of the same run
    company.do("ALTER TABLE person RENAME TO gone")
    company.check()
    with company.state.connect() as conn:
        assert [run.broken for run in history.trend(conn, "shop")] == [2, None]


def test_quarantine_entries_are_opened_again_if_removed_expectations_are_added_again(
    company: Company, tmp_path: Path
) -> None:
    """The quarantine entries were closed when the expectations were removed.

    They must be opened again, because the records still break the expectations.
    """
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2)")
    company.check()
    original_pack = company.pack
    replacement = suite(
        "consent", filled="expect_column_values_to_not_be_null, kwargs: {column: id}"
    )
    company.pack = load_pack(
        write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=replacement)
    )
    company.check()
    assert company.open() == {}
    company.pack = original_pack
    company.check()
    assert company.open() == {"named": {'["1"]', '["2"]'}}
