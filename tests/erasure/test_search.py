"""Tests of the search for erased keys in a restored copy: relations and row counts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from include.erasure import search as module
from include.erasure.replay import ReplayRules
from include.erasure.search import SearchedCollection, search
from include.erasure.tables import TableName
from tests.erasure.test_replay import KEYS, enter_erasures
from tests.erasure.test_replay_schema import replayed, state

__all__ = ["state"]

WAYBILLS = """
CREATE TABLE waybill (waybill_id int, at date, PRIMARY KEY (waybill_id, at));
INSERT INTO waybill SELECT n, '2026-01-01' FROM generate_series(1, 4) n;
"""
ERASED = {"waybill": [["1", "2026-01-01"], ["2", "2026-01-01"]]}


def test_row_with_part_of_a_composite_key_in_a_partitioned_table_is_counted_once(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The search reads the partitioned table, and does not read its partitions again."""
    copy.execute(
        WAYBILLS
        + """CREATE TABLE a_track (waybill_id int, at date);
        INSERT INTO a_track VALUES (1, '2026-01-01'), (1, '2026-05-05');
        CREATE TABLE label (waybill_id int, n int) PARTITION BY LIST (n);
        CREATE TABLE label_1 PARTITION OF label FOR VALUES IN (1);
        CREATE TABLE label_2 PARTITION OF label DEFAULT;
        INSERT INTO label VALUES (1, 1), (2, 2), (3, 1), (3, 2);"""
    )
    enter_erasures(state, ERASED)
    assert replayed(copy, state).rows_with_erased_keys == {"public.a_track": 1, "public.label": 2}


def test_search_ignores_single_columns_of_composite_keys_in_tables_with_a_retention_rule(
    copy: psycopg.Connection, state: Engine
) -> None:
    copy.execute(
        WAYBILLS
        + """CREATE TABLE customer (waybill_id int); INSERT INTO customer VALUES (1);
        CREATE TABLE label (waybill_id int); INSERT INTO label VALUES (1);"""
    )
    enter_erasures(state, ERASED)
    rules = ReplayRules(ruled=["customer", "waybill"])
    assert replayed(copy, state, rules).rows_with_erased_keys == {"public.label": 1}


def test_row_with_an_erased_key_in_its_own_partitioned_table_is_counted_once(
    copy: psycopg.Connection, state: Engine
) -> None:
    copy.execute("""
        CREATE TABLE parcel (parcel_id int PRIMARY KEY) PARTITION BY RANGE (parcel_id);
        CREATE TABLE parcel_1 PARTITION OF parcel FOR VALUES FROM (0) TO (3);
        CREATE TABLE a_parcel PARTITION OF parcel DEFAULT;
        INSERT INTO parcel SELECT generate_series(1, 5);
    """)
    enter_erasures(state, {"parcel": [["1"], ["4"], ["5"], ["9"]]})
    sought = SearchedCollection("parcel", TableName("public", "parcel"), ["parcel_id"])
    assert search(copy, "courier", [sought], state, KEYS) == {"public.parcel": 3}
    assert search(copy, "billing", [sought], state, KEYS) == {}


def test_search_queries_the_ledger_without_prepared_statements(
    copy: psycopg.Connection, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prepared query gets a generic plan, which is slow while the ledger has no statistics."""
    monkeypatch.setattr(module, "KEYS_AT_ONCE", 2)
    copy.execute("""CREATE TABLE parcel (parcel_id int PRIMARY KEY);
        INSERT INTO parcel SELECT generate_series(1, 40);""")
    enter_erasures(state, {"parcel": [["1"], ["40"]]})
    prepared: list[int] = []
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%key_hmac%'"

    class CountingCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            super().execute(query, *arguments, **options)
            if query is module._ENTERED:
                row = psycopg.Cursor(self.connection).execute(count, prepare=False).fetchone()
                prepared.append(row[0] if row else -1)
            return self

    def checked_out(connection: psycopg.Connection[Any], *_: object) -> None:
        connection.cursor_factory = CountingCursor

    event.listen(state, "checkout", checked_out)
    try:
        sought = SearchedCollection("parcel", TableName("public", "parcel"), ["parcel_id"])
        assert search(copy, "courier", [sought], state, KEYS) == {"public.parcel": 2}
    finally:
        event.remove(state, "checkout", checked_out)
    assert prepared == [0] * 20
