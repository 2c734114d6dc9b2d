"""What usual runs carry on from earlier ones: figures, clean columns, counts of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.policy import load_pack
from include.quality import check as checks
from include.quality import collection, counts
from include.schema.live import read_schema
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Company, suite


def test_a_table_that_is_filled_was_not_empty(company: Company) -> None:
    """Nothing is said of an empty table once it has records."""
    company.do("CREATE TABLE kept AS TABLE person", "TRUNCATE person CASCADE")
    assert "quality.empty" in {one.code for one in company.check().record.findings}
    company.do("INSERT INTO person TABLE kept")
    seen = company.check()
    assert not {one.code for one in seen.record.findings if one.code.startswith("quality.empt")}
    assert company.collection(seen)["rows"] == 40


def test_figures_are_carried_on_while_they_decide(company: Company) -> None:
    """A usual run counts only when what changed since could decide a rule otherwise."""
    company.do(
        "UPDATE person SET subscribed = true",
        "INSERT INTO consent SELECT 2000 + id, id, 'marketing' FROM person",
    )
    counted = company.collection(company.check())
    assert (counted["counted"], counted["rows"]) == (True, 40)
    company.do("INSERT INTO person (id, name, phone) VALUES (99, 'Ada', '13900000099')")
    carried = company.collection(company.check())
    assert (carried["counted"], carried["rows"]) == (False, 40)
    # Four of forty may have no mobile number; whether five may depends on how many there are now.
    company.do("UPDATE person SET phone = '7' WHERE id < 5")
    decided = company.collection(company.check())
    assert (decided["counted"], decided["rows"]) == (True, 41)
    assert {one["rule"]: one["rows"] for one in decided["rules"]}["consent"] == 40
    company.do("UPDATE person SET name = '' WHERE id = 9")
    again = company.collection(company.check())
    assert (again["counted"], again["rows"]) == (False, 41)


def test_too_many_changes_are_counted(company: Company) -> None:
    """Whoever looks at all records has no reason to carry a count on."""
    company.do(
        "UPDATE person SET subscribed = true",
        "INSERT INTO consent SELECT 2000 + id, id, 'marketing' FROM person",
    )
    company.check()
    company.do(
        "INSERT INTO person (id, name, phone)"
        " SELECT n, 'New ' || n, '139' || lpad(n::text, 8, '0') FROM generate_series(51, 59) n"
    )
    seen = company.collection(company.check())
    assert (seen["whole"], seen["counted"], seen["rows"]) == (True, True, 49)


def test_too_many_twins_that_may_be_mended_are_looked_at_with_all_records(
    company: Company,
) -> None:
    """Each is a record to look at, though none of them changed."""
    company.do("UPDATE person SET name = 'Ada', phone = '13900000001' WHERE id <= 10")
    company.check()
    seen = company.collection(company.check())
    assert seen["whole_because"]["text"].startswith("more than {most} records")
    company.do("UPDATE person SET phone = '139' || lpad(id::text, 8, '0') WHERE id <= 3")
    company.check()
    assert len(company.open()["twin"]) == 7


def test_deleted_records_are_noticed_once_the_server_has_counted_them(company: Company) -> None:
    """Its statistics may be late by seconds: then the run after it resolves the entry."""
    company.do("UPDATE person SET name = '' WHERE id IN (2, 3)")
    company.check()
    with psycopg.connect(company.conninfo, autocommit=True) as late:
        late.execute("DELETE FROM consent WHERE person_id = 2")
        late.execute("SELECT pg_stat_force_next_flush()")
        late.execute("DELETE FROM person WHERE id = 2")
        company.check()
        before = company.open()
    company.do("SELECT 1")
    company.check()
    assert before["named"] >= {'["3"]'}
    assert company.open() == {"named": {'["3"]'}}


def test_statistics_that_began_again_hide_no_deletion(company: Company) -> None:
    """After a crash nobody knows what was deleted: every entry is asked for."""
    company.do("DELETE FROM consent WHERE person_id IN (1, 2)", "DELETE FROM person WHERE id = 1")
    company.do("UPDATE person SET name = '' WHERE id IN (2, 3)")
    company.check()
    company.do("DELETE FROM person WHERE id = 2", "SELECT pg_stat_force_next_flush()")
    company.do("SELECT pg_stat_reset()")
    assert company.collection(company.check())["counted"]
    assert company.open() == {"named": {'["3"]'}}


def test_a_deletion_during_a_check_is_noticed_by_the_next(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statistics are read before the snapshot: what they count is gone from it."""
    company.do("DELETE FROM consent WHERE person_id = 2")
    company.do("UPDATE person SET name = '' WHERE id IN (2, 3)")
    company.check()

    def meanwhile(*given: Any) -> Any:
        company.do("DELETE FROM person WHERE id = 2")
        return read_schema(*given)

    with monkeypatch.context() as patched:
        patched.setattr(checks, "read_schema", meanwhile)
        company.check()
    assert company.open() == {"named": {'["2"]', '["3"]'}}
    company.check()
    assert company.open() == {"named": {'["3"]'}}


