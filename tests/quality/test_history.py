"""What is kept of earlier checks: the trend, and what the next one may rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.quality import history
from include.quality.collection import CollectionCheck
from include.registry import load_pack
from tests.policy.packs import write_pack
from tests.quality.support import MAP, Company, suite


@pytest.fixture
def died(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """A company whose second check died while it looked; its evidence says so and is sealed."""
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2)")
    company.check()
    with monkeypatch.context() as patched:
        patched.setattr(CollectionCheck, "_check", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            company.check()
    company.seal()
    return company


def test_the_trend_has_whole_runs_and_gaps(company: Company) -> None:
    """The last thirty; a run in which a rule could not be checked is a gap, not an improvement."""
    company.do("UPDATE person SET name = '' WHERE id <= 2")
    company.check()
    company.do("ALTER TABLE person DROP COLUMN phone")
    company.check()
    with company.state.connect() as conn:
        assert [one.broken for one in history.trend(conn, "shop")] == [2, None]


def test_a_check_that_died_is_a_gap_in_the_trend(died: Company) -> None:
    """Nobody knows how many records were broken then; not none."""
    died.check()
    with died.state.connect() as conn:
        assert [one.broken for one in history.trend(conn, "shop")] == [2, None, 2]


def test_after_a_check_that_died_all_records_are_looked_at(died: Company) -> None:
    """And the report says that, instead of naming a rule that nobody changed."""
    because = died.collection(died.check())["whole_because"]
    assert because["text"] == "the last check of it did not end"


def test_a_table_that_was_emptied_after_a_check_that_died_had_records(died: Company) -> None:
    """The check before it found some."""
    died.do("TRUNCATE person, consent")
    assert "quality.emptied" in {one.code for one in died.check().record.findings}


def test_a_try_that_died_leaves_no_zero_in_the_trend(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the next try could not even begin: the table was gone by then."""
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2)")
    company.check()
    with monkeypatch.context() as patched:
        patched.setattr(CollectionCheck, "_check", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            company.check()
    company.runs -= 1  # the same run again
    company.do("ALTER TABLE person RENAME TO gone")
    company.check()
    with company.state.connect() as conn:
        assert [one.broken for one in history.trend(conn, "shop")] == [2, None]


def test_a_suite_that_comes_back_is_held_against_all_records(
    company: Company, tmp_path: Path
) -> None:
    """What was closed when it went is broken still."""
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2)")
    company.check()
    ours = company.pack
    other = suite("consent", filled="expect_column_values_to_not_be_null, kwargs: {column: id}")
    company.pack = load_pack(write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=other))
    company.check()
    assert company.open() == {}
    company.pack = ours
    company.check()
    assert company.open() == {"named": {'["1"]', '["2"]'}}
