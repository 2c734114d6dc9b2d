"""Tests that a replay also handles entries that are added to the ledger during the replay.

Each of these entries is handled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure import replay as module
from tests.erasure.test_replay import enter_erasures
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state

__all__ = ["state"]  # a fixture
WAYBILLS = """
CREATE TABLE waybill (waybill_id int PRIMARY KEY, customer_id int);
INSERT INTO waybill SELECT n, n FROM generate_series(1, 5) n;
"""


def test_replay_erases_records_whose_ledger_entries_are_added_during_search(
    copy: psycopg.Connection, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.execute(CUSTOMERS)
    enter_erasures(state, {"customer": [["2"]]})
    search, later = module.search, iter(["3", "4"])

    def enter_and_search(*arguments: object, **options: object) -> dict[str, int]:
        if key := next(later, None):
            enter_erasures(state, {"customer": [[key]]})
        return search(*arguments, **options)  # type: ignore[arg-type]  # the same arguments

    monkeypatch.setattr(module, "search", enter_and_search)
    result = replayed(copy, state)
    assert (result.entries, result.replayed, result.remaining) == (3, 3, 0)
    assert rows(copy, "SELECT customer_id FROM customer ORDER BY 1") == [(1,), (5,)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The calls of search and matching: their collections, and the number of batches."""
    calls: dict[str, list[Any]] = {"matched": [], "searched": []}
    match_records, search = module.match_records, module.search

    def record_matching(
        state: Engine, copy: psycopg.Connection, table: Any, keys: Any, batches: Any
    ) -> Iterator[Any]:
        calls["matched"].append((table.collection, None if batches is None else len(batches)))
        return match_records(state, copy, table, keys, batches)

    def record_search(
        copy: Any, database: str, collections: Iterable[Any], *arguments: Any
    ) -> dict[str, int]:
        searched = list(collections)
        calls["searched"].append([each.collection for each in searched])
        return search(copy, database, searched, *arguments)

    monkeypatch.setattr(module, "match_records", record_matching)
    monkeypatch.setattr(module, "search", record_search)
    return calls


def enter_during(
    monkeypatch: pytest.MonkeyPatch, name: str, enter: Callable[[], None], times: int = 1
) -> None:
    """Patch a step of the replay so that `enter` is called when the step begins."""
    original, remaining = getattr(module, name), iter(range(times))

    def step(*arguments: Any) -> Any:
        if next(remaining, None) is not None:
            enter()
        return original(*arguments)

    monkeypatch.setattr(module, name, step)


def test_replay_reads_again_only_the_tables_of_ledger_batches_that_were_added_meanwhile(
    copy: psycopg.Connection,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    calls: dict[str, list[Any]],
) -> None:
    """Three batches are added during the deletions.

    For each batch, only the table of the batch is read. One search follows for all batches.
    """
    copy.execute(CUSTOMERS + WAYBILLS)
    enter_erasures(state, {"customer": [["2"]], "waybill": [["2"]]})
    later = iter(["3", "4", "5"])
    enter_during(
        monkeypatch,
        "check_deferred",
        lambda: enter_erasures(state, {"customer": [[next(later)]]}),
        3,
    )
    result = replayed(copy, state)
    assert (result.entries, result.replayed, result.remaining) == (5, 5, 0)
    assert calls["matched"] == [
        ("customer", None), ("waybill", None), ("customer", 1), ("customer", 1), ("customer", 1)
    ]  # fmt: skip
    assert calls["searched"] == [["customer"], ["waybill"]]
    assert rows(copy, "SELECT customer_id FROM customer") == [(1,)]


def test_second_search_of_replay_omits_tables_without_new_erasures_or_matching_rows(
    copy: psycopg.Connection,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    calls: dict[str, list[Any]],
) -> None:
    """During the search, a waybill that contains the key of an erased customer is erased."""
    copy.execute(CUSTOMERS + WAYBILLS + "CREATE TABLE t (t_id int PRIMARY KEY);")
    enter_erasures(state, {"customer": [["2"]], "t": [["1"]]})
    enter_during(
        monkeypatch,
        "refresh_materialized_views",
        lambda: enter_erasures(state, {"waybill": [["2"]]}),
    )
    result = replayed(copy, state)
    assert (result.entries, result.replayed, result.remaining, result.rows_with_erased_keys) == (
        3,
        2,
        0,
        {},
    )
    assert calls["searched"] == [["customer"], ["t"], ["customer"], ["waybill"]]


def test_second_search_of_replay_includes_keys_that_were_erased_before_the_first_search(
    copy: psycopg.Connection, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search finds a row with one column of a composite key that the first step erased."""
    copy.execute(
        CUSTOMERS
        + """CREATE TABLE waybill (waybill_id int, at date, PRIMARY KEY (waybill_id, at));
        INSERT INTO waybill SELECT n, '2026-01-01' FROM generate_series(1, 4) n;
        CREATE TABLE label (old_waybill_id text); INSERT INTO label VALUES ('1'), ('3');"""
    )
    enter_erasures(state, {"waybill": [["1", "2026-01-01"]]})
    enter_during(
        monkeypatch,
        "refresh_materialized_views",
        lambda: enter_erasures(state, {"waybill": [["2", "2026-01-01"]]}),
    )
    result = replayed(copy, state)
    assert (result.replayed, result.rows_with_erased_keys) == (2, {"public.label": 1})
