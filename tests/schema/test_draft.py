"""A drafted pack: it loads, it fits the database it was drafted from, and it holds no value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from include.local.postgres import EmbeddedPostgres
from include.policy.datamap import MappedDatabase
from include.registry import load_pack
from include.schema.draft import Draft
from include.schema.drift import drift
from include.schema.live import read_schema
from include.schema.survey import survey, write_draft
from include.services.errors import ServiceError, UsageError
from tests.schema.support import scratch
from tests.schema.test_guess import UNSEEN
from tests.schema.test_live import SCRIPT

CANARY = "CANARY-7f3a91"


def draft_of(connection: psycopg.Connection[Any], name: str = "drafted") -> Draft:
    connection.rollback()
    try:
        return survey(connection, name=name)
    finally:
        connection.read_only = None


def loaded(draft: Draft, folder: Path) -> MappedDatabase:
    """The drafted data map as the pack's own loader reads it."""
    write_draft(folder, {name: text for name, text in draft.files.items() if "datamap" in name})
    pack = load_pack(folder)
    assert all("unconfirmed" in one.message for one in pack.remarks)
    return pack.database(draft.name)


def test_a_draft_of_chinook_is_its_map(chinook: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Keys, references, types and categories; no drift from the database."""
    draft = draft_of(chinook, "chinook")
    database = loaded(draft, tmp_path)
    assert drift(read_schema(chinook), database) == []
    customer = database.collections["customer"]
    assert customer.primary_key == ("customer_id",)
    assert customer.fields["email"].categories == ("user.contact.email",)
    assert customer.fields["email"].subjects == ("customer",)
    assert database.collections["employee"].fields["title"].subjects == ("employee",)
    assert customer.fields["support_rep_id"].references[0].collection == "employee"
    assert not any(one.is_personal for one in database.collections["track"].fields.values())
    assert "# high: name, and 100% of the values" in draft.data_map
    assert draft.tables == 11


def test_a_draft_of_the_sample_fits_it(courier: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Composite keys and partitions; keys inside JSON columns stand below them."""
    database = loaded(draft_of(courier, "courier"), tmp_path)
    assert drift(read_schema(courier), database) == []
    raw = database.collections["intake_record"].fields["raw"]
    assert {"name", "phone", "address"} <= set(raw.fields)
    assert raw.fields["phone"].is_personal


@pytest.mark.parametrize("name", sorted(path.stem for path in UNSEEN.glob("*.sql")))
def test_drafts_of_other_databases_load(
    postgres: EmbeddedPostgres, tmp_path: Path, name: str
) -> None:
    """Pinyin, camelCase, several schemas."""
    with scratch(postgres, (UNSEEN / f"{name}.sql").read_text(encoding="utf-8")) as connection:
        database = loaded(draft_of(connection), tmp_path)
        assert drift(read_schema(connection), database) == []


def test_every_guess_is_unconfirmed(courier: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Keys inside JSON columns too; a person deletes what was checked."""
    draft = draft_of(courier, "courier")
    database = loaded(draft, tmp_path)
    listed = {
        (collection.table, path)
        for collection in database.collections.values()
        for path in collection.unconfirmed
    }
    guessed = {(one.table, f"{one.column}.{one.key}".rstrip(".")) for one in draft.guesses}
    assert listed == guessed
    assert ("intake_record", "raw.phone") in listed


def test_a_key_to_staff_is_about_staff(courier: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Who entered a customer's record is nothing about the customer's work."""
    customer = loaded(draft_of(courier, "courier"), tmp_path).collections["customer"]
    assert customer.fields["entered_by"].subjects == ("employee",)
    assert customer.fields["name"].subjects == ("customer",)


def test_a_draft_states_the_rows_it_rests_on(postgres: EmbeddedPostgres) -> None:
    """All of a small table, a sample of a large one, none of a closed one, with what to do."""
    script = """CREATE TABLE large (mail text); INSERT INTO large SELECT 'a@b.example'
        FROM generate_series(1, 60000); ANALYZE large;
    CREATE TABLE small (mail text); INSERT INTO small VALUES ('a@b.example');
    CREATE TABLE customer (mail text, zero int,
        part text GENERATED ALWAYS AS ((1 / zero)::text) VIRTUAL);
    INSERT INTO customer VALUES ('a@b.example', 0);
    CREATE MATERIALIZED VIEW unfilled AS SELECT mail FROM small WITH NO DATA;"""
    with scratch(postgres, script) as connection:
        draft = draft_of(connection)
    text = draft.data_map
    assert re.search(r"# Values: [45],\d{3} of about 60,000 rows, from all over the table\.", text)
    assert "# Values: all 1 rows." in text
    assert "# Not read: part: PostgreSQL ended the statement with SQLSTATE 22012" in text
    assert "# Guessed by names alone, as no value was read: it has nothing to read" in text
    assert draft.refused == {"public.unfilled": "55000"}
    assert draft.unread == {"public.customer": {"part": "22012"}}
    assert draft.rows["public.small"] == 1


def test_names_of_any_kind_survive(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Dots in schemas and tables, quotes, Chinese, words that YAML reads as something else."""
    script = (
        SCRIPT + 'CREATE TABLE "no" ("null" int, "1" text, "a: b # c" text, "line\nbreak" text);'
        'CREATE TABLE "x.y" (id int PRIMARY KEY); CREATE SCHEMA x; CREATE TABLE x.y (id int);'
    )
    with scratch(postgres, script) as connection:
        database = loaded(draft_of(connection), tmp_path)
        assert drift(read_schema(connection), database) == []
    tables = {(one.schema_name, one.table) for one in database.collections.values()}
    assert {("sales.eu", 'Kunde "Süd"'), ("public", "x.y"), ("x", "y"), ("public", "no")} <= tables
    assert ("other", "seen") not in tables  # a view shows what tables hold


def test_no_value_is_in_a_draft(postgres: EmbeddedPostgres) -> None:
    """Not in comments, not as a key of JSON, not in an expectation."""
    script = f"""CREATE TABLE customer (id int PRIMARY KEY, name text, phone text, extra jsonb);
    INSERT INTO customer SELECT n, '{CANARY}', '{CANARY}', '{{"{CANARY}": "{CANARY}"}}'
    FROM generate_series(1, 30) n;"""
    with scratch(postgres, script) as connection:
        draft = draft_of(connection)
    text = "".join(draft.files.values()) + repr(draft)
    assert CANARY not in text


def test_expectations_are_those_that_the_values_meet(chinook: psycopg.Connection[Any]) -> None:
    """Formats from 95% of the values on; phones of the world by their form; all of them warn."""
    suites = yaml.safe_load(draft_of(chinook).files["quality/drafted.yaml"])
    rules = {
        (suite["collection"], one["kwargs"]["column"]): one["type"]
        for suite in suites
        for one in suite["expectations"]
        if not one["id"].startswith("missing_")
    }
    assert rules["customer", "email"] == "expect_column_values_to_be_email_addresses"
    assert rules["customer", "phone"] == "expect_column_values_to_match_regex"
    assert rules["customer", "first_name"] == "expect_column_values_to_not_be_blank"
    assert not {"track", "artist", "genre"} & {suite["collection"] for suite in suites}
    every = [one for suite in suites for one in suite["expectations"]]
    assert {one["severity"] for one in every} == {"warn"}
    assert all(set(one["title"]) == {"en", "zh-CN"} and one["clause"] == "4.1" for one in every)
    for suite in suites:
        names = [one["id"] for one in suite["expectations"]]
        assert len(names) == len(set(names))


def test_draft_names_every_read_key_of_a_json_column_with_personal_keys(
    postgres: EmbeddedPostgres,
) -> None:
    """The next check finds no key that the draft left out."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, extra jsonb);
    INSERT INTO customer SELECT n, jsonb_build_object('phone', '13800138' || lpad(n::text, 3, '0'),
        'colour', 'red', 'size', n) FROM generate_series(1, 30) n;"""
    with scratch(postgres, script) as connection:
        draft = draft_of(connection)
    (dataset,) = yaml.safe_load(draft.data_map)["dataset"]
    (extra,) = [field for field in dataset["collections"][0]["fields"] if field["name"] == "extra"]
    inside = {field["name"]: field.get("data_categories") for field in extra["fields"]}
    assert set(inside) == {"phone", "colour", "size"}
    assert inside["phone"] == ["user.contact.phone_number"]


def test_draft_expects_no_name_where_no_record_has_one(postgres: EmbeddedPostgres) -> None:
    """A column without any value would break the rule in every record at the next check."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, name text, middle_name text);
    INSERT INTO customer SELECT n, 'Anna Schmidt', NULL FROM generate_series(1, 30) n;"""
    with scratch(postgres, script) as connection:
        suites = yaml.safe_load(draft_of(connection).files["quality/drafted.yaml"])
    (rules,) = [suite["expectations"] for suite in suites]
    assert {rule["kwargs"]["column"] for rule in rules} == {"name"}


def test_resident_ids_and_mobiles_are_recognised(courier: psycopg.Connection[Any]) -> None:
    """The sample's few wrong numbers stay below what a draft asks for."""
    suites = yaml.safe_load(draft_of(courier).files["quality/drafted.yaml"])
    customer = next(one for one in suites if one["collection"] == "customer")
    said = {(one["type"], one["kwargs"].get("part")) for one in customer["expectations"]}
    assert ("expect_column_values_to_be_mobile_numbers", None) in said
    kind = "expect_column_values_to_be_resident_id_numbers"
    assert {(kind, "form"), (kind, "birth_date"), (kind, "check_character")} <= said


def test_the_purpose_lists_what_was_found(chinook: psycopg.Connection[Any]) -> None:
    """Nothing is silently over-collected, and a person has to decide."""
    draft = draft_of(chinook)
    text = draft.files["purposes.yaml"]
    (purpose,) = yaml.safe_load(text)
    listed = {
        (table, column)
        for table, columns in purpose["fields"]["drafted"].items()
        for column in columns
    }
    assert listed == {(one.table, one.column) for one in draft.guesses}
    assert purpose["id"] == "undecided"
    assert "has to decide" in text


def test_a_database_without_people_gets_a_valid_pack(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Empty lists, not empty files."""
    with scratch(postgres, "CREATE TABLE genre (id int PRIMARY KEY, name text);") as connection:
        draft = draft_of(connection)
    assert yaml.safe_load(draft.files["quality/drafted.yaml"]) == []
    assert yaml.safe_load(draft.files["purposes.yaml"])[0]["fields"] == {"drafted": {}}
    assert loaded(draft, tmp_path).collections["genre"].primary_key == ("id",)


def test_nothing_is_written_to_the_database(courier: psycopg.Connection[Any]) -> None:
    """The transaction is read-only."""
    courier.rollback()
    survey(courier, name="x")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        courier.execute("CREATE TABLE mine (id int)")
    courier.rollback()
    courier.read_only = None


def test_what_cannot_be_drafted_is_one_line(postgres: EmbeddedPostgres) -> None:
    """A bad name, an empty database, a server that went away."""
    with scratch(postgres) as connection:
        with pytest.raises(UsageError, match="--name"):
            survey(connection, name="../x")
        with pytest.raises(UsageError, match="no tables"):
            survey(connection, name="x")
        connection.close()
        with pytest.raises(ServiceError, match="SQLSTATE"):
            survey(connection, name="x")


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """And none of the others is written then."""
    (tmp_path / "purposes.yaml").write_text("mine")
    with pytest.raises(UsageError, match="already"):
        write_draft(tmp_path, {"datamap/x.yaml": "a", "purposes.yaml": "b"})
    assert not (tmp_path / "datamap").exists()
    assert (tmp_path / "purposes.yaml").read_text() == "mine"
