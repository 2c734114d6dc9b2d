"""Tests of single batches of an execution and their entries in the erasure ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from include.erasure import ledger
from include.erasure.ledger import STRIDE
from include.holds.records import HoldGuard
from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batch_actions, batches, executor
from include.retention.execution import state as retention_work
from include.retention.execution.state import ExecutionState, Key
from include.services.errors import ServiceError
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as created:
        yield created


def open_batches(schema: RetentionSchema) -> int:
    with schema.state.connect() as conn:
        return int(
            conn.exec_driver_sql(
                "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL AND database = %s",
                (schema.name,),
            ).scalar_one()
        )


@pytest.mark.parametrize("does", ["", "UPDATE a SET hidden = true WHERE id = OLD.id;"])
def test_record_is_counted_once_as_refused_if_trigger_skips_its_deletion(
    schema: RetentionSchema, does: str
) -> None:
    """In a further case, the trigger marks the record as deleted instead.

    This change is rolled back.
    """
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, hidden bool);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, 20) i;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id IN (3, 11) THEN {does} RETURN NULL; END IF; RETURN OLD; END $$;
    CREATE TRIGGER no BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION no();
    """)
    schema.rules = [rule("a")]
    counts = schema.execute(schema.plan())
    assert counts.done == schema.erased() == {"a": 18}
    assert counts.refused == {("a", "kept"): 2}
    assert schema.keys("a", "id, hidden") == {(3, None), (11, None)}
    assert open_batches(schema) == 0


def test_batch_does_not_delete_record_whose_deletion_was_suspended_after_the_plan_was_made(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, 5) i;
    CREATE TABLE claim (a int);
    """)
    title = {"en": "Claim", "zh-CN": "理赔"}
    open_claim = {"where": "EXISTS (SELECT FROM claim WHERE claim.a = t.id)", "title": title}
    schema.rules = [rule("a", suspended=open_claim)]
    schema.mapped = {"a": "a"}
    plan = schema.plan()
    done = batch_actions._execute_in_strides

    def late(*arguments: Any) -> list[Key]:
        schema.run("INSERT INTO claim VALUES (2)")
        return done(*arguments)

    monkeypatch.setattr(batch_actions, "_execute_in_strides", late)
    counts = schema.execute(plan)
    assert (counts.done, schema.erased(), schema.keys("a")) == ({"a": 4}, {"a": 4}, {2})


def test_batch_stops_search_for_records_at_time_limit_and_next_batch_continues(
    schema: RetentionSchema,
) -> None:
    """The condition takes 1 ms for each record. A batch of 50 ms searches for half of its time."""
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, note text);
    INSERT INTO a SELECT i, '{OVER}', repeat('x', 400) FROM generate_series(1, 400) i;
    CREATE FUNCTION slowly(int) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(0.001); RETURN true; END $$;
    CREATE TABLE deletion (transaction xid8);
    CREATE FUNCTION record_deletion() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO deletion VALUES (pg_current_xact_id()); RETURN OLD; END $$;
    CREATE TRIGGER deleted AFTER DELETE ON a FOR EACH ROW EXECUTE FUNCTION record_deletion();
    """)
    schema.rules = [rule("a", where="slowly(t.id)")]
    schema.batch = {"milliseconds": 50}
    counts = schema.execute(schema.plan())
    assert (counts.done, schema.keys("a")) == ({"a": 400}, set())
    batches_of_records = schema.run("SELECT count(*) FROM deletion GROUP BY transaction")
    assert max(batches_of_records)[0] < 100


