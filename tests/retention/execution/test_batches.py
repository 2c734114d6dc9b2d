"""Single batches: what silently stays, and what the ledger says of those that come to nothing."""

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
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres) as made:
        yield made


def open_batches(place: Yard) -> int:
    with place.state.connect() as conn:
        return int(
            conn.exec_driver_sql(
                "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL AND database = %s",
                (place.name,),
            ).scalar_one()
        )


@pytest.mark.parametrize("does", ["", "UPDATE a SET hidden = true WHERE id = OLD.id;"])
def test_what_a_trigger_keeps_in_silence_is_counted_as_refused_and_tried_once(
    place: Yard, does: str
) -> None:
    """Such as a soft delete, which is undone; the others go, and the execution ends."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, hidden bool);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, 20) i;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF OLD.id IN (3, 11) THEN {does} RETURN NULL; END IF; RETURN OLD; END $$;
    CREATE TRIGGER no BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION no();
    """)
    place.rules = [rule("a")]
    counts = place.execute(place.plan())
    assert counts.done == place.done() == {"a": 18}
    assert counts.refused == {("a", "kept"): 2}
    assert place.keys("a", "id, hidden") == {(3, None), (11, None)}
    assert open_batches(place) == 0


def test_what_changes_between_lock_and_deletion_is_seen(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condition over another table that turned meanwhile: those records stay, and no others."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, 5) i;
    CREATE TABLE claim (a int);
    """)
    title = {"en": "Claim", "zh-CN": "理赔"}
    open_claim = {"where": "EXISTS (SELECT FROM claim WHERE claim.a = t.id)", "title": title}
    place.rules = [rule("a", suspended=open_claim)]
    place.mapped = {"a": "a"}
    plan = place.plan()
    done = batch_actions._execute_in_strides

    def late(*given: Any) -> list[Key]:
        place.run("INSERT INTO claim VALUES (2)")
        return done(*given)

    monkeypatch.setattr(batch_actions, "_execute_in_strides", late)
    counts = place.execute(plan)
    assert (counts.done, place.done(), place.keys("a")) == ({"a": 4}, {"a": 4}, {2})


def test_a_batch_stops_looking_when_its_time_is_over_and_the_next_goes_on_there(
    place: Yard,
) -> None:
    """Where a look at each record takes long, as without an index on what refers to it."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, note text);
    INSERT INTO a SELECT i, '{OVER}', repeat('x', 400) FROM generate_series(1, 400) i;
    CREATE FUNCTION slowly(int) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(0.001); RETURN true; END $$;
    """)
    place.rules = [rule("a", where="slowly(t.id)")]
    place.batch = {"milliseconds": 50}
    counts = place.execute(place.plan())
    assert (counts.done, place.keys("a")) == ({"a": 400}, set())
    assert counts.seconds < 1


def test_what_one_class_may_not_mask_another_may_delete(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class is left alone after too many refusals in all partitions; others of the table go."""
    monkeypatch.setattr(batches, "MOST_REFUSED", 2)
    place.run(f"""
    CREATE TABLE a (id int, at date, name text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10);
    CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (10) TO (20);
    INSERT INTO a SELECT i, '{OVER}', 'Wang Fang' FROM generate_series(1, 19) i;
    CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
    CREATE TRIGGER no BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION no();
    """)
    place.rules = [
        rule("a", "mask", name="masked", mask={"name": "name"}, where="t.id % 2 = 1"),
        rule("a", name="deleted", where="t.id % 2 = 0"),
    ]
    counts = place.execute(place.plan())
    assert counts.done == {"deleted": 9}
    assert counts.refused == {("masked", "P0001"): 2}
    assert counts.given_up == {"masked"}


@pytest.mark.parametrize("table", ["a", "note"])
def test_a_batch_is_taken_back_whatever_ended_it(
    place: Yard, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The lock that keeps holds out is lost after the ledger's commit: nothing went."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    CREATE TABLE note (id int PRIMARY KEY, at date, parent int REFERENCES note);
    INSERT INTO {table} VALUES (1, '{OVER}'), (2, '{OVER}');
    UPDATE note SET parent = 3 - id;
    """)
    place.rules = [rule("a"), rule("note")]

    def lost(_guard: HoldGuard) -> None:
        raise ServiceError("lost", "repeat")

    monkeypatch.setattr(HoldGuard, "confirm", lost)
    with pytest.raises(ServiceError, match="lost"):
        place.execute(place.plan())
    assert place.keys(table) == {1, 2}
    assert open_batches(place) == 0


@pytest.mark.parametrize("limit", ["ledger", "idle"])
def test_a_ledger_that_somebody_keeps_locked_does_not_keep_records_locked(
    place: Yard, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Whichever limit is reached first: the run says so and ends, and nothing went."""
    place.run(f"CREATE TABLE a (id int PRIMARY KEY, at date); INSERT INTO a VALUES (1, '{OVER}')")
    place.rules = [rule("a")]
    plan = place.plan()
    if limit == "ledger":
        brief = "SELECT set_config('lock_timeout', '100ms', false)"
        monkeypatch.setattr(executor, "LEDGER_LIMITS", text(brief))
    else:
        monkeypatch.setattr(batches, "IDLE_MS", 100)
        brief = "SELECT set_config('lock_timeout', '1s', false)"
        monkeypatch.setattr(executor, "LEDGER_LIMITS", text(brief))
    with place.state.connect() as other:
        other.exec_driver_sql("LOCK TABLE erasure IN SHARE MODE")
        with pytest.raises(ServiceError):
            place.execute(plan)
        place.run("SET lock_timeout = '2s'; SELECT FROM a FOR UPDATE")
    assert place.keys("a") == {1}
    assert place.execute(plan).done == place.done() == {"a": 1}


def test_a_session_that_the_server_ended_for_idling_counts_as_lost(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state database did not answer for that long."""
    place.run(f"CREATE TABLE a (id int PRIMARY KEY, at date); INSERT INTO a VALUES (1, '{OVER}')")
    place.rules = [rule("a")]
    plan = place.plan()
    monkeypatch.setattr(batches, "IDLE_MS", 50)
    monkeypatch.setattr(HoldGuard, "confirm", lambda _guard: time.sleep(0.3))
    with pytest.raises(ServiceError, match=r"was lost \(SQLSTATE 25P03\)"):
        place.execute(plan)
    assert place.keys("a") == {1}


@pytest.mark.parametrize("ledger_first", [False, True])
def test_a_deletion_rests_between_its_statements_while_the_ledger_is_written_and_no_longer(
    place: Yard, monkeypatch: pytest.MonkeyPatch, ledger_first: bool
) -> None:
    """It would wait for the ledger at the end of the batch; and a slow one rests little."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    INSERT INTO a SELECT i, '{OVER}' FROM generate_series(1, {4 * STRIDE}) i;
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_sleep(0.03); RETURN NULL; END $$;
    CREATE TRIGGER slow BEFORE DELETE ON a FOR EACH STATEMENT EXECUTE FUNCTION slow();
    """)
    place.rules = [rule("a")]
    deleted = threading.Event()
    intend, done, rests = ledger.intend, batch_actions._execute_in_strides, list[float]()

    def enter(*given: Any, **more: Any) -> int:
        assert ledger_first or deleted.wait(10)
        return intend(*given, **more)

    def erase(state: ExecutionState, *given: Any) -> list[Key]:
        if ledger_first:
            state.await_ledger(10)
            rests.clear()
        gone = done(state, *given)
        deleted.set()
        return gone

    monkeypatch.setattr(ledger, "intend", enter)
    monkeypatch.setattr(batch_actions, "_execute_in_strides", erase)

    def rest(futures: Any, timeout: float | None = None) -> Any:
        if timeout is not None:
            rests.append(timeout)
        return wait(futures, timeout)

    monkeypatch.setattr(retention_work, "wait", rest)
    assert place.execute(place.plan()).done == place.done() == {"a": 4 * STRIDE}
    assert rests == ([] if ledger_first else [batch_actions.LONGEST_REST] * 3)


def test_looks_get_longer_though_each_statement_takes_long_whatever_it_reads(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a slow network; and between looks at barren pages others get the core."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, note text);
    ALTER TABLE a ALTER note SET STORAGE PLAIN;
    INSERT INTO a SELECT i, CASE WHEN i > 995 THEN date '{OVER}' ELSE '{YOUNG}' END,
        repeat('x', 6000) FROM generate_series(1, 1000) i;  -- each on a page of its own
    """)
    place.rules = [rule("a", where="(SELECT true FROM pg_sleep(0.004))")]
    rests: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=rests.append)
    monkeypatch.setattr(batches, "time", clock)
    assert place.execute(place.plan()).done == {"a": 5}
    assert 0 < len(rests) < 150
    assert all(0 < one <= batches.LONGEST_LOOK for one in rests)
