"""Bad days: clocks set back, keys that change, parts that go, rules that are left out."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome
from include.quality import check as checks
from include.quality.collection import CollectionCheck
from include.registry import load_pack
from include.schema.live import read_schema
from include.services.errors import ServiceError
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Checked, Company, suite


def codes(done: Checked) -> set[str]:
    return {one.code for one in done.record.findings}


def figure(done: Checked, name: str) -> float | None:
    (found,) = [one for one in done.record.metrics if one.name == name]
    return found.value


def test_a_clock_that_was_set_back_hides_nothing(company: Company) -> None:
    """The run under the wrong clock finds everything recent; the next finds what is not."""
    company.check()
    company.check(days=33)
    assert len(company.open()["recent"]) == 40
    company.check(days=-53)
    assert company.open() == {}
    company.check(days=54)
    assert len(company.open()["recent"]) == 40


def test_a_run_under_a_clock_that_was_set_back_counts_though_it_was_not_sealed(
    company: Company,
) -> None:
    """It resolved what it took for recent: runs are told apart by their order, not their clocks."""
    company.check(days=33)
    assert len(company.open()["recent"]) == 40
    company.check(days=-53, sealed=False)
    assert company.open() == {}
    company.check(days=54)
    assert len(company.open()["recent"]) == 40


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_of_two_checks_at_once_the_older_view_decides_nothing(
    company: Company, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    """Whatever lock failed to keep them apart, and whichever was sealed last."""
    company.check()

    def meanwhile(*given: Any) -> Any:
        monkeypatch.undo()
        found = read_schema(*given)  # the first has its snapshot
        company.do("UPDATE person SET name = '' WHERE id = 7")
        company.check(sealed=False)
        return found

    monkeypatch.setattr(checks, "read_schema", meanwhile)
    company.check(sealed=False)
    for company.runs in order:
        company.seal()
    company.runs = 9
    company.check()
    assert company.open() == {"named": {'["7"]'}}


def test_a_check_enters_nothing_where_a_later_one_has(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is repeated, and then knows what the later one knew."""
    company.check()
    look = CollectionCheck._check

    def meanwhile(*given: Any) -> Any:
        monkeypatch.undo()
        found = look(*given)
        company.do("UPDATE person SET name = '' WHERE id = 7")
        company.check()
        return found

    monkeypatch.setattr(CollectionCheck, "_check", meanwhile)
    with pytest.raises(ServiceError, match="began after this one"):
        company.check(sealed=False)
    assert company.open() == {"named": {'["7"]'}}


def test_tables_that_inherit_are_looked_at_as_a_whole(
    database: str, state: str, tmp_path: Path
) -> None:
    """A key may stand in several of them: the register's names do not tell how many are broken."""
    rule = "expect_column_values_to_be_mobile_numbers, kwargs: {column: phone, mostly: 0.95}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(phone=rule))
    company.do(
        "CREATE TABLE person_old () INHERITS (person)",
        "INSERT INTO person_old (id, name, phone) SELECT id, name, '7' FROM person WHERE id <= 2",
        "UPDATE ONLY person SET phone = '7' WHERE id <= 2",
    )
    for _ in range(2):
        (found,) = company.collection(company.check())["rules"]
        assert (found["rows"], found["broken"], found["outcome"]) == (42, 4, "fail")


def test_a_label_that_stands_twice_stops_no_rule(company: Company) -> None:
    """A broken record belongs to one of the departments of that number."""
    company.do(
        "ALTER TABLE person DROP CONSTRAINT person_branch_id_fkey",
        "ALTER TABLE branch DROP CONSTRAINT branch_pkey",
        "INSERT INTO branch VALUES (1, 'Again North')",
        "UPDATE person SET name = '' WHERE id = 2",
    )
    done = company.check()
    assert "quality.unchecked" not in codes(done)
    assert company.collection(done)["parts"] == [("Again North", 1)]


@pytest.mark.parametrize("key", ["id, subscribed", "id"])
def test_a_key_that_changes_is_looked_at_anew(company: Company, key: str) -> None:
    """Records are named by the key that they have."""
    before = "id" if key != "id" else "id, subscribed"
    swap = "ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE, ADD PRIMARY KEY ({})"
    company.do(swap.format(before), "UPDATE person SET name = '' WHERE id = 3")
    company.check()
    company.do(swap.format(key))
    company.check()
    assert company.open() == {"named": {'["3"]' if key == "id" else '["3","false"]'}}


def test_records_without_a_key_of_their_own_are_never_passed_over(company: Company) -> None:
    """The data map says id is the key; the table lets it be null."""
    company.do("ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE")
    company.do("ALTER TABLE person ALTER COLUMN id DROP NOT NULL")
    company.check()
    company.do(
        "INSERT INTO person (id, name, phone) VALUES (NULL, '', '13900000099')",
        "UPDATE person SET name = '' WHERE id = 4",
    )
    found = company.collection(company.check())
    assert found["whole"]
    assert {one["rule"]: one["broken"] for one in found["rules"]}["named"] == 2


def test_a_key_that_is_written_otherwise_is_the_same_record(
    database: str, state: str, tmp_path: Path
) -> None:
    """3 and 3.0 are equal numbers: a full check lists the record once, as it is written now."""
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


def test_a_day_to_come_becomes_a_day(database: str, state: str, tmp_path: Path) -> None:
    """A date of birth in the future is one no longer; nobody touched the record."""
    rule = "expect_column_values_to_be_resident_id_numbers, kwargs: {column: id_number, part: birth_date}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(born=rule))
    company.do("UPDATE person SET id_number = '110105202603040020' WHERE id = 3")
    company.check()
    assert company.open() == {"born": {'["3"]'}}
    company.check(days=2)
    assert company.open() == {}


