"""How the types of a primary key are told, wherever they are asked for."""

from __future__ import annotations

import psycopg
import pytest

from include.erasure.places import Place, types_of_key


@pytest.mark.parametrize("path", ["public", "shop, pg_catalog", "pg_catalog"])
def test_types_are_told_alike_whatever_the_search_path(copy: psycopg.Connection, path: str) -> None:
    """An execution has the schema of the data map in it, a restored copy the server's default."""
    copy.execute("CREATE SCHEMA shop; CREATE TYPE shop.kind AS ENUM ('a')")
    copy.execute(
        "CREATE TABLE shop.t (kind shop.kind, id int, code varchar(9), at timestamptz(3), "
        "PRIMARY KEY (kind, id, code, at))"
    )
    copy.execute("SELECT set_config('search_path', %s, false)", [path])
    found = types_of_key(copy, Place("shop", "t"))
    assert found == "kind, whole number, text, timestamp(3) with time zone"
