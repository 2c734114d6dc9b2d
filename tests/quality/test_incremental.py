"""Incremental checks: which records they examine, and what they keep of all others."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome
from include.policy import load_pack
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Company, reason, suite, untraced

FILLED = "expect_column_values_to_not_be_null, kwargs: {column: name}"


def test_an_incremental_check_examines_changed_records(company: Company) -> None:
    """A new record and a changed one, and the newest of those before: the margin is read again."""
    company.check()
    company.do(
        "INSERT INTO person VALUES (99, ' ', '13900000099', NULL, NULL, NULL, 1, '2026-01-20')",
        "UPDATE person SET phone = '7' WHERE id = 7",
    )
    seen = company.collection(done := company.check())
    assert (seen["whole"], seen["looked_at"], seen["rows"]) == (False, 3, 40)
    assert company.open() == {"named": {'["99"]'}, "phone": {'["7"]'}}
    assert done.record.outcome is Outcome.FAIL


def test_a_broken_record_that_did_not_change_stays_broken(company: Company) -> None:
    """An incremental check that examines good records only is no pass."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    company.do("UPDATE person SET phone = '13900001111' WHERE id = 4")
    for _ in range(2):
        done = company.check()
        assert not company.collection(done)["whole"]
        assert done.record.outcome is Outcome.FAIL
        assert company.open() == {"named": {'["3"]'}}


def test_a_corrected_record_is_resolved_when_it_is_examined(company: Company) -> None:
    """A deleted one, or one that was corrected without a trace, by the next full check."""
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


def test_a_change_without_a_trace_is_found_by_the_weekly_full_check(company: Company) -> None:
    """The seventh day after the last full check, whatever was checked in between."""
    company.check()
    untraced(company, "UPDATE person SET name = '' WHERE id = 3")
    for _ in range(6):
        assert not company.collection(company.check())["whole"]
        assert company.open() == {}
    assert company.collection(company.check())["whole"]
    assert company.open() == {"named": {'["3"]'}}


@pytest.mark.parametrize(("late", "found"), [("1 hour", True), ("3 hours", False)])
def test_a_late_arrival_is_found_within_the_margin(
    company: Company, tmp_path: Path, late: str, found: bool
) -> None:
    """Outside of it by the next full check."""
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
    assert company.open() == ({"named": {'["99"]'}} if found else {})
    company.check(full=True)
    assert company.open() == {"named": {'["99"]'}}


def test_a_long_transaction_is_not_missed(company: Company, database: str) -> None:
    """It began before records that were checked, and committed after the check."""
    with psycopg.connect(database) as slow:
        slow.execute("UPDATE person SET name = NULL WHERE id = 5")
        time.sleep(1.2)  # longer than the margin for late arrivals
        company.do("UPDATE person SET phone = '13900001111' WHERE id = 4")
        company.check()
        assert company.open() == {}
        slow.commit()
    seen = company.collection(company.check())
    assert not seen["whole"]
    assert seen["incremental"]["sees_open_transactions"]
    assert company.open() == {"named": {'["5"]'}}


