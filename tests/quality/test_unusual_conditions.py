"""Unusual conditions: wrong clocks, changed primary keys, missing columns, removed expectations."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome
from include.messages import in_english
from include.quality import check as checks
from include.quality.collection import CollectionCheck
from include.registry import load_pack
from include.schema.live import read_schema
from include.services.errors import ServiceError
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Checked, Company, suite


def codes(checked: Checked) -> set[str]:
    return {finding.code for finding in checked.record.findings}


def figure(checked: Checked, name: str) -> float | None:
    (metric,) = [metric for metric in checked.record.metrics if metric.name == name]
    return metric.value


def test_check_after_clock_was_set_back_finds_all_records_that_break_expectations(
    company: Company,
) -> None:
    """While the clock is wrong, all records look recent.

    The next run must find the outdated records.
    """
    company.check()
    company.check(days=33)
    assert len(company.open()["recent"]) == 40
    company.check(days=-53)
    assert company.open() == {}
    company.check(days=54)
    assert len(company.open()["recent"]) == 40


def test_check_finds_outdated_records_again_after_unsealed_run_with_clock_set_back(
    company: Company,
) -> None:
    """The unsealed run closed quarantine entries.

    Runs are ordered by their numbers, not by their times.
    """
    company.check(days=33)
    assert len(company.open()["recent"]) == 40
    company.check(days=-53, sealed=False)
    assert company.open() == {}
    company.check(days=54)
    assert len(company.open()["recent"]) == 40


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_concurrent_check_with_older_snapshot_changes_no_quarantine_entry(
    company: Company, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    """The entries must be correct even if the lock does not prevent concurrent checks.

    Both runs can be sealed in any order.
    """
    company.check()

    def run_other_check(*arguments: Any) -> Any:
        monkeypatch.undo()
        schema = read_schema(*arguments)  # the first check has its snapshot now
        company.do("UPDATE person SET name = '' WHERE id = 7")
        company.check(sealed=False)
        return schema

    monkeypatch.setattr(checks, "read_schema", run_other_check)
    company.check(sealed=False)
    for company.runs in order:
        company.seal()
    company.runs = 9
    company.check()
    assert company.open() == {"named": {'["7"]'}}


def test_check_raises_service_error_if_a_later_check_has_updated_the_quarantine_register(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the error, the task is retried with a new snapshot."""
    company.check()
    original = CollectionCheck._check

    def run_other_check(*arguments: Any) -> Any:
        monkeypatch.undo()
        results = original(*arguments)
        company.do("UPDATE person SET name = '' WHERE id = 7")
        company.check()
        return results

    monkeypatch.setattr(CollectionCheck, "_check", run_other_check)
    with pytest.raises(ServiceError, match="began after this one"):
        company.check(sealed=False)
    assert company.open() == {"named": {'["7"]'}}


def test_every_check_includes_records_of_tables_that_inherit_from_the_checked_table(
    database: str, state: str, tmp_path: Path
) -> None:
    """A key may occur in several tables, so the number of register entries would be too low."""
    rule = "expect_column_values_to_be_mobile_numbers, kwargs: {column: phone, mostly: 0.95}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(phone=rule))
    company.do(
        "CREATE TABLE person_old () INHERITS (person)",
        "INSERT INTO person_old (id, name, phone) SELECT id, name, '7' FROM person WHERE id <= 2",
        "UPDATE ONLY person SET phone = '7' WHERE id <= 2",
    )
    for _ in range(2):
        (phone,) = company.collection(company.check())["rules"]
        assert (phone["rows"], phone["broken"], phone["outcome"]) == (42, 4, "fail")


def test_two_departments_with_same_id_do_not_prevent_checks_of_expectations(
    company: Company,
) -> None:
    """A record is counted for one of the two departments with the same id."""
    company.do(
        "ALTER TABLE person DROP CONSTRAINT person_branch_id_fkey",
        "ALTER TABLE branch DROP CONSTRAINT branch_pkey",
        "INSERT INTO branch VALUES (1, 'Again North')",
        "UPDATE person SET name = '' WHERE id = 2",
    )
    checked = company.check()
    assert "quality.unchecked" not in codes(checked)
    assert company.collection(checked)["parts"] == [("Again North", 1)]


@pytest.mark.parametrize("key", ["id, subscribed", "id"])
def test_quarantine_entries_get_new_keys_after_primary_key_columns_changed(
    company: Company, key: str
) -> None:
    before = "id" if key != "id" else "id, subscribed"
    swap = "ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE, ADD PRIMARY KEY ({})"
    company.do(swap.format(before), "UPDATE person SET name = '' WHERE id = 3")
    company.check()
    company.do(swap.format(key))
    company.check()
    assert company.open() == {"named": {'["3"]' if key == "id" else '["3","false"]'}}


