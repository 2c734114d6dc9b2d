"""Checking one database: what is found, what is looked at, and what is never lost."""

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
    """The first column of each key: a waybill's second is its partition's clock."""
    found = [*planted.keys(), *(row[0] for row in planted.rows)]
    return {str(one) for one in found}


def strings(found: object) -> Iterator[str]:
    """Every text in a record."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from strings(key)
            yield from strings(value)
    elif isinstance(found, list):
        for one in found:
            yield from strings(one)


def test_every_planted_defect_of_the_sample_is_found_and_no_other(
    sample: Sample, state: str, postgres: EmbeddedPostgres
) -> None:
    """By rule and primary key, with the shipped pack."""
    db = engine(state)
    pack = load_pack(SHIPPED)
    address = DatabaseAddress.from_conninfo(postgres.conninfo(sample.connection.info.dbname))
    done = support.checked(support.quality_run(pack, address, db, "sample"), "courier", AS_OF)
    with db.connect() as conn:
        rows = conn.execute(text("SELECT rule, key FROM quarantine")).all()
    found: dict[str, set[str]] = {}
    for rule, key in rows:
        found.setdefault(rule, set()).add(json.loads(key)[0])
    planted = {
        rule: keys(one)
        for rule, one in sample.sheet.planted.items()
        if one.table in CHECKED and rule in found
    }
    assert found == planted
    beyond = {"minor", "closed_customer"}  # no defect; masks are of another control
    expected = {
        rule
        for rule, one in sample.sheet.planted.items()
        if one.table in CHECKED
        and not rule.startswith(("expired", "contact_not_masked"))
        and rule not in beyond
    }
    assert set(found) == expected
    assert not [one for one in done.record.findings if one.code != "quality.broken"]


def test_good_records_pass(company: Company) -> None:
    """Nothing is found, and everything was looked at."""
    done = company.check()
    assert done.record.outcome is Outcome.PASS
    assert company.collection(done)["looked_at"] == 40
    assert company.open() == {}


def test_a_threshold_tolerates_no_more_than_it_says(company: Company) -> None:
    """`mostly: 0.9` of 40 records: four may be broken, five may not."""
    company.do("UPDATE person SET phone = 'x' || id WHERE id <= 4")
    assert company.check().record.outcome is Outcome.PASS
    company.do("UPDATE person SET phone = 'x' || id WHERE id = 5")
    done = company.check()
    assert [one.subject for one in done.record.findings] == ["shop.person.phone"]
    assert done.record.outcome is Outcome.FAIL
    assert company.open()["phone"] == {f'["{n}"]' for n in range(1, 6)}


def test_departments_are_counted_by_name(company: Company) -> None:
    """The most broken first."""
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
def test_a_table_that_changed_its_shape_stops_only_its_own_rules(
    company: Company, change: str, rule: str
) -> None:
    """The rule says why it was not checked, the others were, and the schema's drift is said."""
    company.do("UPDATE person SET name = '' WHERE id = 1")
    company.check()
    company.do(change)
    done = company.check()
    codes = {(one.code, one.subject) for one in done.record.findings}
    assert ("quality.unchecked", f"shop.person.{rule}") in codes
    assert ("quality.broken", "shop.person.named") in codes
    assert any(code.startswith("schema.") for code, _ in codes)
    assert done.record.outcome is Outcome.FAIL
    # What is not known again is looked at as a whole.
    assert company.collection(company.check())["whole"]


def test_a_table_that_is_gone_fails_every_rule(company: Company) -> None:
    """Nothing is taken for good because nobody could look."""
    company.do("DROP TABLE consent", "DROP TABLE person")
    done = company.check()
    unchecked = [one for one in done.record.findings if one.code == "quality.unchecked"]
    assert len(unchecked) == 6
    assert done.record.outcome is Outcome.FAIL


