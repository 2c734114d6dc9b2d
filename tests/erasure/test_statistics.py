"""After a replay the planner's statistics hold no value of an erased record."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.masks import Mask
from include.erasure.replay import Schedule
from tests.erasure.test_replay import entered
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state

__all__ = ["state"]  # a fixture

HELD = """
SELECT tablename::text, attname::text FROM pg_stats
WHERE schemaname = 'public' AND concat(most_common_vals, histogram_bounds) ~ '{value}' ORDER BY 1, 2
"""
SCHEMA = (
    CUSTOMERS
    + """CREATE INDEX by_name ON customer (upper(name));
    CREATE TABLE note (id int PRIMARY KEY, text text,
        customer_id int REFERENCES customer ON DELETE SET NULL);
    INSERT INTO note SELECT customer_id, name, customer_id FROM customer;
    CREATE TABLE waybill (waybill_id int PRIMARY KEY, name text);
    INSERT INTO waybill VALUES (1, 'name 7');
    CREATE TABLE t (t_id int, name text, PRIMARY KEY (t_id)) PARTITION BY RANGE (t_id);
    CREATE TABLE t_1 PARTITION OF t DEFAULT; INSERT INTO t SELECT n, 'name ' || n
    FROM generate_series(5, 9) n;
    CREATE MATERIALIZED VIEW names AS SELECT name FROM customer;
    CREATE STATISTICS of_notes (mcv) ON id, text FROM note; ANALYZE;"""
)


@pytest.mark.parametrize("role", ["superuser", "owner"])
def test_replay_renews_statistics_of_what_it_changed(
    copy: psycopg.Connection, state: Engine, role: str
) -> None:
    """Of tables that are empty now too, partitions, indexes of an expression, and views."""
    copy.execute("DROP ROLE IF EXISTS owner_of_statistics; CREATE ROLE owner_of_statistics")
    copy.execute("GRANT ALL ON SCHEMA public TO owner_of_statistics; COMMIT")
    try:
        if role == "owner":
            copy.execute("SET ROLE owner_of_statistics")
        copy.execute(SCHEMA.encode())
        copy.commit()
        assert len(rows(copy, HELD.format(value="(?i)name [27]"))) >= 6
        entered(state, {"customer": [["2"]], "waybill": [["1"]], "t": [["7"]]})
        entered(state, {"customer": [["3"]]}, action="mask")
        replayed(copy, state, Schedule({"c": Mask({"name": "erase"})}))
        held = rows(copy, HELD.format(value="(?i)name [237]"))
        assert held == [("note", "text")]  # a table that has no rule; its text is its own
        assert rows(copy, HELD.format(value="name 4"))[0] == ("customer", "name")
    finally:
        copy.rollback()
        copy.execute("RESET ROLE; DROP OWNED BY owner_of_statistics; DROP ROLE owner_of_statistics")
        copy.commit()


def test_replay_renews_statistics_from_before_an_earlier_erasure(
    copy: psycopg.Connection, state: Engine
) -> None:
    """A backup may have taken along statistics that are older than its records."""
    copy.execute(CUSTOMERS + "ANALYZE customer; DELETE FROM customer WHERE customer_id = 2")
    assert rows(copy, HELD.format(value="name 2")) != []
    entered(state, {"customer": [["2"]]})
    assert replayed(copy, state).replayed == 0
    assert rows(copy, HELD.format(value="name 2")) == []
