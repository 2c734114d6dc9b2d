"""Reasons for a full check instead of an incremental check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from include.quality import check as checks
from include.quality import collection as collections
from include.quality import history, incremental, watermark
from include.registry import load_pack
from include.service_container import ROOT
from tests.policy.packs import write_pack
from tests.quality import support
from tests.quality.support import CHANGED, MAP, SUITE, Company, reason, suite, untraced

FILLED = "expect_column_values_to_not_be_null, kwargs: {column: name}"


def test_database_restored_to_an_older_state_gets_a_full_check(
    company: Company,
) -> None:
    """The newest value in the restored database's change column is older than the watermark."""
    company.do("UPDATE person SET name = 'Ada' WHERE id = 3")
    company.check()
    untraced(
        company,
        "UPDATE person SET name = '', updated_at = '2026-01-31' WHERE id = 3",
    )
    assert reason(company).startswith("all values of the column {column} are older")
    assert company.open() == {"named": {'["3"]'}}


@pytest.mark.parametrize(
    ("before", "check", "expected"),
    [
        ("SELECT 1", {"full": True}, "a full check was requested"),
        ("SELECT 1", {"days": 7}, "a full check is due every seven days"),
        ("SELECT 1", {"days": -2}, "the system clock was set back since the last check"),
        ("VACUUM FULL person", {}, "the table was rewritten, altered, emptied or restored"),
        ("TRUNCATE person CASCADE", {}, "the column {column} has no values"),
        (
            "ALTER TABLE person DROP COLUMN email, ADD email text",
            {},
            "the table was rewritten, altered, emptied or restored",
        ),
        ("ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE", {}, "the table has no primary"),
        ("UPDATE person SET name = name", {}, "more than {limit} records are new or changed"),
        (
            "DROP INDEX person_updated_at_idx",
            {},
            "no index of the table starts with the column {column}",
        ),
        (
            "ALTER TABLE person ALTER updated_at TYPE text USING 'x'",
            {},
            "the column {column} is not a timestamp, date or whole number",
        ),
        (
            "ALTER TABLE person ALTER updated_at TYPE bigint USING 7",
            {},
            "the margin for late arrivals does not suit",
        ),
        ("ALTER TABLE person RENAME updated_at TO at", {}, "the table has no column {column}"),
        ("CREATE TABLE old () INHERITS (person)", {}, "the table is a view or foreign table"),
    ],
)
def test_check_result_contains_the_reason_why_the_check_was_full(
    company: Company, before: str, check: dict[str, Any], expected: str
) -> None:
    """The recorded reason explains to readers why the check took longer."""
    assert reason(company) == "no sealed evidence of an earlier check exists"
    assert company.collection(company.check())["whole_because"] is None
    with psycopg.connect(company.conninfo, autocommit=True) as connection:
        if before.startswith("ALTER TABLE person ALTER updated_at"):
            connection.execute("ALTER TABLE person ALTER updated_at DROP DEFAULT")
        connection.execute(before.encode())
    assert reason(company, **check).startswith(expected)


def test_every_check_is_full_if_policy_pack_states_no_change_column(
    database: str, state: str, tmp_path: Path
) -> None:
    """The result states the reason for each full check."""
    rules = suite(filled=FILLED).replace(CHANGED, "")
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    for _ in range(2):
        assert reason(company) == "the policy pack names no change column"


@pytest.mark.parametrize(
    ("index", "incremental_run"),
    [
        ("CREATE INDEX ON person (updated_at) WHERE id > 5", False),
        ("CREATE INDEX ON person USING brin (updated_at)", False),
        ("CREATE INDEX ON person (name, updated_at)", False),
        ("CREATE INDEX ON person ((updated_at))", True),
        ("CREATE INDEX ON person (updated_at DESC, name)", True),
    ],
)
def test_check_is_incremental_only_if_a_complete_btree_index_begins_with_the_change_column(
    company: Company, index: str, incremental_run: bool
) -> None:
    """A partial index, for example, contains only some of the records."""
    company.do("DROP INDEX person_updated_at_idx", index)
    company.check()
    assert company.collection(company.check())["whole"] is not incremental_run


