"""Test of the search with which the state machine looks for erased customers in a database."""

from __future__ import annotations

import psycopg

from tests.system.company import relations_with


def test_search_for_erased_customers_includes_materialized_views_but_no_temporary_tables(
    database: str,
) -> None:
    """The temporary tables of an ending session can disappear at any time.

    PostgreSQL also refuses to read another session's temporary table if it is larger than its
    buffers.
    """
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("CREATE TABLE address AS SELECT 'cus-0001-x' AS customer")
        session.execute("CREATE MATERIALIZED VIEW contacts AS SELECT customer FROM address")
        session.execute("SET temp_buffers = '800kB'")
        session.execute(
            "CREATE TEMP TABLE keys AS SELECT 'cus-0001-x' AS key FROM generate_series(1, 50000)"
        )
        assert relations_with(database, "0001") == {"public.address": 1, "public.contacts": 1}
        assert relations_with(database, "0002") == {}