def test_a_moment_may_be_an_argument(database: str, state: str, tmp_path: Path) -> None:
    """Counting back inside a call is SQL as any other."""
    rule = "expect_records_to_satisfy, kwargs: {condition: \"seen_at >= date(:now - INTERVAL '2 years')\"}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(seen=rule))
    assert company.check().record.outcome is Outcome.PASS


def test_a_very_long_key_is_named_by_digest(database: str, state: str, tmp_path: Path) -> None:
    """And resolved by it when an incremental check finds its record good."""
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


def test_departments_that_cannot_be_read_stop_no_rule(company: Company) -> None:
    """Broken records are named without them, and somebody is told."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.do("ALTER TABLE branch RENAME COLUMN name TO label")
    done = company.check()
    assert company.open() == {"named": {'["3"]'}}
    assert "quality.no_breakdown" in codes(done)
    assert "quality.unchecked" not in codes(done)


@pytest.mark.parametrize("left", ["rule", "suite"])
def test_what_is_expected_no_longer_is_closed_and_said(
    company: Company, tmp_path: Path, left: str
) -> None:
    """The records are as they were: nobody found them good."""
    company.do("UPDATE person SET name = '' WHERE id = 3")
    company.check()
    rule = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    other = suite("person" if left == "rule" else "branch", filled=rule)
    company.pack = load_pack(
        write_pack(tmp_path / "other", datamap__shop=MAP, quality__person=other)
    )
    done = company.check()
    assert company.open() == {}
    (found,) = [one for one in done.record.findings if one.code == "quality.rule_dropped"]
    assert (found.subject, found.message.values["rules"]) == ("shop.person", "named")
    assert done.record.outcome is Outcome.ATTENTION


def test_a_rule_that_no_record_has_a_value_for_shows_nothing(company: Company) -> None:
    """And values that are all wrong are not diluted by records that have none."""
    company.do("UPDATE person SET phone = NULL")
    assert "quality.about_nothing" in codes(company.check(full=True))
    company.do("UPDATE person SET phone = 'x' || id WHERE id <= 2")
    done = company.check()
    (phone,) = [one for one in company.collection(done)["rules"] if one["rule"] == "phone"]
    assert (phone["rows"], phone["broken"], phone["outcome"]) == (2, 2, "fail")


def test_where_nothing_is_required_nothing_is_shown(
    database: str, state: str, tmp_path: Path
) -> None:
    """A control is not held because nobody asked anything of it."""
    asked = suite(filled="expect_column_values_to_not_be_null, kwargs: {column: name}")
    company = Company.make(
        database, state, tmp_path / "p", quality__person=asked.replace("fail", "warn")
    )
    assert figure(company.check(), "quality.rules_broken") is None
    company.pack = load_pack(write_pack(tmp_path / "q", datamap__shop=MAP, quality__person=asked))
    assert figure(company.check(), "quality.rules_broken") == 0


@pytest.mark.parametrize("values", ["[1, 2]", "[3, 4]"])
def test_values_outside_a_set_are_named(
    database: str, state: str, tmp_path: Path, values: str
) -> None:
    """Great Expectations' own condition holds a list that is written out."""
    rule = f"expect_column_values_to_be_in_set, kwargs: {{column: branch_id, value_set: {values}}}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(known=rule))
    company.check()
    assert len(company.open().get("known", ())) == (0 if values == "[1, 2]" else 40)


@pytest.mark.parametrize("key", ["", "007", "NULL", "null", 'a"b', "{1,2}", "é ,"])
def test_keys_are_texts_of_any_kind(database: str, state: str, tmp_path: Path, key: str) -> None:
    """Empty, like a number, like SQL, or with signs that arrays use: found and mended by usual runs."""
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


def test_a_key_is_written_alike_however_the_server_writes_dates(
    database: str, state: str, tmp_path: Path
) -> None:
    """Its owner may change the style between two runs."""
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


def test_ten_mistakes_of_one_item_hide_none_between_files(tmp_path: Path) -> None:
    """A fault of form in an item, and a name in the same item that leads nowhere."""
    from include.policy.problems import PackError

    wrong = """\
        - {id: a, clause: "4.1", title: {en: t, zh-CN: t}, workflow: w, cadence: daily, owner: nobody, indicator: {name: n, target: "= 0"}, sources: [], surplus: 1}
        """
    with pytest.raises(PackError) as error:
        load_pack(
            write_pack(tmp_path / "p", datamap__shop=MAP, quality__person=SUITE, controls=wrong)
        )
    said = str([one.message for one in error.value.problems])
    assert "this key is not known here" in said
    assert "roles.yaml has no 'nobody'" in said


def test_a_schema_that_no_data_map_uses_is_noticed(company: Company) -> None:
    """A copy of the persons beside them is nobody's."""
    company.do("CREATE SCHEMA aside", "CREATE TABLE aside.person AS TABLE person")
    done = company.check()
    assert codes(done) == {"schema.drift.undeclared_schema"}
    assert done.record.outcome is Outcome.ATTENTION
    # It may be another application's: the control is about the mapped schemas.
    assert figure(done, "quality.undeclared") == 0


def test_json_that_could_not_be_read_is_not_shown_as_declared(
    database: str, state: str, tmp_path: Path
) -> None:
    """Nobody knows what keys it has."""
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
    done = company.check()
    assert "schema.json_unchecked" in codes(done)
    assert figure(done, "quality.undeclared") is None
