"""Incremental checks: which records they examine, and quarantine entries of other records."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome
from include.quality.incremental import IncrementalFigures
from include.registry import load_pack
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Company, reason, suite, untraced

FILLED = "expect_column_values_to_not_be_null, kwargs: {column: name}"


def test_incremental_check_examines_only_new_and_changed_records(company: Company) -> None:
    """The check examines a new record, a changed record, and an older record within the margin."""
    company.check()
    company.do(
        "INSERT INTO person VALUES (99, ' ', '13900000099', NULL, NULL, NULL, 1, '2026-01-20')",
        "UPDATE person SET phone = '7' WHERE id = 7",
    )
    figures = company.collection(checked := company.check())
    assert (figures["whole"], figures["looked_at"], figures["rows"]) == (False, 3, 40)
    assert company.open() == {"named": {'["99"]'}, "phone": {'["7"]'}}
    assert checked.record.outcome is Outcome.FAIL


def test_unchanged_record_that_breaks_an_expectation_stays_in_quarantine(company: Company) -> None:
    """The check must not pass only because all changed records are valid."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    company.do("UPDATE person SET phone = '13900001111' WHERE id = 4")
    for _ in range(2):
        checked = company.check()
        assert not company.collection(checked)["whole"]
        assert checked.record.outcome is Outcome.FAIL
        assert company.open() == {"named": {'["3"]'}}


def test_incremental_check_resolves_quarantine_entry_of_corrected_record(company: Company) -> None:
    """Entries of deleted records are resolved only by a full check.

    The same is true for records that were corrected without a new value in the change column.
    """
    untraced(company, "UPDATE person SET name = '' WHERE id IN (1, 2, 3, 4)")
    company.check()
    company.do(
        "UPDATE person SET name = 'Ada' WHERE id = 1",
        "DELETE FROM consent WHERE person_id = 2",
        "DELETE FROM person WHERE id = 2",
    )
    untraced(company, "UPDATE person SET name = 'Bo' WHERE id = 3")
    assert company.collection(company.check())["resolved"] == 1
    assert company.open() == {"named": {'["2"]', '["3"]', '["4"]'}}
    assert company.collection(company.check(full=True))["resolved"] == 2
    assert company.open() == {"named": {'["4"]'}}


def test_weekly_full_check_finds_a_change_that_did_not_update_the_change_column(
    company: Company,
) -> None:
    """The full check is made on the seventh day, whatever checks were made in between."""
    company.check()
    untraced(company, "UPDATE person SET name = '' WHERE id = 3")
    for _ in range(6):
        assert not company.collection(company.check())["whole"]
        assert company.open() == {}
    assert company.collection(company.check())["whole"]
    assert company.open() == {"named": {'["3"]'}}


@pytest.mark.parametrize(("late", "is_found"), [("1 hour", True), ("3 hours", False)])
def test_incremental_check_finds_late_record_only_if_its_change_time_is_within_the_margin(
    company: Company, tmp_path: Path, late: str, is_found: bool
) -> None:
    """A record that arrives outside of the margin is found by the next full check."""
    hours = SUITE.replace("PT1S", "PT2H")
    company.pack = load_pack(write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=hours))
    company.do("UPDATE person SET updated_at = now() - interval '4 hours' WHERE id = 1")
    company.do("UPDATE person SET updated_at = now() WHERE id = 2")
    company.check()
    company.do(
        "INSERT INTO person (id, name, phone, updated_at)"
        f" VALUES (99, '', '13900000099', now() - interval '{late}')"
    )
    assert not company.collection(company.check())["whole"]
    assert company.open() == ({"named": {'["99"]'}} if is_found else {})
    company.check(full=True)
    assert company.open() == {"named": {'["99"]'}}


def test_incremental_check_finds_changes_of_transaction_committed_after_previous_check(
    company: Company, database: str
) -> None:
    """The transaction began before the checked changes and was committed after the check."""
    with psycopg.connect(database) as slow:
        slow.execute("UPDATE person SET name = NULL WHERE id = 5")
        time.sleep(1.2)  # longer than the margin for late arrivals
        company.do("UPDATE person SET phone = '13900001111' WHERE id = 4")
        company.check()
        assert company.open() == {}
        slow.commit()
    figures = company.collection(company.check())
    assert not figures["whole"]
    assert figures["incremental"]["sees_open_transactions"]
    assert company.open() == {"named": {'["5"]'}}


