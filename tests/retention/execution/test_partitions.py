"""Partitions that are dropped whole: what others do meanwhile, and what refuses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batches, executor, partitions
from include.retention.execution.state import ExecutionState
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
    real = ExecutionState.intend

    def intend(state: ExecutionState, one: Any, keys: Any, transaction: str | None = None) -> int:
        entered.append(len(keys))
        return real(state, one, keys, transaction)

    monkeypatch.setattr(ExecutionState, "intend", intend)
    return entered


def test_two_classes_may_drop_the_same_partition(place: Yard) -> None:
    """The first drops it, and the second finds nothing to do."""
    place.rules = [rule("event", "drop_partition", name=one) for one in ("a", "b")]
    counts = place.execute(place.plan())
    assert (counts.partitions, counts.done) == ({"a": 1}, {"a": 9})
    assert place.left()[0][1].unexplained == 0


def test_nothing_is_entered_while_a_reader_has_the_table(place: Yard, entries: list[int]) -> None:
    """The locks are tried first; the records then go one by one, which disturbs no reader."""
    plan = place.plan()
    with psycopg.connect(place.conninfo) as reader:
        reader.execute(f"SELECT FROM {place.name}.event LIMIT 1")
        counts = place.execute(plan)
    assert entries == []
    assert counts.busy == {"event": partitions.TRIES}
    assert (counts.partitions, counts.done) == ({}, {"event": 9})
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
    counts = place.execute(place.plan())
    assert entries == [9]
    assert (counts.partitions, counts.busy, counts.done) == ({}, {}, {"event": 9})
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
    counts = place.execute(place.plan())
    assert counts.partitions == {}
    assert counts.refused == {("event", "23514"): 1}
    assert counts.done == place.done() == {"event": 8}
    assert place.keys("event") == {3}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_what_came_in_before_the_lock_is_seen_whatever_the_server_says(
    place: Yard, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """The server's default would keep the view of before, and DROP TABLE asks for none."""
    real_intend, real_prepare = ExecutionState.intend, executor.prepare

    def intend(state: ExecutionState, one: Any, keys: Any, transaction: str | None = None) -> int:
        entered = real_intend(state, one, keys, transaction)
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
    monkeypatch.setattr(ExecutionState, "intend", intend)
    monkeypatch.setattr(executor, "prepare", prepare)
    counts = place.execute(plan)
    assert (counts.partitions, counts.done) == ({}, {"event": 9})
    assert place.run("SELECT count(*) FROM event_old") == [(1,)]


def test_a_partition_is_dropped_when_nobody_minds(place: Yard, entries: list[int]) -> None:
    """Its keys are entered once."""
    counts = place.execute(place.plan())
    assert (counts.partitions, counts.busy) == ({"event": 1}, {})
    assert entries == [9]
    assert place.keys("event", "id") == set()


PARTITIONS = {
    "list": ("LIST (kind)", "FOR VALUES IN ('a')"),
    "hash": ("HASH (id)", "FOR VALUES WITH (MODULUS 1, REMAINDER 0)"),
    "default": ("RANGE (at)", "DEFAULT"),
    "today": ("RANGE (at)", "FOR VALUES FROM ('2020-01-01') TO ('2030-01-01')"),
    "endless": ("RANGE (at)", "FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)"),
    "two columns": ("RANGE (at, id)", "FOR VALUES FROM ('2020-01-01', 0) TO ('2020-12-31', 9)"),
    "another column": ("RANGE (id)", "FOR VALUES FROM (0) TO (1000)"),
    "text": ("RANGE (kind)", "FOR VALUES FROM ('a') TO ('b')"),
    "ends after the cutoff": ("RANGE (at)", "FOR VALUES FROM ('2020-01-01') TO ('2025-03-03')"),
    "referred to directly": ("RANGE (at)", "FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')"),
}


