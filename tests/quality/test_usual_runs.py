"""Usual runs: they look at what may have changed, and find what a full run would."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from include.evidence.model import Outcome
from include.expectations import marks
from include.policy import load_pack
from include.quality import check as checks
from include.quality import collection, history
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Company, suite

LISTED = (
    SUITE
    + """\
    - {id: branch, type: expect_column_values_to_exist_in, kwargs: {column: branch_id, collection: branch, field: id}, severity: fail, clause: "4.1", title: {en: Branch, zh-CN: 分部}}
"""
)


def test_only_what_changed_is_looked_at_again(company: Company) -> None:
    """Late records with an old time and changes that touch no clock are changes too."""
    company.check()
    company.do(
        "INSERT INTO person VALUES (99, ' ', '13900000099', NULL, NULL, NULL, 1, '2026-01-20')",
        "UPDATE person SET phone = '7' WHERE id = 7",
    )
    seen = company.collection(done := company.check())
    assert (seen["whole"], seen["looked_at"]) == (False, 2)
    assert company.open() == {"named": {'["99"]'}, "phone": {'["7"]'}}
    assert done.record.outcome is Outcome.FAIL


def test_a_mark_moves_only_with_sealed_evidence(company: Company) -> None:
    """What an unsealed run saw is looked at again."""
    company.check()
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check(sealed=False)
    with company.state.begin() as conn:  # as if the run's own entries had been lost with it
        conn.execute(text("DELETE FROM quarantine"))
    company.check()
    assert company.open() == {"named": {'["3"]'}}


def test_what_an_unsealed_run_did_with_other_rules_is_looked_at_again(
    database: str, state: str, tmp_path: Path
) -> None:
    """It resolved what only its own rules find good; killed before or after it said so."""
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
        ours, company.pack = company.pack, lenient
        company.check(sealed=False)
        assert company.open() == {}
        if killed:  # before it kept what it found
            with company.state.begin() as conn:
                conn.execute(
                    text("DELETE FROM quality_check WHERE run_id = :run AND rule <> 'all records'"),
                    {"run": f"run-{company.runs}"},
                )
        company.pack = ours
        company.check()
        assert len(company.open()["long"]) == 9
    assert not company.collection(company.check())["whole"]


def test_a_run_that_was_killed_while_it_entered_is_told(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own figures are missing, and the next run looks at everything."""
    company.check()
    with monkeypatch.context() as patched:
        patched.setattr(checks.history, "record", lambda *_a, **_k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            company.check(sealed=False)
    assert company.collection(company.check())["whole"]
    assert not company.collection(company.check())["whole"]


def test_an_open_transaction_is_not_missed(company: Company, database: str) -> None:
    """A record that was written before a check and committed after it is looked at by the next."""
    with psycopg.connect(database) as slow:
        slow.execute("UPDATE person SET name = NULL WHERE id = 5")
        company.check()
        assert company.open() == {}
        slow.commit()
    company.check()
    assert company.open() == {"named": {'["5"]'}}


def test_mended_and_deleted_records_are_resolved(company: Company) -> None:
    """And stay in the register, with the run that found them good."""
    company.do("UPDATE person SET name = '' WHERE id IN (1, 2, 3)")
    company.check()
    company.do(
        "UPDATE person SET name = 'Ada' WHERE id = 1",
        "DELETE FROM consent WHERE person_id = 2",
        "DELETE FROM person WHERE id = 2",
    )
    seen = company.collection(company.check())
    assert seen["resolved"] == 2
    assert company.open() == {"named": {'["3"]'}}
    with company.state.connect() as conn:
        past = conn.execute(
            text("SELECT key, resolved_run_id FROM quarantine WHERE resolved_at IS NOT NULL")
        ).all()
    assert sorted(map(tuple, past)) == [('["1"]', "run-2"), ('["2"]', "run-2")]


def test_time_breaks_records_that_nobody_touches(company: Company) -> None:
    """Seen on 1 February: sixty days later the record is not recent any more."""
    company.check()
    assert company.check(days=6).record.outcome is Outcome.PASS
    done = company.check(days=27)
    assert len(company.open()["recent"]) == 40
    assert done.record.outcome is Outcome.ATTENTION


def test_a_related_record_that_changes_is_noticed(company: Company) -> None:
    """The person's own record did not change."""
    company.do(
        "UPDATE person SET subscribed = true WHERE id = 4",
        "INSERT INTO consent VALUES (400, 4, 'marketing')",
    )
    company.check()
    assert company.open() == {}
    company.do("UPDATE consent SET purpose = 'delivery' WHERE id = 400")
    company.check()
    assert company.open() == {"consent": {'["4"]'}}


def test_a_deleted_related_record_is_noticed_within_seven_days(company: Company) -> None:
    """It leaves no trace in what changed; the whole is looked at every seventh day."""
    company.do(
        "UPDATE person SET subscribed = true WHERE id = 4",
        "INSERT INTO consent VALUES (400, 4, 'marketing')",
    )
    company.check()
    company.do("DELETE FROM consent WHERE id = 400")
    company.check()
    assert company.open() == {}
    assert company.collection(company.check(days=6))["whole"]
    assert company.open() == {"consent": {'["4"]'}}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("DELETE FROM branch WHERE id = 2", 20),
        ("UPDATE branch SET id = 3 WHERE id = 2", 20),
        ("INSERT INTO branch VALUES (9, 'West')", 0),
    ],
)
def test_a_list_that_changed_is_held_against_all_records(
    database: str, state: str, tmp_path: Path, change: str, broken: int
) -> None:
    """Its other rules look at what changed, and it too as long as the list stays as it was."""
    company = Company.make(database, state, tmp_path / "p", quality__person=LISTED)
    company.do("ALTER TABLE person DROP CONSTRAINT person_branch_id_fkey")
    company.do("UPDATE person SET branch_id = 9 WHERE id = 40")
    company.check()
    assert company.open()["branch"] == {'["40"]'}
    company.do("UPDATE person SET branch_id = 8 WHERE id = 39")
    quiet = company.collection(company.check())
    assert (quiet["whole"], quiet["looked_at"]) == (False, 1)
    assert company.open()["branch"] == {'["39"]', '["40"]'}
    company.do(change)
    company.check()
    assert len(company.open()["branch"]) == (broken + 1 if broken else 1)


