"""Tests that replays refresh materialized views that read other views through functions."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.restored_copy import refresh_materialized_views
from tests.erasure.test_replay import enter_erasures
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state

__all__ = ["state"]  # a fixture

# Each name sorts before the views that it reads. The column is `who` and not `customer_id`.
BASE = "CREATE MATERIALIZED VIEW z_names AS SELECT customer_id, name FROM customer;"
THROUGH_FUNCTIONS = {
    "SQL": """CREATE FUNCTION f() RETURNS TABLE (n text) LANGUAGE sql STABLE AS
        'SELECT name FROM public.z_names';
        CREATE MATERIALIZED VIEW a_names AS SELECT n FROM f();""",
    "BEGIN ATOMIC": """CREATE FUNCTION f() RETURNS TABLE (n text) LANGUAGE sql STABLE
        BEGIN ATOMIC SELECT name FROM public.z_names; END;
        CREATE MATERIALIZED VIEW a_names AS SELECT n FROM f();""",
    "plpgsql with dynamic SQL": """CREATE FUNCTION f() RETURNS SETOF text LANGUAGE plpgsql AS
        'BEGIN RETURN QUERY EXECUTE ''SELECT name FROM public.z_'' || ''names''; END';
        CREATE MATERIALIZED VIEW a_names AS SELECT n FROM f() AS n;""",
    "an aggregate": """CREATE FUNCTION f(text, int) RETURNS text LANGUAGE sql AS
        'SELECT concat($1, (SELECT name FROM public.z_names WHERE customer_id = $2))';
        CREATE AGGREGATE names_of (int) (SFUNC = f, STYPE = text);
        CREATE MATERIALIZED VIEW a_names AS
            SELECT names_of(n) AS n FROM generate_series(1, 5) n GROUP BY n;""",
    "an operator": """CREATE FUNCTION f(int, int) RETURNS text LANGUAGE sql AS
        'SELECT name FROM public.z_names WHERE customer_id = $1 + $2';
        CREATE OPERATOR @@@ (FUNCTION = f, LEFTARG = int, RIGHTARG = int);
        CREATE MATERIALIZED VIEW a_names AS SELECT n @@@ 0 AS n FROM generate_series(1, 5) n;""",
    "a plain view": """CREATE FUNCTION f() RETURNS TABLE (n text) LANGUAGE sql STABLE AS
        'SELECT name FROM public.z_names';
        CREATE VIEW between AS SELECT n FROM f();
        CREATE MATERIALIZED VIEW a_names AS SELECT n FROM between;""",
    "a chain": """CREATE FUNCTION f() RETURNS TABLE (n text) LANGUAGE sql STABLE AS
        'SELECT name FROM public.z_names';
        CREATE MATERIALIZED VIEW c_names AS SELECT n FROM f();
        CREATE FUNCTION g() RETURNS TABLE (n text) LANGUAGE sql STABLE AS
        'SELECT n FROM public.c_names';
        CREATE MATERIALIZED VIEW b_names AS SELECT n FROM g();
        CREATE MATERIALIZED VIEW a_between AS SELECT n FROM b_names;
        CREATE FUNCTION h() RETURNS TABLE (n text) LANGUAGE sql STABLE AS
        'SELECT n FROM public.a_between';
        CREATE MATERIALIZED VIEW a_names AS SELECT n FROM h();""",
    "a query in a text": """CREATE MATERIALIZED VIEW a_names AS
        SELECT word AS n
        FROM ts_stat($$SELECT array_to_tsvector(array[name]) FROM public.z_names$$);""",
}


@pytest.mark.parametrize("through", THROUGH_FUNCTIONS)
def test_replay_refreshes_views_that_read_other_views_through_functions(
    copy: psycopg.Connection, state: Engine, through: str
) -> None:
    """PostgreSQL's catalogue does not record which view a function reads."""
    copy.execute((CUSTOMERS + BASE + THROUGH_FUNCTIONS[through]).encode())
    assert ("name 2",) in rows(copy, "SELECT n FROM a_names")
    enter_erasures(state, {"customer": [["2"]]})
    result = replayed(copy, state)
    populated = rows(copy, "SELECT count(*) FROM pg_class WHERE relkind = 'm' AND relispopulated")
    assert (result.refreshed,) == populated[0]
    for name in ("a_names", "z_names"):
        assert rows(copy, f"SELECT FROM {name} v WHERE v::text LIKE '%name 2%'") == [], name
        assert rows(copy, f"SELECT FROM {name} v WHERE v::text LIKE '%name 3%'") == [()], name


COUNTED = """CREATE SEQUENCE plain_refreshed; CREATE SEQUENCE refreshed;
CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS $$SELECT {value}$$;
CREATE MATERIALIZED VIEW plain AS SELECT nextval('plain_refreshed');
CREATE MATERIALIZED VIEW a AS SELECT f();
CREATE MATERIALIZED VIEW b AS SELECT count(*) FROM a;
SELECT setval('plain_refreshed', 100), setval('refreshed', 100)
"""


@pytest.mark.parametrize(
    ("value", "times"),
    [("nextval('public.refreshed') * 0", 2), ("nextval('public.refreshed')", 3)],
    ids=["settled", "always another"],
)
def test_materialized_view_with_a_function_is_refreshed_until_its_rows_no_longer_change(
    copy: psycopg.Connection, value: str, times: int
) -> None:
    """A view whose content always changes is refreshed once for each view that may depend on it."""
    copy.execute(COUNTED.format(value=value).encode())
    assert refresh_materialized_views(copy) == 3
    assert rows(copy, "SELECT last_value FROM plain_refreshed") == [(101,)]
    assert rows(copy, "SELECT last_value FROM refreshed") == [(100 + times,)]
