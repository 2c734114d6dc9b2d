"""The check of one database: findings, examined records and quarantine entries."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from include.erasure.ledger import ErasureKeys
from include.evidence.model import Outcome
from include.expectations.docs import data_docs
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company.answers import RowSet
from include.services.database import DatabaseAddress
from include.state.connect import engine
from tests.quality import support
from tests.quality.support import MAP, SUITE, Company
from tests.sample_company.conftest import AS_OF, Sample
from tests.sample_company.conftest import sample as sample

CHECKED = {"customer", "address", "waybill"}


def keys(planted: RowSet) -> set[str]:
    """Return the first key value of each record that was made defective on purpose.

    The second key value of a waybill, the date of the partition, is left out.

    Args:
        planted: rows on the answer sheet for one expectation.
    """
    values = [*planted.keys(), *(row[0] for row in planted.rows)]
    return {str(value) for value in values}


def strings(value: object) -> Iterator[str]:
    """Yield every text inside a JSON value, including the keys of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from strings(key)
            yield from strings(member)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_quality_check_finds_exactly_the_planted_defective_records_of_the_sample_database(
    sample: Sample, state: str, postgres: EmbeddedPostgres
) -> None:
    """The generator of the sample company makes some records defective and lists them there.

    The expectations of the shipped pack have to find these records and no others.
    """
    db = engine(state)
    pack = load_pack(SHIPPED)
    address = DatabaseAddress.from_conninfo(postgres.conninfo(sample.connection.info.dbname))
    checked = support.checked(support.quality_run(pack, address, db, "sample"), "courier", AS_OF)
    with db.connect() as conn:
        rows = conn.execute(text("SELECT rule, key FROM quarantine")).all()
    registered: dict[str, set[str]] = {}
    for rule, key in rows:
        registered.setdefault(rule, set()).add(json.loads(key)[0])
    planted = {
        rule: keys(rows_of_rule)
        for rule, rows_of_rule in sample.sheet.planted.items()
        if rows_of_rule.table in CHECKED and rule in registered
    }
    assert registered == planted
    no_defects = {"minor", "closed_customer"}
    expected = {
        rule
        for rule, rows_of_rule in sample.sheet.planted.items()
        if rows_of_rule.table in CHECKED
        # Another control checks masks.
        and not rule.startswith(("expired", "contact_not_masked"))
        and rule not in no_defects
    }
    assert set(registered) == expected
    assert not [finding for finding in checked.record.findings if finding.code != "quality.broken"]


def test_quality_check_passes_if_all_records_are_valid(company: Company) -> None:
    checked = company.check()
    assert checked.record.outcome is Outcome.PASS
    assert company.collection(checked)["looked_at"] == 40
    assert company.open() == {}


def test_expectation_passes_if_exactly_the_tolerated_number_of_records_break_it(
    company: Company,
) -> None:
    """With `mostly: 0.9`, four of 40 records may break the expectation, but not five."""
    company.do("UPDATE person SET phone = 'x' || id WHERE id <= 4")
    assert company.check().record.outcome is Outcome.PASS
    company.do("UPDATE person SET phone = 'x' || id WHERE id = 5")
    checked = company.check()
    assert [finding.subject for finding in checked.record.findings] == ["shop.person.phone"]
    assert checked.record.outcome is Outcome.FAIL
    assert company.open()["phone"] == {f'["{n}"]' for n in range(1, 6)}