def test_only_full_check_finds_late_changes_if_login_cannot_see_open_transactions(
    company: Company, database: str
) -> None:
    """Only a full check finds changes of a transaction longer than the margin.

    The result states that open transactions cannot be seen.
    """
    reader = "seldom_reader"
    company.do(
        f"DROP ROLE IF EXISTS {reader}",
        f"CREATE ROLE {reader} LOGIN PASSWORD 'r'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    )
    owner_conninfo = company.conninfo
    owner = psycopg.conninfo.conninfo_to_dict(owner_conninfo)
    reader_conninfo = psycopg.conninfo.make_conninfo(
        "", **{**owner, "user": reader, "password": "r"}
    )

    def check(**how: Any) -> dict[str, Any]:
        company.conninfo = reader_conninfo
        figures = company.collection(company.check(**how))
        company.conninfo = owner_conninfo
        return figures

    with psycopg.connect(database) as slow:
        slow.execute("UPDATE person SET name = NULL WHERE id = 5")
        time.sleep(1.2)
        company.do("UPDATE person SET phone = '13900001111' WHERE id = 4")
        check()
        slow.commit()
    assert check()["incremental"]["sees_open_transactions"] is False
    assert company.open() == {}
    check(full=True)
    assert company.open() == {"named": {'["5"]'}}
    company.do(f"DROP OWNED BY {reader}", f"DROP ROLE {reader}")


def test_later_changes_are_checked_although_a_record_has_a_future_time_in_the_change_column(
    company: Company,
) -> None:
    """Such a value does not advance the watermark.

    Its record is examined until the value is in the past.
    """
    company.do("UPDATE person SET updated_at = now() + interval '1 year' WHERE id = 1")
    company.check()
    company.do("UPDATE person SET name = '' WHERE id = 3")
    figures = company.collection(company.check())
    assert (figures["whole"], figures["looked_at"]) == (False, 3)
    assert company.open() == {"named": {'["3"]'}}


def test_every_check_examines_records_with_null_in_the_change_column(company: Company) -> None:
    """If the change column is null in more than a fifth of the records, the check is full."""
    company.do("UPDATE person SET updated_at = NULL WHERE id IN (3, 4)")
    company.check()
    untraced(company, "UPDATE person SET name = '' WHERE id = 3")
    figures = company.collection(company.check())
    assert (figures["whole"], figures["looked_at"]) == (False, 3)
    assert company.open() == {"named": {'["3"]'}}
    company.do("UPDATE person SET updated_at = NULL WHERE id <= 9")
    assert reason(company).startswith("more than {limit} records are new or changed, or")
    untraced(company, "UPDATE person SET updated_at = NULL")
    assert reason(company).startswith("the column {column} has no values")


@pytest.mark.parametrize(
    ("kind", "margin", "old", "new"),
    [
        ("timestamp", "PT1S", "timestamp '2026-02-01' + id * interval '1 hour'", "localtimestamp"),
        ("timestamp", "PT1S", "updated_at AT TIME ZONE 'Asia/Shanghai'", "now() + '8 hours'"),
        ("date", "P1D", "date '2026-02-01' + id::int", "current_date"),
        ("bigint", "3", "id", "9000000000"),
        ("integer", "3", "id", "1000"),
        ("smallint", "100000", "id", "1000"),
    ],
)
def test_change_column_may_be_timestamp_or_date_or_integer(
    database: str, state: str, tmp_path: Path, kind: str, margin: str, old: str, new: str
) -> None:
    """The types are timestamps without a timezone, dates, and numbers that always grow."""
    rules = suite(filled=FILLED).replace("updated_at", "version").replace("PT1S", margin)
    columns = MAP.replace("updated_at, fides", "version, fides")
    company = Company.make(
        database, state, tmp_path / "p", datamap__shop=columns, quality__person=rules
    )
    company.do(
        f"ALTER TABLE person ADD version {kind}",
        f"UPDATE person SET version = {old}",
        "CREATE INDEX ON person (version)",
    )
    company.check()
    company.do(f"UPDATE person SET name = NULL, version = {new} WHERE id = 3")
    figures = company.collection(company.check())
    if kind == "smallint":  # the margin is wider than the type: all records are late arrivals
        assert figures["whole_because"]["text"].startswith("more than")
    else:
        assert not figures["whole"]
        assert figures["looked_at"] < 6
    assert company.open() == {"filled": {'["3"]'}}


def test_expectations_that_compare_records_are_evaluated_only_by_full_checks(
    company: Company,
) -> None:
    """Incremental checks keep the results of the newest full check for these expectations."""
    company.do("UPDATE person SET (name, phone) = ('Ada', '13900001111') WHERE id IN (7, 8)")
    company.check()
    twins = {"twin": {'["8"]'}, "unique_phone": {'["7"]', '["8"]'}}
    assert company.open() == twins
    company.do(
        "UPDATE person SET phone = '13900002222' WHERE id = 8",
        "UPDATE person SET (name, phone) = (SELECT name, phone FROM person WHERE id = 9)"
        " WHERE id = 10",
    )
    figures = company.collection(company.check())
    assert company.open() == twins
    examined = {rule["rule"]: rule["examined"] for rule in figures["rules"]}
    assert examined["twin"] == examined["unique_phone"] == "last_full"
    assert examined["named"] == "changed"
    company.check(full=True)
    assert company.open() == {"twin": {'["10"]'}, "unique_phone": {'["9"]', '["10"]'}}


def test_expectations_about_the_row_count_are_evaluated_only_by_full_checks(
    database: str, state: str, tmp_path: Path
) -> None:
    """Incremental checks do not count the records of the table."""
    rule = "expect_table_row_count_to_be_between, kwargs: {max_value: 39}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(size=rule))
    assert company.check().record.outcome is Outcome.FAIL
    company.do("DELETE FROM consent", "DELETE FROM person WHERE id = 9")
    assert company.check().record.outcome is Outcome.FAIL
    assert company.check(full=True).record.outcome is Outcome.PASS


def test_full_check_finds_record_that_breaks_expectation_after_change_in_other_table(
    company: Company,
) -> None:
    """A consent was changed, but the record of the person was not."""
    company.do("INSERT INTO consent VALUES (400, 4, 'marketing')")
    untraced(company, "UPDATE person SET subscribed = true WHERE id = 4")
    company.check()
    company.do("UPDATE consent SET purpose = 'delivery' WHERE id = 400")
    company.check()
    assert company.open() == {}
    company.check(full=True)
    assert company.open() == {"consent": {'["4"]'}}


def test_every_check_examines_all_records_for_expectation_with_scope_all(
    database: str, state: str, tmp_path: Path
) -> None:
    """The scope is for expectations whose result cannot wait a week for the full check."""
    daily = SUITE.replace("where: subscribed}", "where: subscribed, scope: all}")
    company = Company.make(database, state, tmp_path / "p", quality__person=daily)
    company.check()
    company.do("UPDATE consent SET purpose = 'delivery' WHERE person_id = 40")
    figures = company.collection(company.check())
    assert (figures["whole"], company.open()) == (False, {"consent": {'["40"]'}})
    company.do("UPDATE consent SET purpose = 'marketing' WHERE person_id = 40")
    company.check()
    assert company.open() == {}


def test_full_check_finds_records_that_became_outdated(company: Company) -> None:
    """The records have dates of 1 February, and the expectation allows an age of 60 days."""
    company.check(days=27)
    company.check(days=5)
    assert len(company.open()["recent"]) == 1  # only the newest record is read again
    company.check(days=2)
    assert len(company.open()["recent"]) == 40


def test_incremental_check_includes_changed_records_to_which_expectation_did_not_apply_before(
    database: str, state: str, tmp_path: Path
) -> None:
    """At the full check, the expectation applied to no record.

    Later, records that were changed break it.
    """
    rule = "expect_column_values_to_be_email_addresses, kwargs: {column: email}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(email=rule))
    assert company.check().record.outcome is Outcome.ATTENTION
    company.do("UPDATE person SET email = 'none' WHERE id <= 3")
    checked = company.check()
    (email,) = company.collection(checked)["rules"]
    assert (email["rows"], email["broken"], email["outcome"]) == (3, 3, "fail")


def test_quarantine_entry_has_all_digits_of_a_float_key(
    database: str, state: str, tmp_path: Path
) -> None:
    """Different keys must have different texts, whatever number of digits the server displays."""
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


def test_empty_table_is_no_longer_reported_after_it_has_records_again(company: Company) -> None:
    """When the table has records again, the check examines all of them."""
    company.do("CREATE TABLE kept AS TABLE person", "TRUNCATE person CASCADE")
    assert "quality.empty" in {finding.code for finding in company.check().record.findings}
    company.do("INSERT INTO person TABLE kept")
    checked = company.check()
    assert not {
        finding.code
        for finding in checked.record.findings
        if finding.code.startswith("quality.empt")
    }
    assert company.collection(checked)["rows"] == 40
    company.do("TRUNCATE person CASCADE")
    assert "quality.emptied" in {finding.code for finding in company.check().record.findings}


def test_incremental_result_has_the_due_date_of_the_next_full_check(company: Company) -> None:
    """The next full check is due a week after the newest full check."""
    company.check()
    full = company.at
    figures = company.collection(company.check())["incremental"]
    incremental = IncrementalFigures.model_validate(figures)
    assert incremental.full_at == full
    assert incremental.full_due == full + timedelta(days=7)
