"""Tests of reading a live schema from PostgreSQL's catalogue."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.schema.live import LiveForeignKey, LiveSchema, read_schema
from tests.schema.support import scratch

SCRIPT = '''
CREATE SCHEMA "sales.eu"; CREATE SCHEMA other;
CREATE DOMAIN plz AS varchar(5); CREATE DOMAIN plzs AS plz[];
CREATE TYPE colour AS ENUM ('red'); CREATE TYPE pair AS (a int, b text);
CREATE TABLE "sales.eu"."Kunde ""Süd""" (
    "a.b" int, "名 称" varchar(40) NOT NULL, gone int, plz plz, many plzs, tags text[],
    hue colour, dual pair, "total" numeric(10,2) GENERATED ALWAYS AS ("a.b" * 2) STORED,
    PRIMARY KEY ("名 称", "a.b"), UNIQUE (plz, hue));
ALTER TABLE "sales.eu"."Kunde ""Süd""" DROP COLUMN gone;
COMMENT ON TABLE "sales.eu"."Kunde ""Süd""" IS '客户';
CREATE UNIQUE INDEX ON "sales.eu"."Kunde ""Süd""" (tags) INCLUDE (dual);
CREATE UNIQUE INDEX ON "sales.eu"."Kunde ""Süd""" (hue) WHERE hue IS NOT NULL;
CREATE TABLE public."运单" (
    id int PRIMARY KEY, parent int REFERENCES public."运单", x int, y varchar(40),
    FOREIGN KEY (y, x) REFERENCES "sales.eu"."Kunde ""Süd"""("名 称", "a.b"));
CREATE TABLE other.log (at date, id int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE other.log_1 PARTITION OF other.log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO other.log SELECT '2020-05-05', n FROM generate_series(1, 50) n;
CREATE TABLE other.base (id int); CREATE TABLE other.child (extra text) INHERITS (other.base);
CREATE VIEW other.seen AS SELECT * FROM other.base;
CREATE MATERIALIZED VIEW other.kept AS SELECT * FROM other.base;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
CREATE FOREIGN TABLE other.far (id int) SERVER s;
CREATE TABLE other.nothing ();
CREATE SCHEMA parcelseal_use_17_ab12; CREATE TABLE parcelseal_use_17_ab12.approved_key (id int);
ANALYZE other.log;
'''


@pytest.fixture(scope="module")
def live(postgres: EmbeddedPostgres) -> LiveSchema:
    with scratch(postgres, SCRIPT) as connection:
        return read_schema(connection)


def test_read_schema_returns_unusual_table_and_column_names_unchanged(live: LiveSchema) -> None:
    """The names have dots, quotes, spaces, capital letters and Chinese characters."""
    assert set(live.tables) == {
        ("sales.eu", 'Kunde "Süd"'), ("public", "运单"), ("other", "log"), ("other", "base"),
        ("other", "child"), ("other", "seen"), ("other", "kept"), ("other", "far"),
        ("other", "nothing"),
    }  # fmt: skip
    table = live.tables["sales.eu", 'Kunde "Süd"']
    assert list(table.columns) == [
        "a.b", "名 称", "plz", "many", "tags", "hue", "dual", "total"
    ]  # fmt: skip
    assert table.comment == "客户"


def test_read_schema_returns_base_types_of_domain_and_array_columns(live: LiveSchema) -> None:
    """Domains and arrays are resolved, dropped columns omitted, and key columns not nullable."""
    columns = live.tables["sales.eu", 'Kunde "Süd"'].columns
    assert {
        column.name: (column.type, column.base, column.form, column.is_array)
        for column in columns.values()
    } == {
        "a.b": ("integer", "int4", "b", False),
        "名 称": ("character varying(40)", "varchar", "b", False),
        "plz": ("plz", "varchar", "b", False),
        "many": ("plzs", "varchar", "b", True),
        "tags": ("text[]", "text", "b", True),
        "hue": ("colour", "colour", "e", False),
        "dual": ("pair", "pair", "c", False),
        "total": ("numeric(10,2)", "numeric", "b", False),
    }
    assert {name for name, column in columns.items() if not column.nullable} == {"a.b", "名 称"}
    assert {name for name, column in columns.items() if column.generated} == {"total"}


def test_read_schema_returns_key_columns_in_order_and_foreign_keys_to_other_schemas(
    live: LiveSchema,
) -> None:
    """The schema has composite keys, self references and unique indexes."""
    table = live.tables["sales.eu", 'Kunde "Süd"']
    assert table.primary_key == ("名 称", "a.b")
    assert set(table.unique) == {("名 称", "a.b"), ("plz", "hue"), ("tags",)}
    keys = {key.columns: key for key in live.tables["public", "运单"].foreign_keys}
    assert keys[("parent",)].target == ("public", "运单")
    assert keys[("y", "x")] == LiveForeignKey(
        keys[("y", "x")].name, ("y", "x"), ("sales.eu", 'Kunde "Süd"'), ("名 称", "a.b")
    )


def test_read_schema_leaves_out_schemas_of_transient_logins(live: LiveSchema) -> None:
    assert [name for name in live.tables if name[0].startswith("parcelseal_use_")] == []
    assert ("other", "nothing") in live.tables


def test_read_schema_merges_partitions_into_parent(live: LiveSchema) -> None:
    """The row count of a partitioned table includes its partitions.

    An inheriting table is separate.
    """
    log = live.tables["other", "log"]
    assert (log.kind, log.primary_key, log.rows) == ("partitioned", ("id", "at"), 50)
    child = live.tables["other", "child"]
    assert child.parents == (("other", "base"),)
    assert [column.name for column in child.columns.values() if column.own] == ["extra"]
    assert child.rows is None  # never analysed


def test_read_schema_distinguishes_tables_views_materialized_views_and_foreign_tables(
    live: LiveSchema,
) -> None:
    kinds = {name: table.kind for (schema, name), table in live.tables.items() if schema == "other"}
    assert (kinds["seen"], kinds["kept"], kinds["far"], kinds["nothing"]) == (
        "view", "materialized_view", "foreign_table", "table"
    )  # fmt: skip


def test_read_schema_reads_only_requested_schemas(postgres: EmbeddedPostgres) -> None:
    """Temporary tables are omitted. A request for no schema returns no table."""
    with scratch(postgres, SCRIPT) as connection:
        connection.execute("CREATE TEMP TABLE mine (id int)")
        assert set(read_schema(connection, ["public"]).tables) == {("public", "运单")}
        assert read_schema(connection, []).tables == {}
        assert ("pg_temp", "mine") not in read_schema(connection).tables
        assert not any(name == "mine" for _, name in read_schema(connection).tables)


def test_read_schema_needs_no_privilege_on_tables(
    courier: psycopg.Connection[Any],
) -> None:
    """The function reads only the catalogue."""
    courier.rollback()
    with courier.transaction(force_rollback=True):
        courier.execute("CREATE ROLE nobody_here")
        courier.execute("SET LOCAL ROLE nobody_here")
        assert len(read_schema(courier).tables) == 17
