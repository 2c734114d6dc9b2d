"""Drift between a live schema and a data map, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.policy.datamap import MappedDatabase, MappedField
from include.registry import load_pack
from include.schema.drift import Drift, DriftKind, drift, mapped_schemas
from include.schema.findings import findings
from include.schema.live import LiveColumn, agrees, fides_type, read_schema
from tests.schema.support import field, fields, mapped, scratch

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
    postgres: EmbeddedPostgres, change: str, said: MappedDatabase | None = None
) -> list[tuple[str, str, str]]:
    with scratch(postgres, SHOP + change) as connection:
        found = drift(read_schema(connection), said or mapped(MAP))
    return [(str(one.kind), f"{one.schema}.{one.table}", one.column) for one in found]


def test_the_shipped_map_fits_the_sample(courier: psycopg.Connection[Any]) -> None:
    """No drift, partitions, cycles of keys and composite keys included."""
    database = load_pack(SHIPPED).database("courier")
    assert drift(read_schema(courier, mapped_schemas(database)), database) == []
    assert drift(read_schema(courier), database) == []


def test_the_example_map_fits_chinook(chinook: psycopg.Connection[Any]) -> None:
    """A database that nobody here designed, mapped by hand: no drift."""
    assert drift(read_schema(chinook), load_pack(CHINOOK).database("chinook")) == []


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
            [],  # a map says string of JSON that is not looked into
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
        ("ALTER TABLE person ALTER born TYPE timestamptz", []),  # the map names no type
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
def test_each_difference_is_seen(
    postgres: EmbeddedPostgres, change: str, expected: list[tuple[str, str, str]]
) -> None:
    """One change, its drift and none else."""
    assert differences(postgres, change) == expected


def test_a_map_that_is_silent_is_not_contradicted(postgres: EmbeddedPostgres) -> None:
    """No types, no primary key, no references but those that the database has."""
    silent = mapped(
        {
            "person": fields(*map(field, ("id", "name", "born", "tags", "extra"))),
            "orders": fields(field("id"), field("at"), field("person_id")),
        }
    )
    assert differences(postgres, "", silent) == [
        ("key_without_reference", "public.orders", "person_id")
    ]


def test_a_reference_written_from_the_other_side_fits(postgres: EmbeddedPostgres) -> None:
    """Fides' direction is an order of looking up, not the key's."""
    turned = mapped({
        "person": MAP["person"] | fields(field("id", "orders.person_id", key=True)),
        "orders": fields(field("id", key=True), field("at", key=True), field("person_id")),
    })  # fmt: skip
    assert differences(postgres, "", turned) == []


def test_tables_that_another_map_of_the_same_database_declares_are_declared(
    postgres: EmbeddedPostgres,
) -> None:
    """Two Datasets may share a database."""
    with scratch(postgres, SHOP) as connection:
        live = read_schema(connection)
    person = mapped({"person": MAP["person"]})
    orders = mapped({"orders": MAP["orders"]}, name="orders")
    assert [one.kind for one in drift(live, person)] == [DriftKind.UNDECLARED_TABLE]
    assert drift(live, person, [orders]) == []


def test_findings_say_what_to_do_in_one_line_each_table(postgres: EmbeddedPostgres) -> None:
    """Columns of one table stand together; what nobody declared fails, by the clause."""
    change = "".join(f"ALTER TABLE person ADD c{n} int;" for n in range(25))
    with scratch(postgres, SHOP + change + "DROP TABLE orders") as connection:
        found = findings(drift(read_schema(connection), mapped(MAP)))
    by_code = {one.code: one for one in found}
    assert set(by_code) == {"schema.drift.undeclared_column", "schema.drift.missing_table"}
    undeclared = by_code["schema.drift.undeclared_column"]
    assert (undeclared.subject, undeclared.severity, undeclared.clause) == (
        "shop.public.person", Outcome.FAIL, "4.1"
    )  # fmt: skip
    assert undeclared.message.values["count"] == 25
    assert str(undeclared.message.values["columns"]).endswith("c19 (+5)")
    assert by_code["schema.drift.missing_table"].clause == "5.2"


def test_every_kind_has_its_sentence() -> None:
    """None falls through to another's."""
    said = [
        findings([Drift(kind, "shop", "public", "t", "c", Outcome.FAIL, "m", "3")])[0]
        for kind in DriftKind
    ]
    assert len({one.message.text for one in said}) == len(DriftKind)
    assert all(one.action.text for one in said)


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
def test_types_that_go_together(
    base: str,
    declared: str,
    is_array: bool,
    draft: str,
    accepted: list[str],
    refused: list[str],
) -> None:
    """PostgreSQL's many types and fideslang's six."""
    column = LiveColumn("x", declared, base, is_array=is_array)
    assert fides_type(column) == draft
    assert all(agrees(column, one) for one in (*accepted, draft))
    assert not any(agrees(column, one) for one in refused)
