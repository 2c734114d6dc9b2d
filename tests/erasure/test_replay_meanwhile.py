"""Entries that the ledger gets during a replay are replayed too, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure import replay as module
from tests.erasure.test_replay import entered
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state

__all__ = ["state"]  # a fixture
WAYBILLS = """
CREATE TABLE waybill (waybill_id int PRIMARY KEY, customer_id int);
INSERT INTO waybill SELECT n, n FROM generate_series(1, 5) n;
"""


def test_replay_begins_again_when_the_ledger_grew_meanwhile(
    copy: psycopg.Connection, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure that is entered during the replay is replayed too, before it ends."""
    copy.execute(CUSTOMERS)
    entered(state, {"customer": [["2"]]})
    real, later = module.search, iter(["3", "4"])

    def searched(*given: object, **named: object) -> dict[str, int]:
        if key := next(later, None):
            entered(state, {"customer": [[key]]})
        return real(*given, **named)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(module, "search", searched)
    done = replayed(copy, state)
    assert (done.entries, done.replayed, done.remaining) == (3, 3, 0)
    assert rows(copy, "SELECT customer_id FROM customer ORDER BY 1") == [(1,), (5,)]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Record the collections of each search, and of each matching with its number of batches."""
    done: dict[str, list[Any]] = {"matched": [], "searched": []}
    matching, searching = module.matches, module.search

    def matched(
        state: Engine, copy: psycopg.Connection, table: Any, keys: Any, batches: Any
    ) -> Iterator[Any]:
        done["matched"].append((table.collection, None if batches is None else len(batches)))
        return matching(state, copy, table, keys, batches)

    def searched(copy: Any, database: str, sought: Iterable[Any], *more: Any) -> dict[str, int]:
        done["searched"].append([each.collection for each in sought])
        return searching(copy, database, list(sought), *more)

    monkeypatch.setattr(module, "matches", matched)
    monkeypatch.setattr(module, "search", searched)
    return done


def entering(
    monkeypatch: pytest.MonkeyPatch, name: str, enter: Callable[[], None], times: int = 1
) -> None:
    """Enter something in the ledger when a step of the replay begins."""
    real, left = getattr(module, name), iter(range(times))

    def step(*given: Any) -> Any:
        if next(left, None) is not None:
            enter()
        return real(*given)

    monkeypatch.setattr(module, name, step)


def test_replay_applies_only_the_new_batches_of_a_ledger_that_grew(
    copy: psycopg.Connection,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    work: dict[str, list[Any]],
) -> None:
    """Three batches during the deletions: each costs its own table, and all share one search."""
    copy.execute(CUSTOMERS + WAYBILLS)
    entered(state, {"customer": [["2"]], "waybill": [["2"]]})
    later = iter(["3", "4", "5"])
    entering(
        monkeypatch, "check_deferred", lambda: entered(state, {"customer": [[next(later)]]}), 3
    )
    done = replayed(copy, state)
    assert (done.entries, done.replayed, done.remaining) == (5, 5, 0)
    assert work["matched"] == [
        ("customer", None), ("waybill", None), ("customer", 1), ("customer", 1), ("customer", 1)
    ]  # fmt: skip
    assert work["searched"] == [["customer"], ["waybill"]]
    assert rows(copy, "SELECT customer_id FROM customer") == [(1,)]


def test_replay_searches_again_only_for_collections_with_new_or_remaining_keys(
    copy: psycopg.Connection,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    work: dict[str, list[Any]],
) -> None:
    """A waybill names an erased customer until its own erasure is entered, during the search."""
    copy.execute(CUSTOMERS + WAYBILLS + "CREATE TABLE t (t_id int PRIMARY KEY);")
    entered(state, {"customer": [["2"]], "t": [["1"]]})
    entering(
        monkeypatch, "refresh_materialized_views", lambda: entered(state, {"waybill": [["2"]]})
    )
    done = replayed(copy, state)
    assert (done.entries, done.replayed, done.remaining, done.holding) == (3, 2, 0, {})
    assert work["searched"] == [["customer"], ["t"], ["customer"], ["waybill"]]


def test_replay_keeps_what_is_left_of_an_earlier_step(
    copy: psycopg.Connection, state: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a key that no record has any more is found by the keys of the first step."""
    copy.execute(
        CUSTOMERS
        + """CREATE TABLE waybill (waybill_id int, at date, PRIMARY KEY (waybill_id, at));
        INSERT INTO waybill SELECT n, '2026-01-01' FROM generate_series(1, 4) n;
        CREATE TABLE label (old_waybill_id text); INSERT INTO label VALUES ('1'), ('3');"""
    )
    entered(state, {"waybill": [["1", "2026-01-01"]]})
    entering(
        monkeypatch,
        "refresh_materialized_views",
        lambda: entered(state, {"waybill": [["2", "2026-01-01"]]}),
    )
    done = replayed(copy, state)
    assert (done.replayed, done.holding) == (2, {"public.label": 1})