def test_an_empty_table_breaks_nothing(company: Company) -> None:
    """What was open is resolved, and somebody is told that it was emptied."""
    company.do("UPDATE person SET name = '' WHERE id = 1")
    company.check()
    company.do("TRUNCATE person, consent")
    done = company.check()
    assert company.open() == {}
    assert {one.code for one in done.record.findings} == {"quality.emptied"}
    assert done.record.outcome is Outcome.ATTENTION
    still = company.check()
    assert {one.code for one in still.record.findings} == {"quality.empty"}
    assert still.record.outcome is Outcome.ATTENTION


def test_null_everywhere_is_found_where_a_value_is_required(company: Company) -> None:
    """Null has no format, so that only the rule for what is missing is broken."""
    company.do(
        "ALTER TABLE person ALTER COLUMN subscribed DROP NOT NULL",
        "UPDATE person SET name = NULL, phone = NULL, seen_at = NULL, subscribed = NULL",
    )
    company.check()
    assert {rule: len(found) for rule, found in company.open().items()} == {"named": 40}


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
def test_hostile_values_do_no_harm(company: Company, value: str) -> None:
    """They are found by key like any other, and stand nowhere in what is kept."""
    with psycopg.connect(company.conninfo) as connection:
        connection.execute("UPDATE person SET phone = %s WHERE id = 6", [value])
    done = company.check()
    assert company.open() == {"phone": {'["6"]'}}
    assert value not in set(strings(done.record.model_dump(mode="json")))
    page = data_docs("shop.person", done.results["person"], "run-1", company.at).decode()
    assert value not in html.unescape(page)
    with company.state.connect() as conn:
        assert value not in str(conn.execute(text("SELECT key, part FROM quarantine")).all())


def test_a_name_of_invisible_characters_is_no_name(company: Company) -> None:
    """Zero-width and ideographic spaces."""
    company.do("UPDATE person SET name = E'\\u200b\\u3000 ' WHERE id = 6")
    company.check()
    assert company.open() == {"named": {'["6"]'}}


def test_a_key_that_tells_who_it_is_never_stands_in_the_register(
    database: str, state: str, tmp_path: Path
) -> None:
    """It is named by keyed HMAC, and its collection is always looked at as a whole."""
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
        done = company.check()
        (key,) = company.open()["named"]
        assert "139" not in key
        assert key.startswith('["hmac:1:')
        assert done.record.data["collections"][0]["whole"]


@pytest.mark.parametrize("name", ["NULL", "'Bo'"])
def test_a_rotated_key_mends_no_record(
    database: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Who was found under the old name stays, since when it was; who is mended is resolved."""
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
    mended = name != "NULL"
    assert resolved == mended
    assert company.open()["named"] <= before
    assert len(company.open()["named"]) == 2 - mended
    company.do("UPDATE person SET name = NULL WHERE id = 5")
    company.check()
    assert len([one for one in company.open()["named"] if one.startswith('["hmac:2:')]) == 1


def test_a_rule_that_is_invalid_stops_only_itself(
    database: str, state: str, tmp_path: Path
) -> None:
    """A bad regular expression, bad SQL, SQL that fails on a value."""
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
    done = company.check()
    said = {one.subject: one.message.values for one in done.record.findings}
    assert set(said) == {f"shop.person.{one}" for one in (*rules, "named")}
    reasons = {one: str(said[f"shop.person.{one}"]["reason"]) for one in rules}
    assert "2201B" in reasons["regex"]
    assert "42601" in reasons["syntax"]
    assert "22P02" in reasons["value"]
    assert company.open() == {"named": {'["1"]'}}


def test_a_check_may_be_repeated(company: Company) -> None:
    """A retried task finds the same and enters nothing twice."""
    company.do("UPDATE person SET name = '' WHERE id <= 3")
    address = DatabaseAddress.from_conninfo(company.conninfo)
    run = support.quality_run(company.pack, address, company.state, "again")
    for _ in range(2):
        support.checked(run, "shop", company.at)
    with company.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM quarantine")) == 3
        kept = conn.scalars(text("SELECT rule FROM quality_check")).all()
    rules = [one.id for one in company.pack.suites_of("shop")[0].expectations]
    assert sorted(kept) == sorted(["all records", "has begun", *rules])