def test_table_without_primary_key_gets_full_checks(company: Company) -> None:
    """The data map names key columns, but the table allows null in them."""
    company.do("ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE")
    company.do("ALTER TABLE person ALTER COLUMN id DROP NOT NULL")
    company.check()
    company.do(
        "INSERT INTO person (id, name, phone) VALUES (NULL, '', '13900000099')",
        "UPDATE person SET name = '' WHERE id = 4",
    )
    figures = company.collection(company.check())
    assert figures["whole"]
    assert {rule["rule"]: rule["broken"] for rule in figures["rules"]}["named"] == 2


def test_quarantine_has_one_entry_with_new_key_text_if_numeric_key_changed_from_3_to_3_0(
    database: str, state: str, tmp_path: Path
) -> None:
    """PostgreSQL treats 3 and 3.0 as equal.

    After the change, the quarantine entry has the new text.
    """
    numeric = MAP.replace("name: person\n", "name: person\n    meta: {}\n")
    company = Company.make(database, state, tmp_path / "p", datamap__shop=numeric)
    company.do(
        "ALTER TABLE consent DROP CONSTRAINT consent_person_id_fkey",
        "ALTER TABLE person ALTER COLUMN id TYPE numeric",
        "UPDATE person SET subscribed = true, name = '' WHERE id = 3",
    )
    company.check()
    assert company.open() == {"consent": {'["3"]'}, "named": {'["3"]'}}
    company.do("UPDATE person SET id = 3.0 WHERE id = 3")
    company.check(full=True)
    assert company.open() == {"consent": {'["3.0"]'}, "named": {'["3.0"]'}}
    company.do("INSERT INTO consent VALUES (900, 3, 'marketing')")
    company.check()
    assert company.open() == {"named": {'["3.0"]'}}


def test_quarantine_entry_for_future_birth_date_is_resolved_when_the_date_is_past(
    database: str, state: str, tmp_path: Path
) -> None:
    """The entry is resolved although the record itself does not change."""
    rule = "expect_column_values_to_be_resident_id_numbers, kwargs: {column: id_number, part: birth_date}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(born=rule))
    company.do("UPDATE person SET id_number = '110105202603040020' WHERE id = 3")
    company.check()
    assert company.open() == {"born": {'["3"]'}}
    company.check(days=2)
    assert company.open() == {}


def test_sql_condition_may_contain_the_parameter_now_inside_a_function_call(
    database: str, state: str, tmp_path: Path
) -> None:
    rule = "expect_records_to_satisfy, kwargs: {condition: \"seen_at >= date(:now - INTERVAL '2 years')\"}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(seen=rule))
    assert company.check().record.outcome is Outcome.PASS


def test_quarantine_stores_digest_instead_of_very_long_primary_key(
    database: str, state: str, tmp_path: Path
) -> None:
    """When the record is corrected, an incremental check must find the entry by the same digest."""
    rule = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(filled=rule))
    company.do(
        "ALTER TABLE consent DROP CONSTRAINT consent_person_id_fkey",
        "ALTER TABLE person ALTER COLUMN id TYPE text",
        """UPDATE person SET name = NULL, id = repeat('\\"', 1300) WHERE id = '3'""",
    )
    company.check()
    (key,) = company.open()["filled"]
    assert key.startswith('["hmac:1:')
    company.do("UPDATE person SET name = 'Ada' WHERE name IS NULL")
    assert not company.collection(company.check())["whole"]
    assert company.open() == {}


def test_unreadable_department_names_do_not_prevent_checks_of_expectations(
    company: Company,
) -> None:
    """Records are then listed without a department, and a finding reports this."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.do("ALTER TABLE branch RENAME COLUMN name TO label")
    checked = company.check()
    assert company.open() == {"named": {'["3"]'}}
    assert "quality.no_breakdown" in codes(checked)
    assert "quality.unchecked" not in codes(checked)


@pytest.mark.parametrize("left", ["rule", "suite"])
def test_quarantine_entries_of_removed_expectations_are_closed_with_a_finding(
    company: Company, tmp_path: Path, left: str
) -> None:
    """A finding is needed because nobody has corrected the records."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    rule = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    replacement = suite("person" if left == "rule" else "branch", filled=rule)
    company.pack = load_pack(
        write_pack(tmp_path / "other", datamap__shop=MAP, quality__person=replacement)
    )
    checked = company.check()
    assert company.open() == {}
    (dropped,) = [
        finding for finding in checked.record.findings if finding.code == "quality.rule_dropped"
    ]
    assert dropped.subject == "shop.person"
    assert dropped.for_engineers is not None
    assert in_english(dropped.for_engineers) == "The removed rules are `named`."
    assert checked.record.outcome is Outcome.ATTENTION


def test_expectation_that_applies_to_no_record_gives_a_finding(company: Company) -> None:
    """Records without a value do not count, so they do not lower the rate of invalid values."""
    company.do("UPDATE person SET phone = NULL")
    assert "quality.about_nothing" in codes(company.check(full=True))
    company.do("UPDATE person SET phone = 'x' || id WHERE id <= 2")
    checked = company.check()
    (phone,) = [rule for rule in company.collection(checked)["rules"] if rule["rule"] == "phone"]
    assert (phone["rows"], phone["broken"], phone["outcome"]) == (2, 2, "fail")


