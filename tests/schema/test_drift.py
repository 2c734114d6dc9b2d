"""Differences between a live schema and a data map, and the findings about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.messages import in_english
from include.policy import SHIPPED
from include.policy.datamap import MappedDatabase, MappedField
from include.registry import load_pack
from include.schema.drift import Drift, DriftKind, find_drift, mapped_schemas
from include.schema.findings import findings
from include.schema.live import LiveColumn, fides_type, matches_type, read_schema
from tests.schema.support import field, fields, make_data_map, scratch

CHINOOK = Path(__file__).parents[2] / "examples" / "packs" / "chinook"

SHOP = """
CREATE TABLE person (id int PRIMARY KEY, name text, born date, tags text[], extra jsonb);
CREATE TABLE orders (id int, at date, person_id int REFERENCES person, PRIMARY KEY (id, at));
"""
MAP = {
    "person": fields(
        field("id", key=True, kind="integer"), field("name", kind="string"), field("born"),
        field("tags", kind="string[]"), MappedField(name="extra", fields=fields(field("phone"))),
    ),
    "orders": fields(
        field("id", key=True), field("at", key=True), field("person_id", "person.id")
    ),
}  # fmt: skip


def differences(
    postgres: EmbeddedPostgres, change: str, data_map: MappedDatabase | None = None
) -> list[tuple[str, str, str]]:
    with scratch(postgres, SHOP + change) as connection:
        drifts = find_drift(read_schema(connection), data_map or make_data_map(MAP))
    return [
        (str(difference.kind), f"{difference.schema}.{difference.table}", difference.column)
        for difference in drifts
    ]


def test_shipped_data_map_does_not_differ_from_the_sample_database(
    courier: psycopg.Connection[Any],
) -> None:
    """The sample has partitions, cycles of foreign keys, and composite keys."""
    database = load_pack(SHIPPED).database("courier")
    assert find_drift(read_schema(courier, mapped_schemas(database)), database) == []
    assert find_drift(read_schema(courier), database) == []


def test_example_data_map_does_not_differ_from_the_chinook_database(
    chinook: psycopg.Connection[Any],
) -> None:
    """Chinook is a public database of another project, whose data map was written by hand."""
    assert find_drift(read_schema(chinook), load_pack(CHINOOK).database("chinook")) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("", []),
        (
            "ALTER TABLE person ADD religion text",
            [("undeclared_column", "public.person", "religion")],
        ),
        (
            "ALTER TABLE person RENAME name TO full_name",
            [
                ("undeclared_column", "public.person", "full_name"),
                ("missing_column", "public.person", "name"),
            ],
        ),
        ("CREATE TABLE leads (phone text)", [("undeclared_table", "public.leads", "")]),
        ("CREATE TABLE nothing ()", []),
        ("CREATE VIEW adults AS SELECT name FROM person", []),
        (
            "CREATE MATERIALIZED VIEW kept AS SELECT name FROM person",
            [("undeclared_table", "public.kept", "")],
        ),
        ("DROP TABLE orders", [("missing_table", "public.orders", "")]),
        ("CREATE SCHEMA crm; CREATE TABLE crm.a (x int)", [("undeclared_schema", "crm.", "")]),
        ("CREATE SCHEMA crm; CREATE VIEW crm.a AS SELECT 1 AS x", []),
        (
            "ALTER TABLE person ALTER name TYPE jsonb USING to_jsonb(name)",
            [],  # data maps state string for JSON whose content is not mapped
        ),
        (
            "ALTER TABLE person ALTER name TYPE int USING 1",
            [("type", "public.person", "name")],
        ),
        (
            "ALTER TABLE person ALTER tags TYPE text USING ''",
            [("type", "public.person", "tags")],
        ),
        (
            "ALTER TABLE person ALTER extra TYPE text",
            [("type", "public.person", "extra")],
        ),
        ("ALTER TABLE person ALTER born TYPE timestamptz", []),  # the data map states no type
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id)",
            [("primary_key", "public.orders", "")],
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
            [("primary_key", "public.orders", "")],
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_person_id_fkey",
            [("reference_without_key", "public.orders", "person_id")],
        ),
        (
            "ALTER TABLE person ADD FOREIGN KEY (id) REFERENCES person",
            [("key_without_reference", "public.person", "id")],
        ),
        (
            "CREATE TABLE vip (rank int) INHERITS (person)",
            [("undeclared_column", "public.vip", "rank")],
        ),
    ],
)  # fmt: skip
def test_find_drift_returns_each_kind_of_difference_between_database_and_data_map(
    postgres: EmbeddedPostgres, change: str, expected: list[tuple[str, str, str]]
) -> None:
    assert differences(postgres, change) == expected


def test_find_drift_ignores_types_and_primary_keys_that_data_map_omits(
    postgres: EmbeddedPostgres,
) -> None:
    """A data map may omit types and primary keys. A missing reference is reported."""
    silent = make_data_map(
        {
            "person": fields(*map(field, ("id", "name", "born", "tags", "extra"))),
            "orders": fields(field("id"), field("at"), field("person_id")),
        }
    )
    assert differences(postgres, "", silent) == [
        ("key_without_reference", "public.orders", "person_id")
    ]


def test_find_drift_returns_no_difference_if_reference_has_direction_opposite_to_foreign_key(
    postgres: EmbeddedPostgres,
) -> None:
    """In Fides, the direction of a reference is the order in which records are searched.

    It may differ from the direction of the foreign key.
    """
    turned = make_data_map({
        "person": MAP["person"] | fields(field("id", "orders.person_id", key=True)),
        "orders": fields(field("id", key=True), field("at", key=True), field("person_id")),
    })  # fmt: skip
    assert differences(postgres, "", turned) == []


def test_find_drift_accepts_tables_described_in_another_data_map_of_same_database(
    postgres: EmbeddedPostgres,
) -> None:
    with scratch(postgres, SHOP) as connection:
        live = read_schema(connection)
    person = make_data_map({"person": MAP["person"]})
    orders = make_data_map({"orders": MAP["orders"]}, name="orders")
    assert [difference.kind for difference in find_drift(live, person)] == [
        DriftKind.UNDECLARED_TABLE
    ]
    assert find_drift(live, person, [orders]) == []


def test_undeclared_columns_of_a_table_are_reported_in_a_single_finding(
    postgres: EmbeddedPostgres,
) -> None:
    """The finding has the outcome failed. It is about the clause that limits collection of data."""
    change = "".join(f"ALTER TABLE person ADD c{n} int;" for n in range(25))
    with scratch(postgres, SHOP + change + "DROP TABLE orders") as connection:
        shop = make_data_map(MAP)
        drifts = find_drift(read_schema(connection), shop)
    by_code = {finding.code: finding for finding in findings(drifts, shop)}
    assert set(by_code) == {"schema.drift.undeclared_column", "schema.drift.missing_table"}
    undeclared = by_code["schema.drift.undeclared_column"]
    assert (undeclared.subject, undeclared.severity, undeclared.clause) == (
        "shop.public.person", Outcome.FAIL, "4.1"
    )  # fmt: skip
    assert undeclared.message.values["count"] == 25
    assert undeclared.for_engineers is not None
    hint = in_english(undeclared.for_engineers)
    assert hint.startswith("Table `shop.public.person`; columns: `c0`, ")
    assert "`c19` and 5 more. " in hint
    assert undeclared.subject_title == shop.collection_title("person")
    assert by_code["schema.drift.missing_table"].clause == "5.2"


def test_each_kind_of_drift_has_its_own_finding_message() -> None:
    findings_by_kind = [
        findings(
            [Drift(kind, "shop", "public", "t", "c", Outcome.FAIL, "m", "3")], make_data_map({})
        )[0]
        for kind in DriftKind
    ]
    assert len({finding.message.text for finding in findings_by_kind}) == len(DriftKind)
    assert all(finding.action.text for finding in findings_by_kind)


@pytest.mark.parametrize(
    ("base", "declared", "is_array", "draft", "accepted", "refused"),
    [
        ("int8", "bigint", False, "integer", ["integer"], ["string", "float", "integer[]"]),
        ("numeric", "numeric(8,2)", False, "float", ["float"], ["integer", "string"]),
        ("numeric", "numeric(8,0)", False, "integer", ["integer", "float"], ["string"]),
        ("varchar", "character varying", False, "string", ["string"], ["integer", "object"]),
        ("timestamptz", "timestamp with time zone", False, "string", ["string"], ["integer"]),
        ("uuid", "uuid", False, "string", ["string", "object_id"], ["integer"]),
        ("bool", "boolean", False, "boolean", ["boolean"], ["string"]),
        ("jsonb", "jsonb", False, "object", ["object", "object[]", "string[]"], ["integer"]),
        ("text", "text[]", True, "string[]", ["string[]"], ["string"]),
        ("jsonb", "jsonb[]", True, "object[]", ["object[]"], ["object"]),
    ],
)  # fmt: skip
def test_matches_type_is_true_only_for_compatible_postgresql_and_data_map_types(
    base: str,
    declared: str,
    is_array: bool,
    draft: str,
    accepted: list[str],
    refused: list[str],
) -> None:
    """PostgreSQL's types are compared with the six data types of fideslang."""
    column = LiveColumn("x", declared, base, is_array=is_array)
    assert fides_type(column) == draft
    assert all(matches_type(column, data_type) for data_type in (*accepted, draft))
    assert not any(matches_type(column, data_type) for data_type in refused)