@pytest.mark.parametrize(
    "reset", ["pg_stat_reset()", "pg_stat_reset_single_table_counters('person'::regclass)"]
)
def test_statistics_that_caught_up_after_a_reset_are_not_taken_for_the_same(
    company: Company, reset: str
) -> None:
    """As many deletions since the reset as there were before it."""
    company.do("DELETE FROM consent WHERE person_id IN (1, 2)", "DELETE FROM person WHERE id = 1")
    company.do("UPDATE person SET name = '' WHERE id IN (2, 3)")
    company.check()
    company.do(f"SELECT {reset}")
    company.do("DELETE FROM person WHERE id = 2")
    company.check()
    assert company.open() == {"named": {'["3"]'}}


def test_a_faulty_rule_leaves_other_figures_alone(
    database: str, state: str, tmp_path: Path
) -> None:
    """Three of the four that the other is about are broken, not three of forty."""
    company = Company.make(
        database,
        state,
        tmp_path / "p",
        quality__person=suite(
            few="expect_column_values_to_be_mobile_numbers, "
            "kwargs: {column: phone, where: id <= 4, mostly: 0.5}",
            faulty="expect_column_values_to_be_mobile_numbers, "
            "kwargs: {column: phone, where: name::int > 0}",
        ),
    )
    company.do("UPDATE person SET phone = '7' WHERE id <= 3")
    found = {one["rule"]: one for one in company.collection(company.check())["rules"]}
    assert (found["few"]["rows"], found["few"]["outcome"]) == (4, "fail")
    assert found["faulty"]["broken"] is None