def test_check_result_contains_number_of_records_that_break_expectations_for_each_department(
    company: Company,
) -> None:
    """The department with the most records that break expectations comes first."""
    company.do("UPDATE person SET name = '' WHERE id IN (1, 3, 4)")
    assert company.collection(company.check())["parts"] == [("South", 2), ("North", 1)]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("ALTER TABLE person DROP COLUMN phone", "phone"),
        ("ALTER TABLE person RENAME COLUMN phone TO telephone", "phone"),
        ("ALTER TABLE person ALTER COLUMN seen_at TYPE int USING 1", "recent"),
    ],
)
def test_only_expectations_about_an_altered_column_are_reported_as_unchecked(
    company: Company, change: str, rule: str
) -> None:
    """Expectations about other columns are checked, and the change of the schema is reported."""
    company.do("UPDATE person SET name = '' WHERE id = 1")
    company.check()
    company.do(change)
    checked = company.check()
    codes = {(finding.code, finding.subject) for finding in checked.record.findings}
    assert ("quality.unchecked", f"shop.person.{rule}") in codes
    assert ("quality.broken", "shop.person.named") in codes
    assert any(code.startswith("schema.") for code, _ in codes)
    assert checked.record.outcome is Outcome.FAIL
    # A changed table needs a full check.
    assert company.collection(company.check())["whole"]


def test_check_fails_and_reports_all_expectations_as_unchecked_if_their_tables_are_missing(
    company: Company,
) -> None:
    company.do("DROP TABLE consent", "DROP TABLE person")
    checked = company.check()
    unchecked = [
        finding for finding in checked.record.findings if finding.code == "quality.unchecked"
    ]
    assert len(unchecked) == 6
    assert checked.record.outcome is Outcome.FAIL


def test_check_of_emptied_table_resolves_quarantine_entries_and_has_outcome_attention(
    company: Company,
) -> None:
    company.do("UPDATE person SET name = '' WHERE id = 1")
    company.check()
    company.do("TRUNCATE person, consent")
    checked = company.check()
    assert company.open() == {}
    assert {finding.code for finding in checked.record.findings} == {"quality.emptied"}
    assert checked.record.outcome is Outcome.ATTENTION
    next_check = company.check()
    assert {finding.code for finding in next_check.record.findings} == {"quality.empty"}
    assert next_check.record.outcome is Outcome.ATTENTION


def test_null_breaks_only_expectations_that_require_a_value(company: Company) -> None:
    company.do(
        "ALTER TABLE person ALTER COLUMN subscribed DROP NOT NULL",
        "UPDATE person SET name = NULL, phone = NULL, seen_at = NULL, subscribed = NULL",
    )
    company.check()
    assert {rule: len(entries) for rule, entries in company.open().items()} == {"named": 40}


@pytest.mark.parametrize(
    "value",
    [
        'O\'Neil "Ada"',
        r"\0\x00 \\",
        "=cmd()",
        "\u202egnp.exe",
        "%s %(a)s {b} :now",
        "x" * 10_000_000,
    ],
)
def test_quarantine_and_evidence_do_not_contain_the_value_that_breaks_an_expectation(
    company: Company, value: str
) -> None:
    """The values must not appear in the evidence or in the quarantine register."""
    with psycopg.connect(company.conninfo) as connection:
        connection.execute("UPDATE person SET phone = %s WHERE id = 6", [value])
    checked = company.check()
    assert company.open() == {"phone": {'["6"]'}}
    assert value not in set(strings(checked.record.model_dump(mode="json")))
    page = data_docs("shop.person", checked.results["person"], "run-1", company.at).decode()
    assert value not in html.unescape(page)
    with company.state.connect() as conn:
        assert value not in str(conn.execute(text("SELECT key, part FROM quarantine")).all())


def test_name_with_only_invisible_characters_counts_as_blank(company: Company) -> None:
    company.do("UPDATE person SET name = E'\\u200b\\u3000 ' WHERE id = 6")
    company.check()
    assert company.open() == {"named": {'["6"]'}}


