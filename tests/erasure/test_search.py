"""The search for erased keys in a restored copy: which relations count, and how often."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from include.erasure import search as module
from include.erasure.places import Place
from include.erasure.replay import Schedule
from include.erasure.search import Sought, search
from tests.erasure.test_replay import KEYS, entered
from tests.erasure.test_replay_schema import replayed, state

__all__ = ["state"]

WAYBILLS = """
CREATE TABLE waybill (waybill_id int, at date, PRIMARY KEY (waybill_id, at));
INSERT INTO waybill SELECT n, '2026-01-01' FROM generate_series(1, 4) n;
"""
ERASED = {"waybill": [["1", "2026-01-01"], ["2", "2026-01-01"]]}


def test_search_counts_a_part_of_a_key_once_in_a_partitioned_table(
    copy: psycopg.Connection, state: Engine
) -> None:
    """Search the table, and none of its partitions again; a relation with whole keys is apart."""
    copy.execute(
        WAYBILLS
        + """CREATE TABLE a_track (waybill_id int, at date);
        INSERT INTO a_track VALUES (1, '2026-01-01'), (1, '2026-05-05');
        CREATE TABLE label (waybill_id int, n int) PARTITION BY LIST (n);
        CREATE TABLE label_1 PARTITION OF label FOR VALUES IN (1);
        CREATE TABLE label_2 PARTITION OF label DEFAULT;
        INSERT INTO label VALUES (1, 1), (2, 2), (3, 1), (3, 2);"""
    )
    entered(state, ERASED)
    assert replayed(copy, state).holding == {"public.a_track": 1, "public.label": 2}


def test_search_leaves_parts_of_keys_to_the_rule_of_their_table(
    copy: psycopg.Connection, state: Engine
) -> None:
    """A table with a retention rule may hold them for as long as its rule says."""
    copy.execute(
        WAYBILLS
        + """CREATE TABLE customer (waybill_id int); INSERT INTO customer VALUES (1);
        CREATE TABLE label (waybill_id int); INSERT INTO label VALUES (1);"""
    )
    entered(state, ERASED)
    schedule = Schedule(ruled=["customer", "waybill"])
    assert replayed(copy, state, schedule).holding == {"public.label": 1}


def test_search_counts_rows_of_its_own_partitioned_table_once(
    copy: psycopg.Connection, state: Engine
) -> None:
    """Of records that nobody erased, in the table, and in no partition of it again."""
    copy.execute("""
        CREATE TABLE parcel (parcel_id int PRIMARY KEY) PARTITION BY RANGE (parcel_id);
        CREATE TABLE parcel_1 PARTITION OF parcel FOR VALUES FROM (0) TO (3);
        CREATE TABLE a_parcel PARTITION OF parcel DEFAULT;
        INSERT INTO parcel SELECT generate_series(1, 5);
    """)
    entered(state, {"parcel": [["1"], ["4"], ["5"], ["9"]]})
    sought = Sought("parcel", Place("public", "parcel"), ["parcel_id"])
    assert search(copy, "courier", [sought], state, KEYS) == {"public.parcel": 3}
    assert search(copy, "billing", [sought], state, KEYS) == {}


def test_search_lets_the_ledger_plan_each_query_for_its_digests(
    copy: psycopg.Connection, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prepared query gets a generic plan: a nested loop while the ledger has no statistics."""
    monkeypatch.setattr(module, "KEYS_AT_ONCE", 2)
    copy.execute("""CREATE TABLE parcel (parcel_id int PRIMARY KEY);
        INSERT INTO parcel SELECT generate_series(1, 40);""")
    entered(state, {"parcel": [["1"], ["40"]]})
    prepared: list[int] = []
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%key_hmac%'"

    class CountingCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *given: Any, **named: Any) -> Any:
            super().execute(query, *given, **named)
            if query is module._ENTERED:
                row = psycopg.Cursor(self.connection).execute(count, prepare=False).fetchone()
                prepared.append(row[0] if row else -1)
            return self

    def checked_out(connection: psycopg.Connection[Any], *_: object) -> None:
        connection.cursor_factory = CountingCursor

    event.listen(state, "checkout", checked_out)
    try:
        sought = Sought("parcel", Place("public", "parcel"), ["parcel_id"])
        assert search(copy, "courier", [sought], state, KEYS) == {"public.parcel": 2}
    finally:
        event.remove(state, "checkout", checked_out)
    assert prepared == [0] * 20
