"""Tests of the drop of whole partitions."""

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
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RetentionSchema]:
    for module in (batches, partitions):
        monkeypatch.setattr(module, "PAUSE", 0)
    with retention_schema(postgres, batch={"lock_timeout_ms": 50}) as created:
        created.run(f"""
        CREATE TABLE event (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE event_old PARTITION OF event FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE event_new PARTITION OF event FOR VALUES FROM ('2021-01-01') TO ('2030-01-01');
        INSERT INTO event SELECT i, '{OVER}' FROM generate_series(1, 9) i;
        """)
        created.rules = [rule("event", "drop_partition")]
        yield created


@pytest.fixture
def entered_keys(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of keys of each batch that `enter_batch` wrote to the erasure ledger."""
    entered: list[int] = []
    real = ExecutionState.enter_batch

    def enter_batch(
        state: ExecutionState, each: Any, keys: Any, transaction: str | None = None
    ) -> int:
        entered.append(len(keys))
        return real(state, each, keys, transaction)

    monkeypatch.setattr(ExecutionState, "enter_batch", enter_batch)
    return entered


def test_partition_with_records_of_two_record_classes_is_dropped_once(
    schema: RetentionSchema,
) -> None:
    schema.rules = [rule("event", "drop_partition", name=each) for each in ("a", "b")]
    counts = schema.execute(schema.plan())
    assert (counts.partitions, counts.done) == ({"a": 1}, {"a": 9})
    assert schema.left()[0][1].unexplained == 0


def test_keys_of_partition_are_not_written_to_ledger_if_other_session_locks_partition(
    schema: RetentionSchema, entered_keys: list[int]
) -> None:
    """The run tries the locks before it writes the keys.

    The records are then deleted in batches.
    """
    plan = schema.plan()
    with psycopg.connect(schema.conninfo) as reader:
        reader.execute(f"SELECT FROM {schema.name}.event LIMIT 1")
        counts = schema.execute(plan)
    assert entered_keys == []
    assert counts.busy == {"event": partitions.TRIES}
    assert (counts.partitions, counts.done) == ({}, {"event": 9})
    assert schema.erased() == {"event": 9}


def test_records_are_deleted_in_batches_if_check_of_partition_is_slow(
    schema: RetentionSchema, entered_keys: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drop of a partition may block other sessions for at most a second."""
    schema.run("""
    CREATE FUNCTION slowly(int) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(0.02); RETURN true; END $$;
    """)
    schema.rules = [rule("event", "drop_partition", where="slowly(t.id)")]
    monkeypatch.setattr(partitions, "BLOCKING_MS", 100)
    counts = schema.execute(schema.plan())
    assert entered_keys == [9]
    assert (counts.partitions, counts.busy, counts.done) == ({}, {}, {"event": 9})
    assert schema.erased() == {"event": 9}


def test_partition_is_deleted_record_by_record_if_check_constraint_refuses_detach(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE note (id int PRIMARY KEY, at date, event int, event_at date,
      FOREIGN KEY (event, event_at) REFERENCES event,
      CHECK (id <> 3 OR event IS NOT NULL));
    INSERT INTO note SELECT i, '{YOUNG}', i, '{OVER}' FROM generate_series(1, 5) i;
    """)
    schema.rules = [
        rule("event", "drop_partition", detach=["note.event", "note.event_at"]),
        rule("note"),
    ]
    counts = schema.execute(schema.plan())
    assert counts.partitions == {}
    assert counts.refused == {("event", "23514"): 1}
    assert counts.done == schema.erased() == {"event": 8}
    assert schema.keys("event") == {3}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_partition_is_not_dropped_if_record_is_inserted_before_the_partition_is_locked(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """The record is detected with each default isolation level of the server."""
    real_enter_batch, real_prepare = ExecutionState.enter_batch, executor.prepare_session

    def enter_batch(
        state: ExecutionState, each: Any, keys: Any, transaction: str | None = None
    ) -> int:
        entered = real_enter_batch(state, each, keys, transaction)
        with psycopg.connect(schema.conninfo, autocommit=True) as other:
            other.execute(
                f"INSERT INTO {schema.name}.event_old VALUES (99, '2020-12-31') "
                "ON CONFLICT DO NOTHING"
            )
        return entered

    def prepare(connection: psycopg.Connection[Any], database: Any) -> None:
        real_prepare(connection, database)
        connection.execute("SELECT set_config('default_transaction_isolation', %s, false)", [level])

    plan = schema.plan()
    monkeypatch.setattr(ExecutionState, "enter_batch", enter_batch)
    monkeypatch.setattr(executor, "prepare_session", prepare)
    counts = schema.execute(plan)
    assert (counts.partitions, counts.done) == ({}, {"event": 9})
    assert schema.run("SELECT count(*) FROM event_old") == [(1,)]


def test_keys_of_dropped_partition_are_written_to_ledger_once(
    schema: RetentionSchema, entered_keys: list[int]
) -> None:
    counts = schema.execute(schema.plan())
    assert (counts.partitions, counts.busy) == ({"event": 1}, {})
    assert entered_keys == [9]
    assert schema.keys("event", "id") == set()


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
def test_records_of_partition_that_cannot_be_dropped_are_deleted_in_batches(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    by, bounds = PARTITIONS[kind]
    schema.run(f"""
    CREATE TABLE log (id int, at date, kind text, PRIMARY KEY (id, at, kind)) PARTITION BY {by};
    CREATE TABLE log_part PARTITION OF log {bounds};
    INSERT INTO log SELECT i, '{OVER}', 'a' FROM generate_series(1, 5) i;
    """)
    if kind == "referred to directly":
        schema.run(
            "CREATE TABLE note (id int, at date, kind text, "
            "FOREIGN KEY (id, at, kind) REFERENCES log_part)"
        )
    young = {"ends after the cutoff": "2025-03-02", "two columns": "2020-12-31"}.get(kind, YOUNG)
    real = executor.dispose_of_records

    def dispose(state: ExecutionState) -> None:
        if kind != "referred to directly":
            schema.run(f"INSERT INTO log VALUES (8, '{young}', 'a')")
        real(state)

    monkeypatch.setattr(executor, "dispose_of_records", dispose)
    schema.rules = [rule("log", "drop_partition")]
    plan = schema.plan()
    assert plan.of("log").to_drop_partitions == 0
    counts = schema.execute(plan)
    assert (counts.partitions, counts.done) == ({}, {"log": 5})
    assert schema.run("SELECT count(*) FROM log_part") == [(kind != "referred to directly",)]


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
def test_partition_is_planned_for_drop_if_upper_bound_is_expired_in_timezone_of_policy_pack(
    schema: RetentionSchema, clock: str, bound: str, dropped: bool
) -> None:
    schema.as_of = datetime(2026, 3, 2, tzinfo=ZoneInfo("Asia/Shanghai"))
    schema.run(f"""
    CREATE TABLE log (id int, at {clock}, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE log_part PARTITION OF log FOR VALUES FROM (MINVALUE) TO ('{bound}');
    INSERT INTO log VALUES (1, '{OVER}');
    """)
    schema.rules = [rule("log", "drop_partition", clock={"sql": "t.at"})]
    assert schema.plan().of("log").to_drop_partitions == int(dropped)
    schema.rules = [rule("log", "drop_partition", clock={"sql": "t.at + interval '0'"})]
    assert schema.plan().of("log").to_drop_partitions == 0


def test_subpartition_is_planned_for_drop_if_bounds_of_a_parent_partition_are_expired(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
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
    schema.rules = [rule("log", "drop_partition")]
    plan = schema.plan()
    assert [partition.table for partition in plan.table("log").partitions] == [
        f"{schema.name}.log_a_old_0"
    ]
    assert schema.execute(plan).done == {"log": 5}


def test_execution_continues_after_drop_of_partition_with_own_foreign_key(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE parcel (id int PRIMARY KEY, at date);
    INSERT INTO parcel SELECT i, '{OVER}' FROM generate_series(1, 9) i;
    ALTER TABLE event ADD parcel int, ADD up int, ADD up_at date;
    ALTER TABLE event_old ADD FOREIGN KEY (parcel) REFERENCES parcel;
    ALTER TABLE event_old ADD FOREIGN KEY (up, up_at) REFERENCES event;
    UPDATE event SET parcel = id;
    """)
    schema.rules = [rule("event", "drop_partition"), rule("parcel")]
    counts = schema.execute(schema.plan())
    assert counts.done == schema.erased() == {"event": 9, "parcel": 9}
    assert counts.partitions == {"event": 1}


def detach_pending(schema: RetentionSchema) -> None:
    """Begin to detach a partition, and cancel the statement while it waits.

    PostgreSQL then marks the detachment as pending.
    """
    statement = (
        f"ALTER TABLE {schema.name}.event DETACH PARTITION {schema.name}.event_old CONCURRENTLY"
    )
    pending = "SELECT inhrelid FROM pg_inherits WHERE inhdetachpending"
    with (
        psycopg.connect(schema.conninfo, autocommit=True) as application,
        psycopg.connect(schema.conninfo) as reader,
        ThreadPoolExecutor(1) as threads,
    ):
        reader.execute(f"SELECT FROM {schema.name}.event LIMIT 1")
        detaching = threads.submit(application.execute, statement.encode())
        while not schema.run(pending):
            assert not detaching.done()
            time.sleep(0.01)
        application.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            detaching.result()
    assert schema.run(pending)


CHANGES: dict[str, Callable[[RetentionSchema], object]] = {
    "detached": lambda schema: schema.run("ALTER TABLE event DETACH PARTITION event_old"),
    "being_detached": detach_pending,
    "dropped": lambda schema: schema.run("DROP TABLE event_old"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_execution_skips_partition_that_application_detaches_or_drops_meanwhile(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    schema.rules = [rule("event")]
    schema.batch = {"rows": 4}
    schema.run("INSERT INTO event SELECT i, '2021-02-01' FROM generate_series(21, 25) i")
    plan = schema.plan()
    real, begun = batches._TableWalk._batch, []

    def batch(walk: Any, first: int, end: int) -> bool:
        if walk.leaf.name == "event_old":
            begun.append(first)
            if len(begun) == 2:
                CHANGES[change](schema)
        return real(walk, first, end)

    monkeypatch.setattr(batches._TableWalk, "_batch", batch)
    counts = schema.execute(plan)
    assert counts.done == schema.erased() == {"event": 5 + 4}
    if change != "dropped":
        assert schema.run("SELECT count(*) FROM event_old") == [(5,)]
    assert schema.keys("event") == set()


def test_records_of_partition_with_pending_detach_are_kept(
    schema: RetentionSchema,
) -> None:
    plan = schema.plan()
    detach_pending(schema)
    counts = schema.execute(plan)
    assert (counts.partitions, counts.done) == ({}, {})
    assert schema.run("SELECT count(*) FROM event_old") == [(9,)]