def test_metric_quality_rules_broken_has_no_value_if_no_expectation_has_severity_fail(
    database: str, state: str, tmp_path: Path
) -> None:
    """A control must not pass only because no expectation of the pack has the severity fail."""
    required = suite(filled="expect_column_values_to_not_be_null, kwargs: {column: name}")
    company = Company.make(
        database, state, tmp_path / "p", quality__person=required.replace("fail", "warn")
    )
    assert figure(company.check(), "quality.rules_broken") is None
    company.pack = load_pack(
        write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=required)
    )
    assert figure(company.check(), "quality.rules_broken") == 0


@pytest.mark.parametrize("values", ["[1, 2]", "[3, 4]"])
def test_records_with_value_outside_of_allowed_set_are_listed_in_quarantine(
    database: str, state: str, tmp_path: Path, values: str
) -> None:
    """The query must contain the list of allowed values."""
    rule = f"expect_column_values_to_be_in_set, kwargs: {{column: branch_id, value_set: {values}}}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(known=rule))
    company.check()
    assert len(company.open().get("known", ())) == (0 if values == "[1, 2]" else 40)


@pytest.mark.parametrize("key", ["", "007", "NULL", "null", 'a"b', "{1,2}", "é ,"])
def test_quarantine_entries_are_opened_and_resolved_for_primary_keys_with_unusual_text(
    database: str, state: str, tmp_path: Path, key: str
) -> None:
    """Incremental checks must find and resolve records with such keys."""
    rules = suite(
        filled="expect_column_values_to_not_be_null, kwargs: {column: name}",
        twin="expect_records_to_be_distinct, kwargs: {columns: [phone]}",
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=rules)
    company.do(
        "ALTER TABLE consent DROP CONSTRAINT consent_person_id_fkey",
        "ALTER TABLE person ALTER COLUMN id TYPE text",
    )
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE person SET id = %s WHERE id = '3'", [key])
    company.check()
    named = json.dumps([key], ensure_ascii=False)
    company.do("UPDATE person SET name = NULL WHERE phone LIKE '%03' OR id = '4'")
    assert not company.collection(company.check())["whole"]
    assert company.open() == {"filled": {named, '["4"]'}}
    company.do("UPDATE person SET name = 'Ada' WHERE name IS NULL")
    company.check()
    assert company.open() == {}


def test_quarantine_entry_with_date_key_is_resolved_although_datestyle_was_changed(
    database: str, state: str, tmp_path: Path
) -> None:
    """The owner of the server may change the setting DateStyle between two runs."""
    rule = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(filled=rule))
    company.do(
        "ALTER TABLE consent DROP CONSTRAINT consent_person_id_fkey",
        "ALTER TABLE person ALTER COLUMN id TYPE date USING date '2026-01-01' + id::int",
        "UPDATE person SET name = NULL WHERE id = '2026-01-04'",
    )
    company.check()
    with psycopg.connect(database, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"ALTER DATABASE \"{name}\" SET datestyle = 'German'".encode())
    company.do("UPDATE person SET name = 'Ada'")
    company.check()
    assert company.open() == {}


def test_load_pack_reports_unknown_key_and_unknown_role_of_same_control(tmp_path: Path) -> None:
    from include.policy.problems import PackError

    wrong = """\
        - {id: a, clause: "4.1", title: {en: t, zh-CN: t}, workflow: w, cadence: daily, owner: nobody, indicator: {name: n, target: "= 0"}, sources: [], surplus: 1}
        """
    with pytest.raises(PackError) as error:
        load_pack(
            write_pack(tmp_path / "p", datamap__shop=MAP, quality__person=SUITE, controls=wrong)
        )
    messages = str([problem.message for problem in error.value.problems])
    assert "this key is unknown" in messages
    assert "roles.yaml has no 'nobody'" in messages


def test_unmapped_schema_is_reported(company: Company) -> None:
    """An unmapped schema may contain a copy of a mapped table. Here it is the table `person`."""
    company.do("CREATE SCHEMA aside", "CREATE TABLE aside.person AS TABLE person")
    checked = company.check()
    assert codes(checked) == {"schema.drift.undeclared_schema"}
    assert checked.record.outcome is Outcome.ATTENTION
    # The schema may belong to another application; the control covers mapped schemas only.
    assert figure(checked, "quality.undeclared") == 0


def test_metric_of_data_missing_in_data_map_has_no_value_if_json_column_is_unreadable(
    database: str, state: str, tmp_path: Path
) -> None:
    prefs = "      - {name: prefs, data_categories: [user], fields: [{name: colour, data_categories: [user]}]}\n"
    company = Company.make(
        database,
        state,
        tmp_path / "p",
        datamap__shop=MAP.replace(
            "      - name: subscribed\n", "      - name: subscribed\n" + prefs
        ),
    )
    company.do(
        "ALTER TABLE person ADD COLUMN prefs json",
        r"""UPDATE person SET prefs = '{"colour": "\u0000"}' WHERE id = 1""",
    )
    checked = company.check()
    assert "schema.json_unchecked" in codes(checked)
    assert figure(checked, "quality.undeclared") is None
