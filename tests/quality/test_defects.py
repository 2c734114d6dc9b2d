"""Defects, each held here so that it stays mended."""

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


def codes(done: object) -> set[tuple[str, str]]:
    return {(one.code, one.subject) for one in done.record.findings}  # type: ignore[attr-defined]


def test_every_type_can_be_checked_on_good_records_on_quiet_days_and_on_none(
    database: str, state: str, tmp_path: Path
) -> None:
    """Nothing changed, and nothing there: no type stumbles over sums of nothing."""
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


def test_repeated_pairs_are_named(database: str, state: str, tmp_path: Path) -> None:
    """Both of them, and only where neither column is null."""
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(ALL_TYPES))
    company.do("UPDATE person SET (name, phone) = ('A', '1') WHERE id IN (3, 4)")
    company.do("UPDATE person SET (name, phone) = ('A', NULL) WHERE id IN (5, 6)")
    company.check()
    assert company.open()["together"] == {'["3"]', '["4"]'}


def test_columns_of_any_name_are_checked(database: str, state: str, tmp_path: Path) -> None:
    """Percent signs, quotes, colons, dots and Chinese."""
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
    done = company.check()
    assert not [one.subject for one in done.record.findings if one.code == "quality.unchecked"]
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
def test_columns_of_unknown_types_stop_no_rule(
    database: str, state: str, tmp_path: Path, ddl: str
) -> None:
    """Great Expectations need not know what a place is to count names."""
    company = Company.make(database, state, tmp_path / "pack", quality__person=suite(ALL_TYPES))
    company.do(ddl)
    rules = company.collection(company.check())["rules"]
    assert [one["rule"] for one in rules if one["broken"] is None] == []


def test_hidden_rows_are_no_good_rows(company: Company) -> None:
    """Row security that hides records from the reader is said, not taken for an empty table."""
    company.do(
        "UPDATE person SET name = '' WHERE id < 20",
        "DROP ROLE IF EXISTS hidden_reader",
        "CREATE ROLE hidden_reader LOGIN PASSWORD 'r'",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO hidden_reader",
        "ALTER TABLE person ENABLE ROW LEVEL SECURITY",
    )
    mine = company.conninfo
    owner = psycopg.conninfo.conninfo_to_dict(mine)
    company.conninfo = psycopg.conninfo.make_conninfo(
        "", **{**owner, "user": "hidden_reader", "password": "r"}
    )
    done = company.check()
    assert done.record.outcome is Outcome.FAIL
    assert {code for code, _ in codes(done)} == {"quality.unchecked"}
    company.conninfo = mine
    company.do("DROP OWNED BY hidden_reader", "DROP ROLE hidden_reader")


def test_a_key_that_nobody_declared_is_not_written_down(
    database: str, state: str, tmp_path: Path
) -> None:
    """It may be anything, a phone number too."""
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
def test_changes_that_leave_the_records_alone_are_noticed(
    database: str, state: str, tmp_path: Path, change: str, broken: set[str]
) -> None:
    """A reference that went away; a column that was made anew."""
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(ALL_TYPES))
    company.do("ALTER TABLE person DROP CONSTRAINT person_branch_id_fkey")
    company.check()
    company.do(change)
    company.check()
    assert set(company.open()) == broken


