"""The search of a database for a text, with which the state machine looks for erased customers."""

from __future__ import annotations

import psycopg

from tests.system.company import relations_with


def test_search_finds_rows_and_materialized_views_but_no_temporary_table(database: str) -> None:
    """A session that is about to end drops its temporary tables at any moment.

    PostgreSQL refuses to read a temporary table of another session that is larger than its buffers.
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
