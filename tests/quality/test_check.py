"""Checking one database: what is found, what is looked at, and what is never lost."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.local.sample.answers import RowSet
from include.policy import SHIPPED, load_pack
from include.quality.check import check_database
from include.quality.run import Run
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.state.migrate import migrate
from tests.local.sample.conftest import AS_OF, Sample
from tests.local.sample.conftest import sample as sample
from tests.quality.support import KEYS, SUITE, Company

CHECKED = {"customer", "address", "waybill"}


def keys(planted: RowSet) -> set[str]:
    """The first column of each key: a waybill's second is its partition's clock."""
    found = [*planted.keys(), *(row[0] for row in planted.rows)]
    return {str(one) for one in found}


def test_every_planted_defect_of_the_sample_is_found_and_no_other(
    sample: Sample, state: str, postgres: EmbeddedPostgres
) -> None:
    """By rule and primary key, with the shipped pack."""
    db = engine(state)
    migrate(db)
    pack = load_pack(SHIPPED)
    address = DatabaseAddress.from_conninfo(postgres.conninfo(sample.connection.info.dbname))
    run = Run("check_quality", "sample", AS_OF, db, KEYS)
    done = check_database(pack.database("courier"), address, pack.suites_of("courier"), run)
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
    beyond = {"minor", "closed_customer", "contact_not_masked"}  # no defect, or of another control
    expected = {
        rule
        for rule, one in sample.sheet.planted.items()
        if one.table in CHECKED and not rule.startswith("expired") and rule not in beyond
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


LISTED = (
    SUITE
    + """\
    - {id: branch, type: expect_column_values_to_exist_in, kwargs: {column: branch_id, collection: branch, field: id}, severity: fail, clause: "4.1", title: {en: Branch, zh-CN: 分部}}
"""
)


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


def test_the_earlier_of_two_twins_is_the_original(company: Company) -> None:
    """Also when it is the earlier one that was changed."""
    company.check()
    company.do(
        "UPDATE person SET (name, phone) = (SELECT name, phone FROM person WHERE id = 9) WHERE id = 8"
    )
    company.check()
    assert company.open()["twin"] == {'["9"]'}
    assert company.open()["unique_phone"] == {'["8"]', '["9"]'}


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
    assert {one.code for one in done.record.findings} == {
        "quality.emptied",
        "quality.about_nothing",
    }
    assert done.record.outcome is Outcome.ATTENTION


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
    assert value not in done.record.model_dump_json()


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
    run = Run("check_quality", "again", company.at, company.state, KEYS)
    address = DatabaseAddress.from_conninfo(company.conninfo)
    suites = company.pack.suites_of("shop")
    for _ in range(2):
        check_database(company.pack.database("shop"), address, suites, run)
    with company.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM quarantine")) == 3
        assert conn.scalar(text("SELECT count(*) FROM quality_check")) == 6


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