def test_figures_that_decide_nothing_are_not_judged_by(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the new count fails, the rule is unchecked, and not what it was."""
    company.do("UPDATE person SET phone = '7' WHERE id < 5")
    company.check()
    company.do(
        *(f"DELETE FROM {one} > 34" for one in ("consent WHERE person_id", "person WHERE id"))
    )
    monkeypatch.setattr(counts, "count", lambda *_given: None)
    found = {one["rule"]: one for one in company.collection(company.check())["rules"]}
    assert (found["phone"]["broken"], found["phone"]["outcome"]) == (None, "fail")
    assert found["named"]["outcome"] == "pass"


def test_more_than_can_be_named_are_looked_for_among_all(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The register does not tell how many were broken before; a new look at all does."""
    monkeypatch.setattr(collection, "MOST_NAMED", 5)
    company.do("UPDATE person SET phone = '7' WHERE id <= 5")
    company.check()
    company.do("UPDATE person SET phone = '8' WHERE id BETWEEN 20 AND 26")
    seen = company.collection(company.check())
    assert {one["rule"]: one["broken"] for one in seen["rules"]}["phone"] == 12


def test_a_table_that_grew_is_told_by_its_own_count(
    database: str, state: str, tmp_path: Path
) -> None:
    """Great Expectations counts it in every run; that figure stands in the finding."""
    rule = "expect_table_row_count_to_be_between, kwargs: {max_value: 41}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(size=rule))
    company.check()
    company.do("INSERT INTO person SELECT n FROM generate_series(101, 103) n")
    (finding,) = [one for one in company.check().record.findings if one.code == "quality.broken"]
    assert finding.message.values["rows"] == 43


KEYED = MAP.replace(
    "      - name: subscribed\n",
    "      - name: subscribed\n      - {name: prefs, fields: [{name: colour}]}\n",
)


def test_an_undeclared_key_is_found_in_what_changed(
    database: str, state: str, tmp_path: Path
) -> None:
    """And named until it is gone: what was not clean is looked at as a whole."""
    company = Company.make(database, state, tmp_path / "p", datamap__shop=KEYED)
    company.do("ALTER TABLE person ADD COLUMN prefs jsonb")
    company.do("""UPDATE person SET prefs = '{"colour": "red"}'""")

    def undeclared() -> list[str]:
        done = company.check()
        assert company.collection(done)["whole"] is (company.runs == 1)
        codes = "schema.drift.undeclared_key"
        return [one.subject for one in done.record.findings if one.code == codes]

    assert undeclared() == []
    assert undeclared() == []
    company.do("""UPDATE person SET prefs = '{"faith": "x"}' WHERE id = 5""")
    assert undeclared() == ["shop.public.person.prefs"]
    assert undeclared() == ["shop.public.person.prefs"]
    company.do("""UPDATE person SET prefs = '{}' WHERE id = 5""")
    assert undeclared() == []
    assert company.open() == {}


def test_a_rule_may_be_called_as_a_json_column(database: str, state: str, tmp_path: Path) -> None:
    """Each is asked for itself."""
    rules = suite(prefs="expect_column_values_to_not_be_blank, kwargs: {column: name}")
    company = Company.make(
        database, state, tmp_path / "p", datamap__shop=KEYED, quality__person=rules
    )
    company.do(
        "ALTER TABLE person ADD COLUMN prefs jsonb", "UPDATE person SET name = '' WHERE id = 3"
    )
    company.check()
    assert company.open() == {"prefs": {'["3"]'}}


def test_another_try_leaves_nothing_of_the_first(database: str, state: str, tmp_path: Path) -> None:
    """A column that was clean at the first try is not clean because of that."""
    company = Company.make(database, state, tmp_path / "p", datamap__shop=KEYED)
    company.do("ALTER TABLE person ADD COLUMN prefs jsonb")
    company.check(sealed=False)
    company.do("""UPDATE person SET prefs = '{"faith": "x"}'""")
    company.runs -= 1
    codes = "schema.drift.undeclared_key"
    assert codes in {one.code for one in company.check().record.findings}
    assert codes in {one.code for one in company.check().record.findings}


@pytest.mark.parametrize("change", ["DELETE FROM person", "UPDATE person SET name = 'x'"])
def test_what_changed_adds_up_from_run_to_run(
    database: str, state: str, tmp_path: Path, change: str
) -> None:
    """Three of forty may be broken, and of thirty; of twenty-nine not."""
    rule = "expect_column_values_to_be_mobile_numbers, kwargs: {column: phone, mostly: 0.9}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(phone=rule))
    company.do("DELETE FROM consent", "UPDATE person SET phone = '7' WHERE id < 4")
    assert company.collection(company.check())["counted"]
    for first, last, counted in ((36, 40, False), (31, 35, False), (30, 30, True)):
        company.do(f"{change} WHERE id BETWEEN {first} AND {last}")
        assert company.collection(company.check())["counted"] is counted


def test_another_declaration_is_held_against_all_records(
    database: str, state: str, tmp_path: Path
) -> None:
    """The column was clean as far as the old data map said."""
    company = Company.make(database, state, tmp_path / "p", datamap__shop=KEYED)
    company.do("ALTER TABLE person ADD COLUMN prefs jsonb")
    company.do("""UPDATE person SET prefs = '{"colour": "red"}'""")
    company.check()
    other = KEYED.replace("{name: colour}", "{name: size}")
    files = {"datamap__shop": other, "quality__person": SUITE}
    company.pack = load_pack(write_pack(tmp_path / "q", **files))
    done = company.check()
    assert not company.collection(done)["whole"]
    assert "schema.drift.undeclared_key" in {one.code for one in done.record.findings}


def test_deletions_in_partitions_are_noticed(database: str, state: str, tmp_path: Path) -> None:
    """Statistics are those of the partitions; their parent has none."""
    rule = "expect_column_values_to_not_be_null, kwargs: {column: name}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(filled=rule))
    company.do(
        "DROP TABLE consent, person",
        "CREATE TABLE consent (id bigint PRIMARY KEY, person_id bigint, purpose text)",
        """CREATE TABLE person (id bigint PRIMARY KEY, name text, phone text, id_number text,
        email text, faith text, branch_id int, seen_at timestamptz, subscribed boolean)
        PARTITION BY RANGE (id)""",
        "CREATE TABLE person_1 PARTITION OF person FOR VALUES FROM (1) TO (20)",
        "CREATE TABLE person_2 PARTITION OF person FOR VALUES FROM (20) TO (99)",
        "INSERT INTO person SELECT n, CASE WHEN n NOT IN (3, 30) THEN 'x' END"
        " FROM generate_series(1, 40) n",
    )
    company.check()
    company.do("DELETE FROM person WHERE id = 30")
    seen = company.collection(company.check())
    assert (seen["whole"], company.open()) == (False, {"filled": {'["3"]'}})


def test_a_condition_holds_for_twins_in_usual_runs_too(
    database: str, state: str, tmp_path: Path
) -> None:
    """A record that the rule is not about is nobody's later twin; equal keys have no order."""
    rule = "expect_records_to_be_distinct, kwargs: {columns: [phone], where: subscribed}"
    company = Company.make(database, state, tmp_path / "p", quality__person=suite(twin=rule))
    company.check()
    company.do("UPDATE person SET phone = '13900000001' WHERE id IN (5, 40)")
    assert not company.collection(company.check())["whole"]
    assert company.open() == {"twin": {'["40"]'}}
