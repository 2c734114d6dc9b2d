"""Tests that the planner's statistics contain no value of an erased record after a replay."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.masks import Mask
from include.erasure.replay import ReplayRules
from tests.erasure.test_replay import enter_erasures
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
def test_planner_statistics_of_changed_tables_contain_no_erased_or_unmasked_values_after_replay(
    copy: psycopg.Connection, state: Engine, role: str
) -> None:
    """The relations include empty tables, partitions, expression indexes and views."""
    copy.execute("DROP ROLE IF EXISTS owner_of_statistics; CREATE ROLE owner_of_statistics")
    copy.execute("GRANT ALL ON SCHEMA public TO owner_of_statistics; COMMIT")
    try:
        if role == "owner":
            copy.execute("SET ROLE owner_of_statistics")
        copy.execute(SCHEMA.encode())
        copy.commit()
        assert len(rows(copy, HELD.format(value="(?i)name [27]"))) >= 6
        enter_erasures(state, {"customer": [["2"]], "waybill": [["1"]], "t": [["7"]]})
        enter_erasures(state, {"customer": [["3"]]}, action="mask")
        replayed(copy, state, ReplayRules({"c": Mask({"name": "erase"})}))
        held = rows(copy, HELD.format(value="(?i)name [237]"))
        assert held == [("note", "text")]  # a table without a rule, with text of its own
        assert rows(copy, HELD.format(value="name 4"))[0] == ("customer", "name")
    finally:
        copy.rollback()
        copy.execute("RESET ROLE; DROP OWNED BY owner_of_statistics; DROP ROLE owner_of_statistics")
        copy.commit()


def test_replay_removes_erased_values_from_planner_statistics_even_if_copy_lacks_the_records(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The statistics of a backup may be older than its records, and contain erased values."""
    copy.execute(CUSTOMERS + "ANALYZE customer; DELETE FROM customer WHERE customer_id = 2")
    assert rows(copy, HELD.format(value="name 2")) != []
    enter_erasures(state, {"customer": [["2"]]})
    assert replayed(copy, state).replayed == 0
    assert rows(copy, HELD.format(value="name 2")) == []
