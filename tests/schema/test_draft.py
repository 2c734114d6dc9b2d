"""Drafted packs: the loader accepts them, they match their database, and they contain no value."""

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
from include.schema.drift import find_drift
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


def load_draft(draft: Draft, folder: Path) -> MappedDatabase:
    """Write a drafted data map, and return its database as the pack loader reads it."""
    write_draft(folder, {name: text for name, text in draft.files.items() if "datamap" in name})
    pack = load_pack(folder)
    assert all("unconfirmed" in remark.message for remark in pack.remarks)
    return pack.database(draft.name)


def test_data_map_drafted_from_chinook_database_has_no_differences_from_it(
    chinook: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """The draft has all keys, references and types, so a comparison finds no difference."""
    draft = draft_of(chinook, "chinook")
    database = load_draft(draft, tmp_path)
    assert find_drift(read_schema(chinook), database) == []
    customer = database.collections["customer"]
    assert customer.primary_key == ("customer_id",)
    assert customer.fields["email"].categories == ("user.contact.email",)
    assert customer.fields["email"].subjects == ("customer",)
    assert database.collections["employee"].fields["title"].subjects == ("employee",)
    assert customer.fields["support_rep_id"].references[0].collection == "employee"
    assert not any(field.is_personal for field in database.collections["track"].fields.values())
    assert "# high: name, and 100% of the values" in draft.data_map
    assert draft.tables == 11


def test_data_map_drafted_from_sample_database_has_no_differences_from_it(
    courier: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """The sample has composite keys, partitions, and keys inside JSON columns."""
    database = load_draft(draft_of(courier, "courier"), tmp_path)
    assert find_drift(read_schema(courier), database) == []
    raw = database.collections["intake_record"].fields["raw"]
    assert {"name", "phone", "address"} <= set(raw.fields)
    assert raw.fields["phone"].is_personal


@pytest.mark.parametrize("name", sorted(path.stem for path in UNSEEN.glob("*.sql")))
def test_data_map_drafted_from_each_unfamiliar_schema_has_no_differences_from_it(
    postgres: EmbeddedPostgres, tmp_path: Path, name: str
) -> None:
    """These databases have pinyin names, camelCase names, or several schemas."""
    with scratch(postgres, (UNSEEN / f"{name}.sql").read_text(encoding="utf-8")) as connection:
        database = load_draft(draft_of(connection), tmp_path)
        assert find_drift(read_schema(connection), database) == []


def test_drafted_data_map_lists_every_guessed_personal_column_as_unconfirmed(
    courier: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Guesses about keys inside JSON columns are listed too."""
    draft = draft_of(courier, "courier")
    database = load_draft(draft, tmp_path)
    listed = {
        (collection.table, path)
        for collection in database.collections.values()
        for path in collection.unconfirmed
    }
    guessed = {(guess.table, f"{guess.column}.{guess.key}".rstrip(".")) for guess in draft.guesses}
    assert listed == guessed
    assert ("intake_record", "raw.phone") in listed


def test_draft_sets_data_subject_employee_for_column_that_refers_to_a_clerk(
    courier: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """The column names the clerk who entered the customer's record."""
    customer = load_draft(draft_of(courier, "courier"), tmp_path).collections["customer"]
    assert customer.fields["entered_by"].subjects == ("employee",)
    assert customer.fields["name"].subjects == ("customer",)


def test_draft_comments_contain_number_of_rows_read_from_each_table(
    postgres: EmbeddedPostgres,
) -> None:
    """The tables are a small one, a large one that is sampled, and one that cannot be read."""
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


def test_unusual_table_and_column_names_are_unchanged_in_drafted_data_map(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The names contain dots, quotes, Chinese characters, and words that YAML interprets."""
    script = (
        SCRIPT + 'CREATE TABLE "no" ("null" int, "1" text, "a: b # c" text, "line\nbreak" text);'
        'CREATE TABLE "x.y" (id int PRIMARY KEY); CREATE SCHEMA x; CREATE TABLE x.y (id int);'
    )
    with scratch(postgres, script) as connection:
        database = load_draft(draft_of(connection), tmp_path)
        assert find_drift(read_schema(connection), database) == []
    tables = {
        (collection.schema_name, collection.table) for collection in database.collections.values()
    }
    assert {("sales.eu", 'Kunde "Süd"'), ("public", "x.y"), ("x", "y"), ("public", "no")} <= tables
    assert ("other", "seen") not in tables  # views only show the content of tables


def test_draft_contains_no_value_of_the_database(postgres: EmbeddedPostgres) -> None:
    """Values must appear neither in comments, nor as JSON keys, nor in expectations."""
    script = f"""CREATE TABLE customer (id int PRIMARY KEY, name text, phone text, extra jsonb);
    INSERT INTO customer SELECT n, '{CANARY}', '{CANARY}', '{{"{CANARY}": "{CANARY}"}}'
    FROM generate_series(1, 30) n;"""
    with scratch(postgres, script) as connection:
        draft = draft_of(connection)
    text = "".join(draft.files.values()) + repr(draft)
    assert CANARY not in text


def test_draft_has_format_expectation_for_column_if_its_values_have_that_format(
    chinook: psycopg.Connection[Any],
) -> None:
    """At least 95% of the values must have a format. All drafted expectations only warn."""
    suites = yaml.safe_load(draft_of(chinook).files["quality/drafted.yaml"])
    rules = {
        (suite["collection"], rule["kwargs"]["column"]): rule["type"]
        for suite in suites
        for rule in suite["expectations"]
        if not rule["id"].startswith("missing_")
    }
    assert rules["customer", "email"] == "expect_column_values_to_be_email_addresses"
    assert rules["customer", "phone"] == "expect_column_values_to_match_regex"
    assert rules["customer", "first_name"] == "expect_column_values_to_not_be_blank"
    assert not {"track", "artist", "genre"} & {suite["collection"] for suite in suites}
    expectations = [rule for suite in suites for rule in suite["expectations"]]
    assert {rule["severity"] for rule in expectations} == {"warn"}
    assert all(
        set(rule["title"]) == {"en", "zh-CN"} and rule["clause"] == "4.1" for rule in expectations
    )
    for suite in suites:
        names = [expectation["id"] for expectation in suite["expectations"]]
        assert len(names) == len(set(names))


def test_draft_lists_all_keys_of_json_column_if_some_keys_are_personal(
    postgres: EmbeddedPostgres,
) -> None:
    """Otherwise the next check would report the omitted keys as undeclared."""
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


def test_draft_has_no_expectation_for_column_without_values(postgres: EmbeddedPostgres) -> None:
    """At the next check, every record would break an expectation that requires a value."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, name text, middle_name text);
    INSERT INTO customer SELECT n, 'Anna Schmidt', NULL FROM generate_series(1, 30) n;"""
    with scratch(postgres, script) as connection:
        suites = yaml.safe_load(draft_of(connection).files["quality/drafted.yaml"])
    (rules,) = [suite["expectations"] for suite in suites]
    assert {rule["kwargs"]["column"] for rule in rules} == {"name"}


def test_draft_has_expectations_for_resident_id_and_mobile_number_columns(
    courier: psycopg.Connection[Any],
) -> None:
    """The few wrong numbers of the sample are within the tolerance of drafted expectations."""
    suites = yaml.safe_load(draft_of(courier).files["quality/drafted.yaml"])
    customer = next(suite for suite in suites if suite["collection"] == "customer")
    rules = {
        (expectation["type"], expectation["kwargs"].get("part"))
        for expectation in customer["expectations"]
    }
    assert ("expect_column_values_to_be_mobile_numbers", None) in rules
    kind = "expect_column_values_to_be_resident_id_numbers"
    assert {(kind, "form"), (kind, "birth_date"), (kind, "check_character")} <= rules


def test_drafted_purpose_lists_every_column_that_is_guessed_to_be_personal(
    chinook: psycopg.Connection[Any],
) -> None:
    """The purpose has the id ``undecided``, because a person has to define the real purposes."""
    draft = draft_of(chinook)
    text = draft.files["purposes.yaml"]
    (purpose,) = yaml.safe_load(text)
    listed = {
        (table, column)
        for table, columns in purpose["fields"]["drafted"].items()
        for column in columns
    }
    assert listed == {(guess.table, guess.column) for guess in draft.guesses}
    assert purpose["id"] == "undecided"
    assert "has to decide" in text


def test_draft_of_database_without_personal_data_can_be_loaded(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The drafted files then contain empty lists."""
    with scratch(postgres, "CREATE TABLE genre (id int PRIMARY KEY, name text);") as connection:
        draft = draft_of(connection)
    assert yaml.safe_load(draft.files["quality/drafted.yaml"]) == []
    assert yaml.safe_load(draft.files["purposes.yaml"])[0]["fields"] == {"drafted": {}}
    assert load_draft(draft, tmp_path).collections["genre"].primary_key == ("id",)


def test_database_connection_refuses_writes_after_survey_has_used_it(
    courier: psycopg.Connection[Any],
) -> None:
    courier.rollback()
    survey(courier, name="x")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        courier.execute("CREATE TABLE mine (id int)")
    courier.rollback()
    courier.read_only = None


def test_survey_raises_error_if_name_is_invalid_or_database_is_empty_or_connection_is_lost(
    postgres: EmbeddedPostgres,
) -> None:
    """The errors are about an invalid name, an empty database, and a lost connection."""
    with scratch(postgres) as connection:
        with pytest.raises(UsageError, match="--name"):
            survey(connection, name="../x")
        with pytest.raises(UsageError, match="no tables"):
            survey(connection, name="x")
        connection.close()
        with pytest.raises(ServiceError, match="SQLSTATE"):
            survey(connection, name="x")


def test_write_draft_raises_usage_error_and_writes_nothing_if_a_file_exists(tmp_path: Path) -> None:
    """If one file exists, the other files are not written either."""
    (tmp_path / "purposes.yaml").write_text("mine")
    with pytest.raises(UsageError, match="already"):
        write_draft(tmp_path, {"datamap/x.yaml": "a", "purposes.yaml": "b"})
    assert not (tmp_path / "datamap").exists()
    assert (tmp_path / "purposes.yaml").read_text() == "mine"
