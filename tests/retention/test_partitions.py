"""Partitions that are dropped whole: what others do meanwhile, and what refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention import batches, execute, partitions
from include.retention.work import Work
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard


@pytest.fixture
def place(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    for module in (batches, partitions):
        monkeypatch.setattr(module, "PAUSE", 0)
    with yard(postgres, batch={"lock_timeout_ms": 50}) as made:
        made.run(f"""
        CREATE TABLE event (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE event_old PARTITION OF event FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE event_new PARTITION OF event FOR VALUES FROM ('2021-01-01') TO ('2030-01-01');
        INSERT INTO event SELECT i, '{OVER}' FROM generate_series(1, 9) i;
        """)
        made.rules = [rule("event", "drop_partition")]
        yield made


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys were entered each time."""
    entered: list[int] = []
    real = Work.intend

    def intend(work: Work, one: Any, keys: Any, transaction: str | None = None) -> int:
        entered.append(len(keys))
        return real(work, one, keys, transaction)

    monkeypatch.setattr(Work, "intend", intend)
    return entered


def test_two_classes_may_drop_the_same_partition(place: Yard) -> None:
    """The first drops it, and the second finds nothing to do."""
    place.rules = [rule("event", "drop_partition", name=one) for one in ("a", "b")]
    tally = place.execute(place.plan())
    assert (tally.partitions, tally.done) == ({"a": 1}, {"a": 9})
    assert place.left()[0][1].unexplained == 0


def test_nothing_is_entered_while_a_reader_has_the_table(place: Yard, entries: list[int]) -> None:
    """The locks are tried first; the records then go one by one, which disturbs no reader."""
    plan = place.plan()
    with psycopg.connect(place.conninfo) as reader:
        reader.execute(f"SELECT FROM {place.name}.event LIMIT 1")
        tally = place.execute(plan)
    assert entries == []
    assert tally.busy == {"event": partitions.TRIES}
    assert (tally.partitions, tally.done) == ({}, {"event": 9})
    assert place.done() == {"event": 9}


def test_a_partition_that_takes_too_long_to_look_at_goes_record_by_record(
    place: Yard, entries: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for a second at most, and not once more."""
    place.run("""
    CREATE FUNCTION slowly(int) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(0.02); RETURN true; END $$;
    """)
    place.rules = [rule("event", "drop_partition", where="slowly(t.id)")]
    monkeypatch.setattr(partitions, "CLOSED_MS", 100)
    tally = place.execute(place.plan())
    assert entries == [9]
    assert (tally.partitions, tally.busy, tally.done) == ({}, {}, {"event": 9})
    assert place.done() == {"event": 9}


def test_a_check_that_refuses_to_detach_one_record_leaves_that_one(place: Yard) -> None:
    """The partition is not dropped, its other records go."""
    place.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, event int, event_at date,
      FOREIGN KEY (event, event_at) REFERENCES event,
      CHECK (id <> 3 OR event IS NOT NULL));
    INSERT INTO note SELECT i, '{YOUNG}', i, '{OVER}' FROM generate_series(1, 5) i;
    """)
    place.rules = [
        rule("event", "drop_partition", detach=["note.event", "note.event_at"]),
        rule("note"),
    ]
    tally = place.execute(place.plan())
    assert tally.partitions == {}
    assert tally.refused == {("event", "23514"): 1}
    assert tally.done == place.done() == {"event": 8}
    assert place.keys("event") == {3}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_what_came_in_before_the_lock_is_seen_whatever_the_server_says(
    place: Yard, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """The server's default would keep the view of before, and DROP TABLE asks for none."""
    real_intend, real_prepare = Work.intend, execute.prepare

    def intend(work: Work, one: Any, keys: Any, transaction: str | None = None) -> int:
        entered = real_intend(work, one, keys, transaction)
        with psycopg.connect(place.conninfo, autocommit=True) as other:
            other.execute(
                f"INSERT INTO {place.name}.event_old VALUES (99, '2020-12-31') "
                "ON CONFLICT DO NOTHING"
            )
        return entered

    def prepare(connection: psycopg.Connection[Any], database: Any) -> None:
        real_prepare(connection, database)
        connection.execute("SELECT set_config('default_transaction_isolation', %s, false)", [level])

    plan = place.plan()
    monkeypatch.setattr(Work, "intend", intend)
    monkeypatch.setattr(execute, "prepare", prepare)
    tally = place.execute(plan)
    assert (tally.partitions, tally.done) == ({}, {"event": 9})
    assert place.run("SELECT count(*) FROM event_old") == [(1,)]


def test_a_partition_is_dropped_when_nobody_minds(place: Yard, entries: list[int]) -> None:
    """Its keys are entered once."""
    tally = place.execute(place.plan())
    assert (tally.partitions, tally.busy) == ({"event": 1}, {})
    assert entries == [9]
    assert place.keys("event", "id") == set()
