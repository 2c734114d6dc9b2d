"""Others work on the same records: locks, deadlocks, triggers, time limits, a second execution."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batches, cycles, partitions
from include.services.errors import ServiceError
from tests.retention.kills import until
from tests.retention.rig import OLD, YOUNG, Rig, disposition, fill, new_rig, rule

MORE = {"person": {"name": "Wang Fang", "phone": "13800138000"}}
ONE_BY_ONE = disposition(batch={"rows": 1, "lock_timeout_ms": 100, "statement_timeout_s": 5})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are short here."""
    for module in (batches, cycles, partitions):
        monkeypatch.setattr(module, "PAUSE", 0.005)


@contextmanager
def application(rig: Rig) -> Iterator[psycopg.Connection[Any]]:
    """A session of the application with an open transaction."""
    with psycopg.connect(rig.source) as connection:
        yield connection
        connection.rollback()


def aside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def codes(record: StepRecord) -> list[str]:
    return [one.code for one in record.findings]


def nodes(rig: Rig, count: int) -> None:
    for number in range(count):
        rig.insert("node", id=number, at=OLD, who=f"p{number}")


def test_a_record_that_the_application_keeps_locked_is_passed_over(rig: Rig) -> None:
    """The others go, nobody waits, the count afterwards names it, and the next run takes it."""
    nodes(rig, 3)
    with application(rig) as session:
        session.execute("SELECT FROM node WHERE id = 1 FOR UPDATE")
        planned, executed, counted = rig.run()
        assert planned.data["classes"][8]["to_delete"] == 3
        assert executed.data["done"] == {"node": 2}
        assert codes(counted) == ["retention.left"]
    assert rig.run("r2")[1].data["done"] == {"node": 1}


@pytest.mark.parametrize("table", ["note", "node", "person"])
def test_what_is_locked_is_told_apart_from_what_a_hold_keeps(rig: Rig, table: str) -> None:
    """Of three that are planned one goes, one is held since, and one is locked to the end."""
    for number in range(3):
        rig.insert(table, id=number, at=OLD, who=f"p{number}", **MORE.get(table, {}))
    planned = rig.plan()
    rig.hold(HoldKind.SUBJECT, "p1")
    with application(rig) as session:
        session.execute(f"SELECT FROM {table} WHERE id = 2 FOR UPDATE".encode())
        executed = rig.execute(planned)
    assert executed.data["done"] == {table: 1}
    assert executed.data["locked"] == {table: 1}
    assert codes(executed) == ["retention.locked"]


def test_a_circle_that_the_application_keeps_locked_stops_nothing_else(rig: Rig) -> None:
    """The knot stays and is counted as busy; what comes after it in order still goes."""
    fill(rig)
    with application(rig) as session:
        session.execute("SELECT FROM ring_a FOR UPDATE")
        _planned, executed, _counted = rig.run()
    assert executed.data["busy"] == {"ring_a": 5}
    assert rig.keys_in("ring_a") == rig.keys_in("ring_b") == {("1",)}
    assert executed.data["done"]["scan"] == 1
    assert rig.run("r2")[1].data["done"] == {"ring_a": 1, "ring_b": 1}


def test_a_deadlock_with_the_application_is_tried_again(rig: Rig) -> None:
    """It locked what we want to set to null, then wants what we delete: one of us yields."""
    rig = rig.but(rules_of_disposition=disposition(batch={"lock_timeout_ms": 5000}))
    rig.insert("parcel", region="n", no=1, at=YOUNG)
    rig.insert("scan", id=1, region="n", no=1, at=OLD)
    rig.insert("tag", id=1, scan=1, at=YOUNG)
    rig.sql("ALTER DATABASE {} SET deadlock_timeout = '50ms'".format(rig.source.split("=")[-1]))
    planned = rig.plan()
    lost = []
    with application(rig) as session:
        session.execute("UPDATE tag SET who = 'x' WHERE id = 1")

        def both_ways() -> None:
            waits = (
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
            )
            until(lambda: rig.sql(waits, ["UPDATE%tag%"]))
            try:
                session.execute("UPDATE scan SET who = 'x' WHERE id = 1")
                session.commit()
            except psycopg.errors.DeadlockDetected:
                lost.append("application")
                session.rollback()

        thread = aside(both_ways)
        executed = rig.execute(planned)
        thread.join(20)
    assert executed.data["done"] == {"scan": 1}
    assert lost or executed.data["busy"] == {"scan": 1}
    assert rig.sql("SELECT scan FROM tag") == [(None,)]


def test_a_trigger_that_refuses_one_record_of_a_batch(postgres: EmbeddedPostgres) -> None:
    """The others go; it is singled out and reported with its SQLSTATE, once."""
    with new_rig(postgres) as rig:
        rig.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'kept, Wang Fang'; END $$"
        )
        for table in ("detail", "node"):
            rig.sql(
                f"CREATE TRIGGER refuse BEFORE DELETE ON {table} FOR EACH ROW "
                "WHEN (OLD.id = 5) EXECUTE FUNCTION refuse()"
            )
        rig.insert("parcel", region="n", no=1, at=OLD)
        rig.insert("scan", id=1, region="n", no=1, at=OLD)
        for number in range(9):
            rig.insert("detail", id=number, scan=1, at=OLD)
            rig.insert("node", id=number, at=OLD)
        rig.sql("UPDATE node SET up = 7 WHERE id = 5")
        rig.sql("UPDATE node SET up = 2 WHERE id = 1")
        rig.sql("UPDATE node SET up = 1 WHERE id = 2")
        _planned, executed, _counted = rig.run()
        assert executed.data["done"] == {"detail": 8, "node": 7}
        assert executed.data["refused"] == {"detail P0001": 1, "node P0001": 1}
        assert codes(executed) == ["retention.refused"] * 2
        assert "Wang" not in executed.model_dump_json()
        assert rig.keys_in("detail") == {("5",)}
        assert rig.keys_in("node") == {("5",), ("7",)}
        assert rig.keys_in("scan") == {("1",)}
        unsettled = "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL"
        assert rig.state_sql(unsettled) == [(0,)]