@pytest.mark.parametrize("kind", PARTITIONS)
def test_drop_whole_partition_that_may_get_new_records_deletes_rows(
    place: Yard, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A record that an application inserts meanwhile stays, and so does the partition."""
    by, bounds = PARTITIONS[kind]
    place.run(f"""
    CREATE TABLE log (id int, at date, kind text, PRIMARY KEY (id, at, kind)) PARTITION BY {by};
    CREATE TABLE log_part PARTITION OF log {bounds};
    INSERT INTO log SELECT i, '{OVER}', 'a' FROM generate_series(1, 5) i;
    """)
    if kind == "referred to directly":
        place.run(
            "CREATE TABLE note (id int, at date, kind text, "
            "FOREIGN KEY (id, at, kind) REFERENCES log_part)"
        )
    young = {"ends after the cutoff": "2025-03-02", "two columns": "2020-12-31"}.get(kind, YOUNG)
    real = executor.dispose

    def dispose(state: ExecutionState) -> None:
        if kind != "referred to directly":
            place.run(f"INSERT INTO log VALUES (8, '{young}', 'a')")
        real(state)

    monkeypatch.setattr(executor, "dispose", dispose)
    place.rules = [rule("log", "drop_partition")]
    plan = place.plan()
    assert plan.of("log").to_drop_partitions == 0
    counts = place.execute(plan)
    assert (counts.partitions, counts.done) == ({}, {"log": 5})
    assert place.run("SELECT count(*) FROM log_part") == [(kind != "referred to directly",)]


@pytest.mark.parametrize(
    ("clock", "bound", "dropped"),
    [
        ("date", "2025-03-02", True),
        ("date", "2025-03-03", False),
        ("timestamp", "2025-03-02 00:00:00", True),
        ("timestamp", "2025-03-02 00:00:01", False),
        ("timestamptz", "2025-03-02 00:00:00+08", True),
        ("timestamptz", "2025-03-02 00:00:00+00", False),
        ("timestamptz", "2025-03-02 00:00:00+14", True),
    ],
)
def test_past_partitions_compares_bounds_in_the_timezone_of_the_pack(
    place: Yard, clock: str, bound: str, dropped: bool
) -> None:
    """The period is over for records before 2 March 2025 in Shanghai."""
    place.as_of = datetime(2026, 3, 2, tzinfo=ZoneInfo("Asia/Shanghai"))
    place.run(f"""
    CREATE TABLE log (id int, at {clock}, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE log_part PARTITION OF log FOR VALUES FROM (MINVALUE) TO ('{bound}');
    INSERT INTO log VALUES (1, '{OVER}');
    """)
    place.rules = [rule("log", "drop_partition", clock={"sql": "t.at"})]
    assert place.plan().of("log").to_drop_partitions == int(dropped)
    place.rules = [rule("log", "drop_partition", clock={"sql": "t.at + interval '0'"})]
    assert place.plan().of("log").to_drop_partitions == 0


def test_past_partitions_judges_a_leaf_by_all_bounds_on_its_path(place: Yard) -> None:
    """A list below an old range is old; an old range below a list too; the others are not."""
    place.run(f"""
    CREATE TABLE log (id int, at date, kind text, PRIMARY KEY (id, at, kind))
      PARTITION BY LIST (kind);
    CREATE TABLE log_a PARTITION OF log FOR VALUES IN ('a') PARTITION BY RANGE (at);
    CREATE TABLE log_a_old PARTITION OF log_a FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
      PARTITION BY HASH (id);
    CREATE TABLE log_a_old_0 PARTITION OF log_a_old FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    CREATE TABLE log_a_rest PARTITION OF log_a DEFAULT;
    CREATE TABLE log_b PARTITION OF log FOR VALUES IN ('b');
    INSERT INTO log SELECT i, '{OVER}', CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END
      FROM generate_series(1, 4) i;
    INSERT INTO log VALUES (9, '2019-01-01', 'a');
    """)
    place.rules = [rule("log", "drop_partition")]
    plan = place.plan()
    assert [one.table for one in plan.table("log").partitions] == [f"{place.name}.log_a_old_0"]
    assert place.execute(plan).done == {"log": 5}


def test_dispose_goes_on_after_a_partition_with_its_own_foreign_key_was_dropped(
    place: Yard,
) -> None:
    """Later conditions name neither the dropped table nor its key; the parents go too."""
    place.run(f"""
    CREATE TABLE parcel (id int PRIMARY KEY, at date);
    INSERT INTO parcel SELECT i, '{OVER}' FROM generate_series(1, 9) i;
    ALTER TABLE event ADD parcel int, ADD up int, ADD up_at date;
    ALTER TABLE event_old ADD FOREIGN KEY (parcel) REFERENCES parcel;
    ALTER TABLE event_old ADD FOREIGN KEY (up, up_at) REFERENCES event;
    UPDATE event SET parcel = id;
    """)
    place.rules = [rule("event", "drop_partition"), rule("parcel")]
    counts = place.execute(place.plan())
    assert counts.done == place.done() == {"event": 9, "parcel": 9}
    assert counts.partitions == {"event": 1}


def detach_without_end(place: Yard) -> None:
    """Begin to detach a partition and cancel it while it waits for a reader: it stays pending."""
    statement = (
        f"ALTER TABLE {place.name}.event DETACH PARTITION {place.name}.event_old CONCURRENTLY"
    )
    pending = "SELECT inhrelid FROM pg_inherits WHERE inhdetachpending"
    with (
        psycopg.connect(place.conninfo, autocommit=True) as application,
        psycopg.connect(place.conninfo) as reader,
        ThreadPoolExecutor(1) as threads,
    ):
        reader.execute(f"SELECT FROM {place.name}.event LIMIT 1")
        detaching = threads.submit(application.execute, statement.encode())
        while not place.run(pending):
            assert not detaching.done()
            time.sleep(0.01)
        application.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            detaching.result()
    assert place.run(pending)


CHANGES: dict[str, Callable[[Yard], object]] = {
    "detached": lambda place: place.run("ALTER TABLE event DETACH PARTITION event_old"),
    "being_detached": detach_without_end,
    "dropped": lambda place: place.run("DROP TABLE event_old"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_walk_leaves_a_partition_that_an_application_took_away(
    place: Yard, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Records of a detached table are the application's; the run goes on with the others."""
    place.rules = [rule("event")]
    place.batch = {"rows": 4}
    place.run("INSERT INTO event SELECT i, '2021-02-01' FROM generate_series(21, 25) i")
    plan = place.plan()
    real, begun = batches._Walk._batch, []

    def batch(walk: Any, first: int, end: int) -> bool:
        if walk.leaf.name == "event_old":
            begun.append(first)
            if len(begun) == 2:
                CHANGES[change](place)
        return real(walk, first, end)

    monkeypatch.setattr(batches._Walk, "_batch", batch)
    counts = place.execute(plan)
    assert counts.done == place.done() == {"event": 5 + 4}
    if change != "dropped":
        assert place.run("SELECT count(*) FROM event_old") == [(5,)]
    assert place.keys("event") == set()


def test_partition_that_an_application_is_detaching_keeps_its_records(place: Yard) -> None:
    """It is no longer dropped whole, and its records are the application's."""
    plan = place.plan()
    detach_without_end(place)
    counts = place.execute(plan)
    assert (counts.partitions, counts.done) == ({}, {})
    assert place.run("SELECT count(*) FROM event_old") == [(9,)]
