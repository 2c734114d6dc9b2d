"""Tests of the types of primary keys."""

from __future__ import annotations

import psycopg
import pytest

from include.erasure.tables import TableName, primary_key_types


@pytest.mark.parametrize("path", ["public", "shop, pg_catalog", "pg_catalog"])
def test_function_primary_key_types_returns_the_same_types_under_each_search_path(
    copy: psycopg.Connection, path: str
) -> None:
    """An execution sets the search path to the schemas of the data map.

    A restored copy has the server's default.
    """
    copy.execute("CREATE SCHEMA shop; CREATE TYPE shop.kind AS ENUM ('a')")
    copy.execute(
        "CREATE TABLE shop.t (kind shop.kind, id int, code varchar(9), at timestamptz(3), "
        "PRIMARY KEY (kind, id, code, at))"
    )
    copy.execute("SELECT set_config('search_path', %s, false)", [path])
    types = primary_key_types(copy, TableName("shop", "t"))
    assert types == "kind, whole number, text, timestamp(3) with time zone"