def test_a_circle_that_the_database_refuses_stays_whole(postgres: EmbeddedPostgres) -> None:
    """A trigger inside of a circle: nothing of it goes, and the run goes on."""
    with new_rig(postgres) as rig:
        fill(rig)
        rig.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'kept'; END $$"
        )
        rig.sql(
            "CREATE TRIGGER refuse BEFORE DELETE ON ring_b FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        executed = rig.run()[1]
        assert executed.data["refused"] == {"ring_a P0001": 1, "ring_b P0001": 1}
        assert executed.data["done"]["scan"] == 1
        assert rig.keys_in("ring_a") == rig.keys_in("ring_b") == {("1",)}


def test_a_statement_that_takes_too_long_is_given_up(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again and then passed over; other tables are not kept waiting for ever."""
    monkeypatch.setattr(batches, "TRIES", 1)
    limits = disposition(batch={"rows": 1, "lock_timeout_ms": 100, "statement_timeout_s": 1})
    rules = [rule("tag"), rule("note")]
    with new_rig(postgres, rules=rules, rules_of_disposition=limits) as rig:
        rig.insert("tag", id=1, at=OLD)
        rig.insert("note", id=1, at=OLD)
        rig.sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(1.2); RETURN OLD; END $$"
        )
        rig.sql("CREATE TRIGGER slow BEFORE DELETE ON tag FOR EACH ROW EXECUTE FUNCTION slow()")
        _planned, executed, counted = rig.run()
        assert executed.data["done"] == {"note": 1}
        assert executed.data["busy"] == {"tag": batches.PASSES}
        assert codes(counted) == ["retention.left"]
        assert rig.keys_in("tag") == {("1",)}


@pytest.mark.parametrize("kept", ["unexpired", "held", "locked", "late"])
def test_a_partition_with_one_record_that_stays_is_not_dropped(rig: Rig, kept: str) -> None:
    """The others of it go one by one."""
    for number in range(4):
        rig.insert("event", no=number, at=OLD, who=f"p{number}")
    if kept == "unexpired":
        rig = rig.but(rules=[rule("event", action="drop_partition", period="P30M")])
        rig.insert("event", no=9, at="2023-09-01+00")
    planned = rig.plan()
    with application(rig) as session:
        if kept == "held":
            rig.hold(HoldKind.SUBJECT, "p1")
        if kept == "locked":
            session.execute("SELECT FROM event WHERE no = 1 FOR UPDATE")
        if kept == "late":  # in place of one that was planned: the number is the same
            rig.sql("DELETE FROM event WHERE no = 1")
            rig.insert("event", no=9, at="2023-06-02+00", who="p9")
        executed = rig.execute(planned)
    assert executed.data["partitions"] == {}
    assert rig.sql("SELECT to_regclass('event_2023')::text") == [("event_2023",)]
    left = {"unexpired": {9}, "held": {1}, "locked": {1}, "late": set()}[kept]
    assert {row[0] for row in rig.sql("SELECT no FROM event")} == left


def test_an_execution_whose_lock_is_lost_goes_no_further(rig: Rig) -> None:
    """Another may have begun meanwhile: what was not committed stays."""
    rig = rig.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(rig, 5)
    planned = rig.plan()
    ended: list[int] = []

    def progress(stage: str) -> None:
        if stage == "committed" and not ended:
            rows = rig.state_sql(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            ended.extend(pid for (pid,) in rows)
            rig.state_sql("SELECT pg_terminate_backend(unnest(%s::int[]))", [ended])

    with pytest.raises(ServiceError, match="the lock with it"):
        rig.execute(planned, progress=progress)
    assert len(rig.keys_in("node")) == 4
    assert rig.execute(planned).data["done"] == {"node": 5}


def test_two_executions_at_once(rig: Rig) -> None:
    """The second is refused and changes nothing; the first goes on."""
    nodes(rig, 2)
    planned = rig.plan()
    refused = []

    def progress(stage: str) -> None:
        if stage == "changed" and not refused:
            with pytest.raises(ServiceError, match="busy") as error:
                rig.execute(planned)
            refused.append(error)

    assert rig.execute(planned, progress=progress).data["done"] == {"node": 2}
    assert refused


def test_a_hold_placed_while_a_batch_runs_waits_and_then_counts(rig: Rig) -> None:
    """The batch that had begun ends; whoever placed the hold then knows that nothing follows."""
    rig = rig.but(rules_of_disposition=ONE_BY_ONE)
    nodes(rig, 4)
    planned = rig.plan()
    threads = []
    left = []

    def place() -> None:
        rig.hold(HoldKind.CLASS, "node")
        left.append(len(rig.keys_in("node")))

    def progress(stage: str) -> None:
        if stage == "changed" and not threads:
            threads.append(aside(place))
            until(lambda: rig.state_sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
            assert not left

    rig.execute(planned, progress=progress)
    threads[0].join(10)
    assert left == [len(rig.keys_in("node"))] == [3]