def test_a_reader_that_sees_no_open_transactions_relies_on_the_margin(
    company: Company, database: str
) -> None:
    """The longer transaction is found by the full check, and the report says so."""
    reader = "seldom_reader"
    company.do(
        f"DROP ROLE IF EXISTS {reader}",
        f"CREATE ROLE {reader} LOGIN PASSWORD 'r'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    )
    mine = company.conninfo
    owner = psycopg.conninfo.conninfo_to_dict(mine)
    theirs = psycopg.conninfo.make_conninfo("", **{**owner, "user": reader, "password": "r"})

    def check(**how: Any) -> dict[str, Any]:
        company.conninfo = theirs
        found = company.collection(company.check(**how))
        company.conninfo = mine
        return found

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


def test_a_clock_that_is_ahead_hides_no_later_change(company: Company) -> None:
    """A value in the future moves no watermark; its record is examined until it is past."""
    company.do("UPDATE person SET updated_at = now() + interval '1 year' WHERE id = 1")
    company.check()
    company.do("UPDATE person SET name = '' WHERE id = 3")
    seen = company.collection(company.check())
    assert (seen["whole"], seen["looked_at"]) == (False, 3)
    assert company.open() == {"named": {'["3"]'}}


def test_records_without_a_value_are_examined_by_every_check(company: Company) -> None:
    """And more than a fifth of them make it a full one."""
    company.do("UPDATE person SET updated_at = NULL WHERE id IN (3, 4)")
    company.check()
    untraced(company, "UPDATE person SET name = '' WHERE id = 3")
    seen = company.collection(company.check())
    assert (seen["whole"], seen["looked_at"]) == (False, 3)
    assert company.open() == {"named": {'["3"]'}}
    company.do("UPDATE person SET updated_at = NULL WHERE id <= 9")
    assert reason(company) == "more than {most} records changed, or have no value there"
    untraced(company, "UPDATE person SET updated_at = NULL")
    assert reason(company).startswith("no record has a value in its column")


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
def test_columns_of_other_types_tell_changes_too(
    database: str, state: str, tmp_path: Path, kind: str, margin: str, old: str, new: str
) -> None:
    """Moments without a timezone, days, numbers that grow with every change."""
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
    seen = company.collection(company.check())
    if kind == "smallint":  # the margin is wider than the type: all records are late arrivals
        assert seen["whole_because"]["text"].startswith("more than")
    else:
        assert not seen["whole"]
        assert seen["looked_at"] < 6
    assert company.open() == {"filled": {'["3"]'}}


def test_records_that_are_compared_are_found_by_the_full_check(company: Company) -> None:
    """Until then the figures are its own, and no changed record makes them better."""
    company.do("UPDATE person SET (name, phone) = ('Ada', '13900001111') WHERE id IN (7, 8)")
    company.check()
    twins = {"twin": {'["8"]'}, "unique_phone": {'["7"]', '["8"]'}}
    assert company.open() == twins
    company.do(
        "UPDATE person SET phone = '13900002222' WHERE id = 8",
        "UPDATE person SET (name, phone) = (SELECT name, phone FROM person WHERE id = 9)"
        " WHERE id = 10",
    )
    seen = company.collection(company.check())
    assert company.open() == twins
    examined = {rule["rule"]: rule["examined"] for rule in seen["rules"]}
    assert examined["twin"] == examined["unique_phone"] == "last_full"
    assert examined["named"] == "changed"
    company.check(full=True)
    assert company.open() == {"twin": {'["10"]'}, "unique_phone": {'["9"]', '["10"]'}}


def test_a_table_that_is_too_full_stays_so_until_the_full_check(
    database: str, state: str, tmp_path: Path
) -> None:
    """Nobody counts in between."""
    rule = "expect_table_row_count_to_be_between, kwargs: {max_value: 39}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(size=rule))
    assert company.check().record.outcome is Outcome.FAIL
    company.do("DELETE FROM consent", "DELETE FROM person WHERE id = 9")
    assert company.check().record.outcome is Outcome.FAIL
    assert company.check(full=True).record.outcome is Outcome.PASS


def test_changes_elsewhere_are_found_by_the_full_check(company: Company) -> None:
    """A consent that was withdrawn; the person's own record did not change."""
    company.do("INSERT INTO consent VALUES (400, 4, 'marketing')")
    untraced(company, "UPDATE person SET subscribed = true WHERE id = 4")
    company.check()
    company.do("UPDATE consent SET purpose = 'delivery' WHERE id = 400")
    company.check()
    assert company.open() == {}
    company.check(full=True)
    assert company.open() == {"consent": {'["4"]'}}


def test_a_rule_of_scope_all_is_held_against_all_records_every_time(
    database: str, state: str, tmp_path: Path
) -> None:
    """For what may not wait a week: its author asked for it."""
    daily = SUITE.replace("where: subscribed}", "where: subscribed, scope: all}")
    company = Company.make(database, state, tmp_path / "p", quality__person=daily)
    company.check()
    company.do("UPDATE consent SET purpose = 'delivery' WHERE person_id = 40")
    seen = company.collection(company.check())
    assert (seen["whole"], company.open()) == (False, {"consent": {'["40"]'}})
    company.do("UPDATE consent SET purpose = 'marketing' WHERE person_id = 40")
    company.check()
    assert company.open() == {}


def test_time_breaks_records_until_the_full_check_finds_them(company: Company) -> None:
    """Seen on 1 February: sixty days later the record is not recent any more."""
    company.check(days=27)
    company.check(days=5)
    assert len(company.open()["recent"]) == 1  # the newest is read again
    company.check(days=2)
    assert len(company.open()["recent"]) == 40


def test_more_records_than_were_counted_break_a_rule_all_the_same(
    database: str, state: str, tmp_path: Path
) -> None:
    """The full check found none that the rule is about; changed ones break it."""
    rule = "expect_column_values_to_be_email_addresses, kwargs: {column: email}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(email=rule))
    assert company.check().record.outcome is Outcome.ATTENTION
    company.do("UPDATE person SET email = 'none' WHERE id <= 3")
    done = company.check()
    (email,) = company.collection(done)["rules"]
    assert (email["rows"], email["broken"], email["outcome"]) == (3, 3, "fail")


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


def test_a_filled_table_was_not_empty(company: Company) -> None:
    """Nothing is said of an empty table once it has records, and all of them are examined."""
    company.do("CREATE TABLE kept AS TABLE person", "TRUNCATE person CASCADE")
    assert "quality.empty" in {one.code for one in company.check().record.findings}
    company.do("INSERT INTO person TABLE kept")
    seen = company.check()
    assert not {one.code for one in seen.record.findings if one.code.startswith("quality.empt")}
    assert company.collection(seen)["rows"] == 40
    company.do("TRUNCATE person CASCADE")
    assert "quality.emptied" in {one.code for one in company.check().record.findings}


def test_the_next_full_check_is_announced(company: Company) -> None:
    """A week after the last one, as the report says."""
    company.check()
    full = company.at
    told = company.collection(company.check())["incremental"]
    assert told["full_at"] == full.isoformat()
    assert told["full_due"] == (full + timedelta(days=7)).isoformat()