def test_execution_continues_with_other_record_class_after_database_refuses_too_many_masks(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_REFUSED", 2)
    schema.run(f"""
    CREATE TABLE a (id int, at date, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10);
    CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (10) TO (20);
    INSERT INTO a SELECT i, '{OVER}', 'Wang Fang' FROM generate_series(1, 19) i;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER no BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION no();
    """)
    schema.rules = [
        rule("a", "mask", name="masked", mask={"name": "name"}, where="t.id % 2 = 1"),
        rule("a", name="deleted", where="t.id % 2 = 0"),
    ]
    counts = schema.execute(schema.plan())
    assert counts.done == {"deleted": 9}
    assert counts.refused == {("masked", "P0001"): 2}
    assert counts.given_up == {"masked"}


@pytest.mark.parametrize("table", ["a", "note"])
def test_erasure_ledger_has_no_open_batch_if_deletion_is_rolled_back_after_ledger_commit(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The guard lost its lock after the ledger was committed."""
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    INSERT INTO {table} VALUES (1, '{OVER}'), (2, '{OVER}');
    UPDATE note SET parent = 3 - id;
    """)
    schema.rules = [rule("a"), rule("note")]

    def lost(_guard: HoldGuard) -> None:
        raise ServiceError("lost", "repeat")

    monkeypatch.setattr(HoldGuard, "confirm", lost)
    with pytest.raises(ServiceError, match="lost"):
        schema.execute(schema.plan())
    assert schema.keys(table) == {1, 2}
    assert open_batches(schema) == 0


@pytest.mark.parametrize("limit", ["ledger", "idle"])
def test_execution_raises_service_error_and_unlocks_records_if_erasure_ledger_stays_locked(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    schema.run(f"CREATE TABLE a (id int PRIMARY KEY, at date); INSERT INTO a VALUES (1, '{OVER}')")
    schema.rules = [rule("a")]
    plan = schema.plan()
    with monkeypatch.context() as limits, schema.state.connect() as other:
        if limit == "ledger":
            brief = "SELECT set_config('lock_timeout', '100ms', false)"
        else:
            limits.setattr(batches, "IDLE_MS", 100)
            brief = "SELECT set_config('lock_timeout', '1s', false)"
        limits.setattr(executor, "LEDGER_LIMITS", text(brief))
        other.exec_driver_sql("LOCK TABLE erasure IN SHARE MODE")
        with pytest.raises(ServiceError):
            schema.execute(plan)
        schema.run("SET lock_timeout = '2s'; SELECT FROM a FOR UPDATE")
    assert schema.keys("a") == {1}
    assert schema.execute(plan).done == schema.erased() == {"a": 1}


def test_execution_raises_service_error_if_idle_timeout_ends_its_database_session(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.run(f"CREATE TABLE a (id int PRIMARY KEY, at date); INSERT INTO a VALUES (1, '{OVER}')")
    schema.rules = [rule("a")]
    plan = schema.plan()
    monkeypatch.setattr(batches, "IDLE_MS", 50)
    monkeypatch.setattr(HoldGuard, "confirm", lambda _guard: time.sleep(0.3))
    with pytest.raises(ServiceError, match=r"was lost \(SQLSTATE 25P03\)"):
        schema.execute(plan)
    assert schema.keys("a") == {1}


@pytest.mark.parametrize("ledger_first", [False, True])
def test_deletion_batch_pauses_between_statements_only_while_ledger_is_written(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, ledger_first: bool
) -> None:
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, {4 * STRIDE}) i;
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(0.03); RETURN NULL; END $$;
    CREATE TRIGGER slow BEFORE DELETE ON a FOR EACH STATEMENT EXECUTE FUNCTION slow();
    """)
    schema.rules = [rule("a")]
    deleted = threading.Event()
    intend, done, rests = ledger.open_batch, batch_actions._execute_in_strides, list[float]()

    def enter(*arguments: Any, **more: Any) -> int:
        assert ledger_first or deleted.wait(10)
        return intend(*arguments, **more)

    def erase(state: ExecutionState, *arguments: Any) -> list[Key]:
        if ledger_first:
            state.await_ledger(10)
            rests.clear()
        gone = done(state, *arguments)
        deleted.set()
        return gone

    monkeypatch.setattr(ledger, "open_batch", enter)
    monkeypatch.setattr(batch_actions, "_execute_in_strides", erase)

    def rest(futures: Any, timeout: float | None = None) -> Any:
        if timeout is not None:
            rests.append(timeout)
        return wait(futures, timeout)

    monkeypatch.setattr(retention_work, "wait", rest)
    assert schema.execute(schema.plan()).done == schema.erased() == {"a": 4 * STRIDE}
    assert rests == ([] if ledger_first else [batch_actions.LONGEST_REST] * 3)


def test_search_for_expired_records_reads_more_pages_per_statement_if_statements_are_slow(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, note text);
    ALTER TABLE a ALTER note SET STORAGE PLAIN;
    INSERT INTO a SELECT i, CASE WHEN i > 995 THEN date '{OVER}' ELSE '{YOUNG}' END,
        repeat('x', 6000) FROM generate_series(1, 1000) i;  -- each on a page of its own
    """)
    schema.rules = [rule("a", where="(SELECT true FROM pg_sleep(0.004))")]
    rests: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=rests.append)
    monkeypatch.setattr(batches, "time", clock)
    assert schema.execute(schema.plan()).done == {"a": 5}
    assert 0 < len(rests) < 150
    assert all(0 < rest <= batches.MAX_SEARCH_SECONDS for rest in rests)