def test_a_list_that_is_loaded_anew_leaves_other_rules_alone(
    database: str, state: str, tmp_path: Path
) -> None:
    """Emptied and filled again, as lists are: only the rule that asks it looks at all records."""
    company = Company.make(database, state, tmp_path / "p", quality__person=LISTED)
    company.do("ALTER TABLE person DROP CONSTRAINT person_branch_id_fkey")
    company.check()
    company.do("TRUNCATE branch", "INSERT INTO branch VALUES (1, 'North'), (3, 'West')")
    seen = company.collection(company.check())
    assert (seen["whole"], seen["looked_at"]) == (False, 0)
    assert len(company.open()["branch"]) == 20


def test_the_earlier_of_two_twins_is_the_original(company: Company) -> None:
    """Also when it is the earlier one that was changed."""
    company.check()
    company.do(
        "UPDATE person SET (name, phone) = (SELECT name, phone FROM person WHERE id = 9) WHERE id = 8"
    )
    company.check()
    assert company.open()["twin"] == {'["9"]'}
    assert company.open()["unique_phone"] == {'["8"]', '["9"]'}


def test_a_table_that_somebody_emptied_is_noticed(company: Company) -> None:
    """By the next run, whether rows were deleted or the table truncated."""
    company.check()
    company.do("TRUNCATE person CASCADE")
    codes = {one.code for one in company.check().record.findings}
    assert "quality.emptied" in codes


def test_a_related_table_that_was_emptied_is_noticed(company: Company) -> None:
    """It has no rows left that could tell."""
    company.check()
    company.do("TRUNCATE consent")
    assert company.collection(company.check())["whole"]
    assert company.open() == {"consent": {'["40"]'}}


@pytest.mark.parametrize(
    ("before", "check", "reason"),
    [
        ("SELECT 1", {"full": True}, "a full check was asked for"),
        ("SELECT 1", {"days": 7}, "all of them are looked at again every seventh day"),
        ("SELECT 1", {"days": -2}, "the clock was set back since the last check"),
        ("VACUUM FULL person", {}, "the table, or one that it is held against, was rewritten"),
        ("ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE", {}, "PostgreSQL knows no"),
        ("UPDATE person SET name = name", {}, "more than {most} records changed"),
    ],
)
def test_a_check_says_why_it_looks_at_all_records(
    company: Company, before: str, check: dict[str, Any], reason: str
) -> None:
    """In its result and its report, so that nobody has to guess why it took longer today."""
    first = company.collection(company.check())
    assert first["whole_because"]["text"] == "no check of it was sealed yet"
    assert company.collection(company.check())["whole_because"] is None
    with psycopg.connect(company.conninfo, autocommit=True) as connection:
        connection.execute(before.encode())
    seen = company.collection(company.check(**check))
    assert seen["whole"]
    assert seen["whole_because"]["text"].startswith(reason)


def test_a_check_says_which_expectation_made_it_look_at_all_records(
    company: Company, tmp_path: Path
) -> None:
    """One that was changed, one that could not be checked."""
    company.check()
    stricter = SUITE.replace("P60D", "P59D")
    company.pack = load_pack(
        write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=stricter)
    )
    changed = company.collection(company.check())["whole_because"]
    assert changed["values"] == {"rule": "recent"}
    company.do("ALTER TABLE person DROP COLUMN seen_at")
    company.check()
    unchecked = company.collection(company.check())["whole_because"]
    assert unchecked["values"] == {"rule": "recent"}
    assert unchecked["text"].startswith("the last check could not check")