@pytest.mark.parametrize("parts", ["both", "one"])
def test_check_is_incremental_only_if_every_partition_has_an_index_on_the_change_column(
    database: str, state: str, tmp_path: Path, parts: str
) -> None:
    """Without the index, PostgreSQL would read all records of a partition."""
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(filled=FILLED))
    company.do(
        "CREATE TABLE kept AS TABLE person",
        "DROP TABLE consent, person",
        "CREATE TABLE consent (id bigint PRIMARY KEY, person_id bigint, purpose text)",
        "CREATE TABLE person (LIKE kept, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        "CREATE TABLE person_1 PARTITION OF person FOR VALUES FROM (1) TO (20)",
        "CREATE TABLE person_2 PARTITION OF person FOR VALUES FROM (20) TO (99)",
        "CREATE INDEX ON person_1 (updated_at)",
        "INSERT INTO person TABLE kept",
        "DROP TABLE kept",
    )
    if parts == "both":
        company.do("CREATE INDEX ON person_2 (updated_at)")
    company.check()
    company.do("UPDATE person SET name = NULL, updated_at = now() WHERE id IN (3, 30)")
    assert company.collection(company.check())["whole"] is (parts == "one")
    assert company.open() == {"filled": {'["3"]', '["30"]'}}
    company.do("CREATE TABLE person_3 PARTITION OF person FOR VALUES FROM (99) TO (200)")
    company.do("CREATE INDEX ON person_3 (updated_at)", "INSERT INTO person (id) VALUES (100)")
    company.do("UPDATE person SET updated_at = now() WHERE id = 100")
    assert company.collection(company.check())["whole"] is (parts == "one")
    assert company.open() == {"filled": {'["3"]', '["30"]', '["100"]'}}


def test_watermark_of_incremental_checks_advances_only_after_evidence_of_check_is_sealed(
    company: Company,
) -> None:
    """The next check examines again the records that an unsealed run examined."""
    company.check()
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check(sealed=False)
    with company.state.begin() as conn:  # as if the run's own entries had been lost with it
        conn.execute(text("DELETE FROM quarantine"))
    company.check()
    assert company.open() == {"named": {'["3"]'}}