def test_what_a_removed_rule_left_open_is_resolved(company: Company, tmp_path: Path) -> None:
    """A rule that nobody checks any more accuses nobody."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    other = Company(company.conninfo, company.state, company.pack, company.at, company.runs)
    kept = [one for one in company.pack.suites[0].expectations if one.id != "named"]
    other.pack = company.pack.model_copy(
        update={
            "suites": (company.pack.suites[0].model_copy(update={"expectations": tuple(kept)}),)
        }
    )
    other.check()
    assert other.open() == {}


def test_data_docs_say_what_the_report_says(company: Company) -> None:
    """Of all records, also when only changed ones were looked at; an unchecked rule has failed."""
    company.check()
    company.do("UPDATE person SET phone = 'x' || id WHERE id <= 4")
    done = company.check()
    assert done.record.outcome is Outcome.PASS
    assert all(one.evr and one.evr.success for one in done.results["person"])
    company.do("DROP TABLE consent", "DROP TABLE person")
    gone = company.check()
    page = data_docs("shop.person", gone.results["person"], "run", company.at).decode()
    assert re.findall(r"Status:</span>.*?</i> (\w+)", page) == ["Failed"]


def concluded(
    company: Company,
    records: list[StepRecord],
    databases: list[MappedDatabase],
    *,
    asked: list[str],
) -> Conclusion:
    """Conclude a run that was asked for some of these databases."""
    pack = SimpleNamespace(
        databases={each.name: each for each in databases}, suites_of=company.pack.suites_of
    )
    run: Any = SimpleNamespace(pack=pack, state=company.state, wanted_databases=asked)
    return report.conclude(run, RunRecords(records))


def test_a_database_that_was_not_asked_for_is_not_shown_as_held(company: Company) -> None:
    """Two are mapped, one was checked, and all is well in it."""
    record = company.check().record
    shop = company.pack.database("shop")
    other = shop.model_copy(update={"name": "other", "title": "other"})
    done = concluded(company, [record], [shop, other], asked=["shop"])
    figures = {one.name: one.value for one in done.metrics if not one.subject}
    assert figures["expectations_not_met"] is None
    assert "quality.left_out" in {one.code for one in done.findings}
    whole = concluded(company, [record], [shop], asked=["shop"])
    assert {one.name: one.value for one in whole.metrics if not one.subject}[
        "expectations_not_met"
    ] == 0


def test_a_database_without_a_record_fails(company: Company) -> None:
    """Nothing looked at is no pass."""
    shop = company.pack.database("shop")
    done = concluded(company, [], [shop], asked=["shop"])
    assert done.outcome is Outcome.FAIL
    assert (
        concluded(
            company, [StepRecord(step="databases", outcome=Outcome.PASS)], [], asked=[]
        ).outcome
        is Outcome.FAIL
    )


def test_the_pack_refuses_what_would_show_values_or_hide_rules(tmp_path: Path) -> None:
    """A personal breakdown, an incoming suite that nobody checks, an id of purposes' rules."""
    from tests.policy.packs import said, write_pack

    personal = SUITE.replace(
        "{column: branch_id, collection: branch, label: name}", "{column: phone}"
    )
    incoming = SUITE.replace("- collection: person\n", "- collection: person\n  incoming: true\n")
    incoming = incoming.replace(CHANGED, "")
    own = SUITE.replace("id: named", "id: over_collected_faith")
    for text, word in ((personal, "personal"), (incoming, "intake.yaml"), (own, "purposes.yaml")):
        folder = tmp_path / word
        (line,) = said(write_pack(folder, datamap__shop=MAP, quality__person=text))
        assert word in line


def test_two_fields_have_two_rules(tmp_path: Path) -> None:
    """Whatever script their names are in."""
    from include.registry import load_pack
    from tests.policy.packs import write_pack

    fields = ["民族", "信仰", "a b", "a_b", "A_b"]
    lines = "".join(
        f"      - {{name: {one}, data_categories: [user.demographic]}}\n" for one in fields
    )
    datamap = (
        "fides_key: shop\ncollections:\n  - name: buyer\n    fields:\n      - {name: id, data_categories: [user.unique_id]}\n"
        + lines
    )
    purposes = "- {id: p, title: {en: a, zh-CN: b}, basis: law, fields: {shop: {buyer: [id]}}}\n"
    pack = load_pack(write_pack(tmp_path, datamap__shop=datamap, purposes=purposes))
    (found,) = pack.suites
    assert len({one.id for one in found.expectations}) == len(fields)


def test_time_breaks_a_condition_that_asks_for_the_moment(
    database: str, state: str, tmp_path: Path
) -> None:
    """On a usual run, of records that nobody touched: they were seen on 1 February."""
    rule = (
        "expect_records_to_satisfy, kwargs: {condition: \"seen_at > :now - interval '740 hours'\"}"
    )
    company = Company.make(database, state, tmp_path / "p", quality__person=suite({"seen": rule}))
    assert company.check().record.outcome is Outcome.PASS  # in the morning of 3 March
    company.check()
    assert len(company.open()["seen"]) == 40


def test_a_key_inside_json_that_no_purpose_needs_is_found(
    database: str, state: str, tmp_path: Path
) -> None:
    """Where its column is needed by none either; JSON null is no value."""
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
    for more, found in (("", {"over_collected_prefscreed": {'["1"]'}}), (", prefs.creed", {})):
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
            assert {rule.partition(".")[0]: keys for rule, keys in company.open().items()} == found
        else:
            from include.registry import load_pack
            from tests.policy.packs import write_pack

            assert load_pack(write_pack(folder, **files)).suites == ()