def test_another_version_of_the_program_looks_at_all_records(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an upgrade judges otherwise it judges so at once, in records of any age."""
    company.check()
    with monkeypatch.context() as patched:
        for module in (marks, history):
            patched.setattr(module, "VERSION", "0" * 12)
        because = company.collection(company.check())["whole_because"]
        assert because["text"] == "another version made the last check"
        assert company.collection(company.check())["whole_because"] is None
    assert company.collection(company.check())["whole_because"] == because


def test_a_version_is_told_from_its_files(tmp_path: Path) -> None:
    """A condition that was mended makes another one."""
    file = tmp_path / "conditions.py"
    file.write_text("a")
    before = marks.version_of([file], "1.0")
    assert marks.version_of([file], "1.1") != before
    file.write_text("b")
    assert marks.version_of([file], "1.0") != before


def test_more_than_can_be_named_are_looked_at_again(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The register does not tell which of them may have been mended."""
    monkeypatch.setattr(collection, "MOST_NAMED", 5)
    company.do("UPDATE person SET name = '' WHERE id <= 6")
    company.check()
    because = company.collection(company.check())["whole_because"]
    assert because["values"] == {"rule": "named"}
    assert "not name all" in because["text"]
    company.do("UPDATE person SET name = 'Ada' WHERE id = 1")
    company.check()
    assert len(company.open()["named"]) == 5
    assert company.collection(company.check())["whole_because"] is None


def test_what_a_view_relates_to_is_looked_at_as_a_whole(company: Company) -> None:
    """Its rows do not tell when they were written."""
    company.do("ALTER TABLE consent RENAME TO kept", "CREATE VIEW consent AS TABLE kept")
    company.check()
    company.do("UPDATE kept SET purpose = 'none'")
    seen = company.collection(company.check())
    assert seen["whole"]
    assert company.open() == {"consent": {'["40"]'}}


def test_numbers_that_are_keys_are_written_out(database: str, state: str, tmp_path: Path) -> None:
    """Whatever the server's own setting shortens them to: two keys are never one name."""
    company = Company.make(database, state, tmp_path / "p")
    company.do(
        "ALTER TABLE consent DROP CONSTRAINT consent_person_id_fkey",
        "ALTER TABLE person ALTER COLUMN id TYPE float8",
        "UPDATE person SET id = 0.1::float8 + 0.2::float8, name = '' WHERE id = 1",
        "UPDATE person SET id = 0.3, name = '' WHERE id = 2",
    )
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        sql = f'ALTER ROLE "{user}" IN DATABASE "{name}" SET extra_float_digits = 0'
        admin.execute(sql.encode())
    company.check()
    assert len(company.open()["named"]) == 2


def test_every_rule_about_twins_has_its_own(database: str, state: str, tmp_path: Path) -> None:
    """One by name, one by phone: each is mended and broken by itself, and by unchanged records."""
    rule = "expect_records_to_be_distinct, kwargs: {{columns: [{}]}}"
    company = Company.make(
        database,
        state,
        tmp_path / "p",
        quality__person=suite(name=rule.format("name"), phone=rule.format("phone")),
    )
    company.do("UPDATE person SET name = 'Ada' WHERE id IN (7, 8, 9)")
    company.check()
    assert company.open() == {"name": {'["8"]', '["9"]'}}
    company.do("UPDATE person SET name = 'Eve', phone = '13900000012' WHERE id = 7")
    seen = company.collection(company.check())
    assert seen["looked_at"] == 1
    assert company.open() == {"name": {'["9"]'}, "phone": {'["12"]'}}
    company.do("DELETE FROM consent WHERE person_id = 8", "DELETE FROM person WHERE id = 8")
    company.check()
    assert company.open() == {"phone": {'["12"]'}}


CHANGES = st.sampled_from(
    [
        "UPDATE person SET name = '' WHERE id % 40 = {n}",
        "UPDATE person SET name = 'Ada' WHERE id % 40 = {n}",
        "UPDATE person SET phone = 'none' WHERE id = {n}",
        "UPDATE person SET phone = '139' || lpad(id::text, 8, '0') WHERE id = {n}",
        "UPDATE person a SET (name, phone) = (SELECT name, phone FROM person b WHERE b.id = {m}) WHERE id = {n}",
        "UPDATE person SET subscribed = NOT subscribed WHERE id = {n}",
        "INSERT INTO consent VALUES ({n} + 1000 * (SELECT count(*) FROM consent), {n}, 'marketing')",
        "UPDATE consent SET purpose = 'none' WHERE person_id = {n}",
        "UPDATE person SET seen_at = '2026-01-10' WHERE id = {n}",
        "UPDATE person SET seen_at = '2026-03-01' WHERE id = {n}",
    ]
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rounds=st.lists(
        st.lists(st.tuples(CHANGES, st.integers(1, 12), st.integers(1, 12)), max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_changed_records_tell_the_same_as_all_records(
    company: Company, rounds: list[list[tuple[str, int, int]]]
) -> None:
    """Whatever happens between the runs, short of deleting a related record."""
    company.check(full=True)
    for changes in rounds:
        company.do(*(one.format(n=n, m=m) for one, n, m in changes))
        company.check()
    narrow = company.open()
    company.at -= timedelta(days=1)
    company.check(full=True)
    assert narrow == company.open()