@pytest.mark.parametrize("killed", ["before the figures", "before the seal", "before the register"])
def test_check_after_a_killed_check_is_full(
    company: Company, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """The process is killed at each possible point, with or without a retry of the task."""
    company.check()
    untraced(company, "UPDATE person SET name = '' WHERE id = 3")
    if killed == "before the seal":
        company.check(sealed=False)
    else:
        module, name = (
            (checks.history, "record")
            if killed == "before the figures"
            else (collections.register.Stage, "enter")
        )
        with monkeypatch.context() as patched:
            patched.setattr(module, name, lambda *_a, **_k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                company.check(sealed=False)
    assert company.collection(company.check())["whole"]
    assert company.open() == {"named": {'["3"]'}}
    assert not company.collection(company.check())["whole"]


def test_check_is_full_if_the_evidence_ledger_lost_the_row_of_the_last_run(
    company: Company,
) -> None:
    """An evidence ledger from an older backup has no row of the run that stored the watermark."""
    company.check()
    company.check()
    with company.state.begin() as conn:
        conn.execute(text("ALTER TABLE evidence_ledger DISABLE TRIGGER USER"))
        conn.execute(text("DELETE FROM evidence_ledger WHERE run_id = 'run-2'"))
    assert reason(company) == "after the last check with sealed evidence, another check started"


def test_second_attempt_of_run_examines_records_of_first_attempt_again(company: Company) -> None:
    """The watermark of the first attempt must not hide changes before the second attempt."""
    company.check()
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    company.do("UPDATE person SET name = '' WHERE id = 4")
    company.runs -= 1
    company.check(sealed=False)
    assert company.open() == {"named": {'["3"]', '["4"]'}}


def test_check_is_full_after_an_unsealed_run_with_other_expectations(
    database: str, state: str, tmp_path: Path
) -> None:
    """The unsealed run resolved entries of other expectations, even if it stored no results."""
    strict = "expect_column_value_lengths_to_be_between, kwargs: {{column: name, min_value: {}}}"
    company = Company.make(
        database, state, tmp_path / "p", quality__person=suite(long=strict.format(9))
    )
    lenient = load_pack(
        write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=suite(long=strict.format(1)))
    )
    company.check()
    assert len(company.open()["long"]) == 9
    for killed in (False, True):
        strict_pack, company.pack = company.pack, lenient
        company.check(sealed=False)
        assert company.open() == {}
        if killed:  # killed before it recorded its results
            with company.state.begin() as conn:
                conn.execute(
                    text("DELETE FROM quality_check WHERE run_id = :run AND rule <> 'all records'"),
                    {"run": f"run-{company.runs}"},
                )
        company.pack = strict_pack
        company.check()
        assert len(company.open()["long"]) == 9
    assert not company.collection(company.check())["whole"]


def test_check_is_full_after_an_expectation_changed(company: Company, tmp_path: Path) -> None:
    """A check is also full if an expectation was not checked, or if the change column changed."""
    company.check()

    def pack(name: str, old: str, new: str) -> None:
        files = {"datamap__shop": MAP, "quality__person": SUITE.replace(old, new)}
        company.pack = load_pack(write_pack(tmp_path / name, **files))

    pack("q", "P60D", "P59D")
    reason_message = company.collection(company.check())["whole_because"]
    assert reason_message["text"].startswith("the expectation “{title}” is new")
    assert reason_message["values"]["title"]["text"] == "Recent"
    company.do(
        "CREATE INDEX ON person (seen_at)",
        "UPDATE person SET seen_at = '2026-02-28' WHERE id < 4",
    )
    pack("r", "column: updated_at", "column: seen_at")
    company.check()
    pack("s", "column: updated_at", "column: seen_at")
    assert not company.collection(company.check())["whole"]
    pack("t", "PT1S", "PT2S")
    assert reason(company).startswith("the table was rewritten")
    company.do("ALTER TABLE person DROP COLUMN seen_at")
    company.check()
    reason_message = company.collection(company.check())["whole_because"]
    assert reason_message["text"].startswith("the last check could not check")


def test_first_check_by_another_program_version_is_full(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the code may judge unchanged records differently."""
    company.check()
    with monkeypatch.context() as patched:
        for module in (watermark, incremental):
            patched.setattr(module, "VERSION", "0" * 12)
        assert reason(company) == "the last check was made by another version of ParcelSeal"
        assert company.collection(company.check())["whole_because"] is None
    assert reason(company) == "the last check was made by another version of ParcelSeal"


def test_program_version_changes_with_release_number_and_content_of_code_files(
    tmp_path: Path,
) -> None:
    """A correction in the code that checks records must change the program version."""
    file = tmp_path / "conditions.py"
    file.write_text("a")
    before = watermark.version_of([file], "1.0")
    assert watermark.version_of([file], "1.1") != before
    file.write_text("b")
    assert watermark.version_of([file], "1.0") != before


def test_program_version_is_computed_from_every_module_that_evaluates_expectations() -> None:
    """After a correction in an omitted module, unchanged records would not be checked again."""
    folder = ROOT / "include" / "expectations"
    for name in watermark.JUDGING:
        imported = re.findall(
            r"^from include\.expectations\.(\w+) import", (folder / f"{name}.py").read_text(), re.M
        )
        assert set(imported) <= set(watermark.JUDGING), name


def test_check_is_full_after_pack_timezone_changed(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another timezone, a time may belong to another day, and expectations compare days."""
    company.check()
    monkeypatch.setattr(support, "TIMEZONE", "Asia/Shanghai")
    assert reason(company).startswith("the table was rewritten")
    assert company.collection(company.check())["whole_because"] is None


def test_check_is_full_if_last_check_had_too_many_records_for_the_quarantine_register(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The register lists only some of the records, so it cannot show which were corrected later."""
    for module in (collections, history):
        monkeypatch.setattr(module, "MOST_NAMED", 5)
    company.do("UPDATE person SET name = '' WHERE id <= 6")
    company.check()
    reason_message = company.collection(company.check())["whole_because"]
    assert reason_message["values"]["title"]["text"] == "Named"
    assert "not list all" in reason_message["text"]
    company.do("UPDATE person SET name = 'Ada' WHERE id = 1")
    company.check()
    assert len(company.open()["named"]) == 5
    assert company.collection(company.check())["whole_because"] is None