def test_quarantine_contains_hmac_instead_of_primary_key_that_is_personal_data(
    database: str, state: str, tmp_path: Path
) -> None:
    """Every check of a collection with such a key is a full check."""
    datamap = """\
        fides_key: shop
        collections:
          - name: caller
            fields:
              - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {primary_key: true}}
              - {name: name, data_categories: [user.name]}
        """
    suite = """\
        - collection: caller
          expectations:
            - {id: named, type: expect_column_values_to_not_be_null, kwargs: {column: name}, severity: fail, clause: "4.1", title: {en: Named, zh-CN: 有姓名}}
        """
    company = Company.make(
        database, state, tmp_path / "p", datamap__shop=datamap, quality__person=suite
    )
    company.do(
        "CREATE TABLE caller (phone text PRIMARY KEY, name text)",
        "INSERT INTO caller VALUES ('13912345678', NULL), ('13912345679', 'Bo')",
    )
    for _ in range(2):
        checked = company.check()
        (key,) = company.open()["named"]
        assert "139" not in key
        assert key.startswith('["hmac:1:')
        assert checked.record.data["collections"][0]["whole"]


@pytest.mark.parametrize("name", ["NULL", "'Bo'"])
def test_quarantine_entries_keep_their_pseudonyms_after_rotation_of_the_hmac_key(
    database: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Entries keep the pseudonym that was computed with the old HMAC key.

    Entries of corrected records are resolved.
    """
    personal = MAP.replace(
        "{name: id, data_categories: [user.unique_id], fides_meta",
        "{name: id, data_categories: [user.contact.phone_number], fides_meta",
    )
    company = Company.make(database, state, tmp_path / "p", datamap__shop=personal)
    company.do("UPDATE person SET name = NULL WHERE id IN (3, 4)")
    company.check()
    before = company.open()["named"]
    rotated = ErasureKeys({"1": b"k" * 32, "2": b"z" * 32}, "2")
    monkeypatch.setattr(support, "KEYS", rotated)
    company.do(f"UPDATE person SET name = {name} WHERE id = 3")
    resolved = company.collection(company.check())["resolved"]
    is_corrected = name != "NULL"
    assert resolved == is_corrected
    assert company.open()["named"] <= before
    assert len(company.open()["named"]) == 2 - is_corrected
    company.do("UPDATE person SET name = NULL WHERE id = 5")
    company.check()
    assert len([key for key in company.open()["named"] if key.startswith('["hmac:2:')]) == 1


def test_other_expectations_are_checked_if_one_has_invalid_sql_or_an_invalid_regular_expression(
    database: str, state: str, tmp_path: Path
) -> None:
    """The faults are an invalid regular expression, invalid SQL, and SQL that fails on a value."""
    rules = {
        "regex": 'expect_column_values_to_match_regex, kwargs: {column: name, regex: "[a"}',
        "syntax": 'expect_records_to_satisfy, kwargs: {condition: "name ="}',
        "value": 'expect_records_to_satisfy, kwargs: {condition: "name::int > 0"}',
    }
    suite = SUITE + "".join(
        f'    - {{id: {name}, type: {rule}, severity: fail, clause: "4.1", title: {{en: {name}, zh-CN: 规则}}}}\n'
        for name, rule in rules.items()
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=suite)
    company.do("UPDATE person SET name = '' WHERE id = 1")
    checked = company.check()
    details_by_subject = {
        finding.subject: str(finding.for_engineers) for finding in checked.record.findings
    }
    assert set(details_by_subject) == {f"shop.person.{name}" for name in (*rules, "named")}
    details = {rule: details_by_subject[f"shop.person.{rule}"] for rule in rules}
    assert "2201B" in details["regex"]
    assert "42601" in details["syntax"]
    assert "22P02" in details["value"]
    assert company.open() == {"named": {'["1"]'}}


def test_repeated_check_of_the_same_run_adds_no_quarantine_entries(company: Company) -> None:
    """Airflow repeats a check when it retries the task."""
    company.do("UPDATE person SET name = '' WHERE id <= 3")
    address = DatabaseAddress.from_conninfo(company.conninfo)
    run = support.quality_run(company.pack, address, company.state, "again")
    for _ in range(2):
        support.checked(run, "shop", company.at)
    with company.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM quarantine")) == 3
        recorded_rules = conn.scalars(text("SELECT rule FROM quality_check")).all()
    rules = [expectation.id for expectation in company.pack.suites_of("shop")[0].expectations]
    assert sorted(recorded_rules) == sorted(["all records", "has begun", *rules])
