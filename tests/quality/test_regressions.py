"""Regression tests of corrected defects."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome, StepRecord
from include.expectations.docs import data_docs
from include.messages import verbatim
from include.policy.datamap import MappedDatabase
from include.quality import report
from include.reports.conclusion import Conclusion
from include.workflow.run_records import RunRecords
from tests.expectations.test_gx import TYPES
from tests.quality.support import CHANGED, MAP, SUITE, Company

TITLE = 'severity: fail, clause: "4.1", title: {en: t, zh-CN: t}'
ALL_TYPES = {
    "set": "expect_column_values_to_be_in_set, kwargs: {column: branch_id, value_set: [1, 2]}",
    "match": "expect_column_values_to_match_regex, kwargs: {column: name, regex: '^P'}",
    "not_match": "expect_column_values_to_not_match_regex, kwargs: {column: name, regex: '^Q'}",
    "length": "expect_column_value_lengths_to_be_between, kwargs: {column: name, min_value: 1}",
    "between": "expect_column_values_to_be_between, kwargs: {column: id, min_value: 1}",
    "filled": "expect_column_values_to_not_be_null, kwargs: {column: name}",
    "unique": "expect_column_values_to_be_unique, kwargs: {column: phone}",
    "together": "expect_compound_columns_to_be_unique, kwargs: {column_list: [name, phone]}",
    "pair": "expect_column_pair_values_a_to_be_greater_than_b, kwargs: {column_A: id, column_B: id, or_equal: true}",
    "rows": "expect_table_row_count_to_be_between, kwargs: {min_value: 0}",
    "exists": "expect_column_values_to_exist_in, kwargs: {column: branch_id, collection: branch, field: id}",
    "blank": "expect_column_values_to_not_be_blank, kwargs: {column: name}",
    "mobile": "expect_column_values_to_be_mobile_numbers, kwargs: {column: phone}",
    "email": "expect_column_values_to_be_email_addresses, kwargs: {column: email}",
    "id_form": "expect_column_values_to_be_resident_id_numbers, kwargs: {column: id_number, part: form}",
    "id_place": "expect_column_values_to_be_resident_id_numbers, kwargs: {column: id_number, part: division, collection: branch, field: name}",
    "recent": "expect_column_values_to_be_recent, kwargs: {column: seen_at, period: P90D}",
    "uncollected": "expect_column_values_to_not_be_collected, kwargs: {column: faith}",
    "distinct": "expect_records_to_be_distinct, kwargs: {columns: [name, phone]}",
    "satisfy": "expect_records_to_satisfy, kwargs: {condition: id > 0}",
    "related": "expect_related_records, kwargs: {collection: consent, field: person_id, key: id}",
}


def suite(rules: dict[str, str]) -> str:
    lines = [f"    - {{id: {name}, type: {rule}, {TITLE}}}\n" for name, rule in rules.items()]
    return "- collection: person\n  expectations:\n" + "".join(lines)


def codes(checked: object) -> set[tuple[str, str]]:
    return {(finding.code, finding.subject) for finding in checked.record.findings}  # type: ignore[attr-defined]


def test_every_expectation_type_passes_for_good_records_and_for_an_empty_table(
    database: str, state: str, tmp_path: Path
) -> None:
    """A sum over no rows is null in SQL, and no expectation type may misread this null."""
    assert {rule.split(",")[0] for rule in ALL_TYPES.values()} == set(TYPES)
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(ALL_TYPES))
    company.do(
        "UPDATE person SET email = 'a@example.com', id_number = '11010519491231002X'",
        "INSERT INTO branch VALUES (3, '110105')",
    )
    assert company.check().record.outcome is Outcome.PASS
    assert company.check().record.outcome is Outcome.PASS
    company.do("TRUNCATE person, consent")
    assert {code for code, _ in codes(company.check())} == {"quality.emptied"}


def test_records_that_repeat_a_pair_of_values_are_listed_in_quarantine(
    database: str, state: str, tmp_path: Path
) -> None:
    """Both records with the same pair of values are listed. A pair with a null is not compared."""
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(ALL_TYPES))
    company.do("UPDATE person SET (name, phone) = ('A', '1') WHERE id IN (3, 4)")
    company.do("UPDATE person SET (name, phone) = ('A', NULL) WHERE id IN (5, 6)")
    company.check()
    assert company.open()["together"] == {'["3"]', '["4"]'}


def test_all_expectations_are_checked_if_column_names_contain_quotes_or_percent_signs(
    database: str, state: str, tmp_path: Path
) -> None:
    """The names contain percent signs, quotes, colons, dots and Chinese characters."""
    names = ["a%b", "a%(x)s", 'q"q', "c:now", "d.e", "客户 名"]
    fields = "".join(f"      - {{name: {name!r}}}\n" for name in names)
    datamap = "fides_key: shop\ncollections:\n  - name: odd\n    fields:\n      - {name: id, fides_meta: {primary_key: true}}\n"
    rules = "".join(
        f"    - {{id: r{n}, type: expect_column_values_to_not_be_blank, kwargs: {{column: {name!r}}}, {TITLE}}}\n"
        f"    - {{id: u{n}, type: expect_column_values_to_be_unique, kwargs: {{column: {name!r}}}, {TITLE}}}\n"
        for n, name in enumerate(names)
    )
    rules += f"    - {{id: twins, type: expect_records_to_be_distinct, kwargs: {{columns: {names}}}, {TITLE}}}\n"
    company = Company.make(
        database,
        state,
        tmp_path / "p",
        datamap__shop=datamap + fields,
        quality__person="- collection: odd\n  expectations:\n" + rules,
    )
    quoted = ", ".join('"' + name.replace('"', '""') + '" text' for name in names)
    with psycopg.connect(company.conninfo) as connection:
        connection.execute(f"CREATE TABLE odd (id int PRIMARY KEY, {quoted})".encode())
        connection.execute(
            "INSERT INTO odd VALUES (1, '', '', '', '', '', ''), (2, 'x','x','x','x','x','x')"
        )
    checked = company.check()
    assert not [
        finding.subject
        for finding in checked.record.findings
        if finding.code == "quality.unchecked"
    ]
    blank = {f"r{n}": {'["1"]'} for n in range(len(names))}
    assert company.open() == blank
    columns = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    company.do(f"INSERT INTO odd SELECT 3, {columns} FROM odd WHERE id = 2")
    company.check()
    assert company.open() == {
        **blank,
        "twins": {'["3"]'},
        **{f"u{n}": {'["2"]', '["3"]'} for n in range(len(names))},
    }


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE person ADD COLUMN place point",
        "ALTER TABLE person ADD COLUMN place xml",
        "CREATE TYPE geo AS (x float, y float); ALTER TABLE person ADD COLUMN place geo",
        'ALTER TABLE person ADD COLUMN "pl""a\nce" text',
    ],
)
def test_column_of_unknown_type_does_not_prevent_checks_of_other_columns(
    database: str, state: str, tmp_path: Path, ddl: str
) -> None:
    """The table has an unrelated column whose type Great Expectations does not know."""
    company = Company.make(database, state, tmp_path / "pack", quality__person=suite(ALL_TYPES))
    company.do(ddl)
    rules = company.collection(company.check())["rules"]
    assert [rule["rule"] for rule in rules if rule["broken"] is None] == []


def test_expectations_are_reported_as_unchecked_if_row_security_hides_records(
    company: Company,
) -> None:
    """A table whose records are hidden from the login must not look like an empty table."""
    company.do(
        "UPDATE person SET name = '' WHERE id < 20",
        "DROP ROLE IF EXISTS hidden_reader",
        "CREATE ROLE hidden_reader LOGIN PASSWORD 'r'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO hidden_reader",
        "ALTER TABLE person ENABLE ROW LEVEL SECURITY",
    )
    owner_conninfo = company.conninfo
    owner = psycopg.conninfo.conninfo_to_dict(owner_conninfo)
    company.conninfo = psycopg.conninfo.make_conninfo(
        "", **{**owner, "user": "hidden_reader", "password": "r"}
    )
    checked = company.check()
    assert checked.record.outcome is Outcome.FAIL
    assert {code for code, _ in codes(checked)} == {"quality.unchecked"}
    company.conninfo = owner_conninfo
    company.do("DROP OWNED BY hidden_reader", "DROP ROLE hidden_reader")


def test_quarantine_contains_digest_instead_of_primary_key_that_is_not_in_the_data_map(
    database: str, state: str, tmp_path: Path
) -> None:
    """A primary key column that is not in the data map may be personal, such as a phone number."""
    datamap = "fides_key: shop\ncollections:\n  - name: caller\n    fields:\n      - {name: name}\n"
    rules = suite({"named": "expect_column_values_to_not_be_null, kwargs: {column: name}"})
    company = Company.make(
        database,
        state,
        tmp_path / "p",
        datamap__shop=datamap,
        quality__person=rules.replace("person", "caller"),
    )
    company.do(
        "CREATE TABLE caller (mobile text PRIMARY KEY, name text)",
        "INSERT INTO caller VALUES ('13912345678', NULL)",
    )
    company.check()
    (key,) = company.open()["named"]
    assert "139" not in key


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE branch SET id = 99 WHERE id = 2", {"exists"}),
        ("ALTER TABLE person DROP COLUMN name, ADD COLUMN name text", {"filled", "blank"}),
    ],
)
def test_check_finds_records_that_break_expectations_after_schema_or_referenced_record_changed(
    database: str, state: str, tmp_path: Path, change: str, broken: set[str]
) -> None:
    """A referenced record gets another id, or a column is dropped and created again."""
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(ALL_TYPES))
    company.do("ALTER TABLE person DROP CONSTRAINT person_branch_id_fkey")
    company.check()
    company.do(change)
    company.check()
    assert set(company.open()) == broken


def test_quarantine_entries_of_removed_expectation_are_closed(
    company: Company, tmp_path: Path
) -> None:
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    other = Company(company.conninfo, company.state, company.pack, company.at, company.runs)
    remaining = [
        expectation
        for expectation in company.pack.suites[0].expectations
        if expectation.id != "named"
    ]
    other.pack = company.pack.model_copy(
        update={
            "suites": (
                company.pack.suites[0].model_copy(update={"expectations": tuple(remaining)}),
            )
        }
    )
    other.check()
    assert other.open() == {}


def test_great_expectations_results_are_success_if_check_passes_and_failed_if_table_is_missing(
    company: Company,
) -> None:
    """Data Docs show the counts of all records.

    An expectation that could not be checked is shown as failed.
    """
    company.check()
    company.do("UPDATE person SET phone = 'x' || id WHERE id <= 4")
    checked = company.check()
    assert checked.record.outcome is Outcome.PASS
    assert all(result.evr and result.evr.success for result in checked.results["person"])
    company.do("DROP TABLE consent", "DROP TABLE person")
    without_table = company.check()
    page = data_docs("shop.person", without_table.results["person"], "run", company.at).decode()
    assert re.findall(r"Status:</span>.*?</i> (\w+)", page) == ["Failed"]


def concluded(
    company: Company,
    records: list[StepRecord],
    databases: list[MappedDatabase],
    *,
    requested: list[str],
) -> Conclusion:
    """Return the conclusion of a run that checks the requested databases.

    Args:
        company: the company.
        records: step records of the run.
        databases: all mapped databases.
        requested: names of the databases that the run checks.
    """
    pack = SimpleNamespace(
        databases={database.name: database for database in databases},
        suites_of=company.pack.suites_of,
    )
    run: Any = SimpleNamespace(pack=pack, state=company.state, requested_databases=requested)
    return report.conclude(run, RunRecords(records))


def test_control_indicator_has_no_value_if_run_does_not_check_every_mapped_database(
    company: Company,
) -> None:
    """The indicator has no value, although all checked databases passed."""
    record = company.check().record
    shop = company.pack.database("shop")
    other = shop.model_copy(update={"name": "other", "title": verbatim("other")})
    checked = concluded(company, [record], [shop, other], requested=["shop"])
    figures = {metric.name: metric.value for metric in checked.metrics if not metric.subject}
    assert figures["expectations_not_met"] is None
    assert "quality.left_out" in {finding.code for finding in checked.findings}
    conclusion_of_all = concluded(company, [record], [shop], requested=["shop"])
    assert {
        metric.name: metric.value for metric in conclusion_of_all.metrics if not metric.subject
    }["expectations_not_met"] == 0


def test_run_fails_if_step_record_of_database_is_missing_or_no_database_is_requested(
    company: Company,
) -> None:
    shop = company.pack.database("shop")
    checked = concluded(company, [], [shop], requested=["shop"])
    assert checked.outcome is Outcome.FAIL
    assert (
        concluded(
            company, [StepRecord(step="databases", outcome=Outcome.PASS)], [], requested=[]
        ).outcome
        is Outcome.FAIL
    )


def test_load_pack_reports_suite_that_is_unused_or_has_reserved_id_or_breakdown_by_personal_field(
    tmp_path: Path,
) -> None:
    from tests.policy.packs import problem_lines, write_pack

    personal = SUITE.replace(
        "{column: branch_id, collection: branch, label: name}", "{column: phone}"
    )
    incoming = SUITE.replace("- collection: person\n", "- collection: person\n  incoming: true\n")
    incoming = incoming.replace(CHANGED, "")
    reserved = SUITE.replace("id: named", "id: over_collected_faith")
    for text, word in (
        (personal, "personal"),
        (incoming, "intake.yaml"),
        (reserved, "purposes.yaml"),
    ):
        folder = tmp_path / word
        (line,) = problem_lines(write_pack(folder, datamap__shop=MAP, quality__person=text))
        assert word in line


def test_generated_expectations_for_fields_with_similar_names_have_distinct_ids(
    tmp_path: Path,
) -> None:
    from include.registry import load_pack
    from tests.policy.packs import write_pack

    fields = ["民族", "信仰", "a b", "a_b", "A_b"]
    lines = "".join(
        f"      - {{name: {field}, data_categories: [user.demographic]}}\n" for field in fields
    )
    datamap = (
        "fides_key: shop\ncollections:\n  - name: buyer\n    fields:\n      - {name: id, data_categories: [user.unique_id]}\n"
        + lines
    )
    purposes = "- {id: p, title: {en: a, zh-CN: b}, basis: law, fields: {shop: {buyer: [id]}}}\n"
    pack = load_pack(write_pack(tmp_path, datamap__shop=datamap, purposes=purposes))
    (only_suite,) = pack.suites
    assert len({expectation.id for expectation in only_suite.expectations}) == len(fields)


def test_incremental_check_examines_all_records_if_sql_condition_contains_the_parameter_now(
    database: str, state: str, tmp_path: Path
) -> None:
    """An incremental check must find unchanged records that became too old."""
    rule = (
        "expect_records_to_satisfy, kwargs: {condition: \"seen_at > :now - interval '740 hours'\"}"
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=suite({"seen": rule}))
    assert company.check().record.outcome is Outcome.PASS  # in the morning of 3 March
    company.check()
    assert len(company.open()["seen"]) == 40


def test_record_with_value_in_a_json_key_without_purpose_is_listed_in_quarantine(
    database: str, state: str, tmp_path: Path
) -> None:
    """A key whose value is JSON null counts as a key without a value."""
    datamap = """\
        fides_key: shop
        collections:
          - name: buyer
            fields:
              - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
              - name: prefs
                fides_meta: {data_type: object}
                fields:
                  - {name: colour}
                  - {name: creed, data_categories: [user.demographic.religious_belief]}
        """
    purposes = "- {id: p, title: {en: a, zh-CN: b}, basis: law, fields: {shop: {buyer: [id%s]}}}\n"
    for more, expected in (("", {"over_collected_prefscreed": {'["1"]'}}), (", prefs.creed", {})):
        folder = tmp_path / f"p{len(more)}"
        files = {"datamap__shop": datamap, "purposes": purposes % more, "quality__person": "[]\n"}
        if not more:
            company = Company.make(database, state, folder, **files)
            company.do(
                "CREATE TABLE buyer (id int PRIMARY KEY, prefs json)",
                """INSERT INTO buyer VALUES (1, '{"creed": "x"}'), (2, '{"creed": null}'),"""
                """ (3, '{"colour": "red"}'), (4, NULL)""",
            )
            company.check()
            assert {
                rule.partition(".")[0]: keys for rule, keys in company.open().items()
            } == expected
        else:
            from include.registry import load_pack
            from tests.policy.packs import write_pack

            assert load_pack(write_pack(folder, **files)).suites == ()
