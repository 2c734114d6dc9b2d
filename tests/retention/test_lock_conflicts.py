"""Tests of other sessions that use the same records: locks, deadlocks, triggers, timeouts."""

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
from tests.retention.kills import wait_until
from tests.retention.runner import OLD, YOUNG, RetentionRunner, disposition, fill, new_runner, rule

MORE = {"person": {"name": "Wang Fang", "phone": "13800138000"}}
ONE_BY_ONE = disposition(batch={"rows": 1, "lock_timeout_ms": 100, "statement_timeout_s": 5})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between retries."""
    for module in (batches, cycles, partitions):
        monkeypatch.setattr(module, "PAUSE", 0.005)


@contextmanager
def application(runner: RetentionRunner) -> Iterator[psycopg.Connection[Any]]:
    """A session of the application with an open transaction."""
    with psycopg.connect(runner.source) as connection:
        yield connection
        connection.rollback()


def aside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def codes(record: StepRecord) -> list[str]:
    return [finding.code for finding in record.findings]


def nodes(runner: RetentionRunner, count: int) -> None:
    for number in range(count):
        runner.insert("node", id=number, at=OLD, who=f"p{number}")


def test_locked_record_is_skipped_and_erased_by_next_run(runner: RetentionRunner) -> None:
    nodes(runner, 3)
    with application(runner) as session:
        session.execute("SELECT FROM node WHERE id = 1 FOR UPDATE")
        planned, executed, counted = runner.run()
        assert planned.data["classes"][8]["to_delete"] == 3
        assert executed.data["done"] == {"node": 2}
        assert codes(counted) == ["retention.left"]
    assert runner.run("r2")[1].data["done"] == {"node": 1}


@pytest.mark.parametrize("table", ["note", "node", "person"])
def test_execution_reports_finding_for_locked_record_but_not_for_record_on_legal_hold(
    runner: RetentionRunner, table: str
) -> None:
    for number in range(3):
        runner.insert(table, id=number, at=OLD, who=f"p{number}", **MORE.get(table, {}))
    planned = runner.plan()
    runner.hold(HoldKind.SUBJECT, "p1")
    with application(runner) as session:
        session.execute(f"SELECT FROM {table} WHERE id = 2 FOR UPDATE".encode())
        executed = runner.execute(planned)
    assert executed.data["done"] == {table: 1}
    assert executed.data["locked"] == {table: 1}
    assert codes(executed) == ["retention.locked"]


def test_locked_foreign_key_cycle_is_kept_and_expired_records_of_other_tables_are_deleted(
    runner: RetentionRunner,
) -> None:
    fill(runner)
    with application(runner) as session:
        session.execute("SELECT FROM ring_a FOR UPDATE")
        _planned, executed, _counted = runner.run()
    assert executed.data["busy"] == {"ring_a": 5}
    assert runner.keys_in("ring_a") == runner.keys_in("ring_b") == {("1",)}
    assert executed.data["done"]["scan"] == 1
    assert runner.run("r2")[1].data["done"] == {"ring_a": 1, "ring_b": 1}


def test_batch_is_retried_after_deadlock_with_application(runner: RetentionRunner) -> None:
    runner = runner.but(rules_of_disposition=disposition(batch={"lock_timeout_ms": 5000}))
    runner.insert("parcel", region="n", no=1, at=YOUNG)
    runner.insert("scan", id=1, region="n", no=1, at=OLD)
    runner.insert("tag", id=1, scan=1, at=YOUNG)
    runner.sql(
        "ALTER DATABASE {} SET deadlock_timeout = '50ms'".format(runner.source.split("=")[-1])
    )
    planned = runner.plan()
    lost = []
    with application(runner) as session:
        session.execute("UPDATE tag SET who = 'x' WHERE id = 1")

        def both_ways() -> None:
            waits = (
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
            )
            wait_until(lambda: runner.sql(waits, ["UPDATE%tag%"]))
            try:
                session.execute("UPDATE scan SET who = 'x' WHERE id = 1")
                session.commit()
            except psycopg.errors.DeadlockDetected:
                lost.append("application")
                session.rollback()

        thread = aside(both_ways)
        executed = runner.execute(planned)
        thread.join(20)
    assert executed.data["done"] == {"scan": 1}
    assert lost or executed.data["busy"] == {"scan": 1}
    assert runner.sql("SELECT scan FROM tag") == [(None,)]


def test_record_that_trigger_refuses_to_delete_is_reported_once_and_other_records_are_deleted(
    postgres: EmbeddedPostgres,
) -> None:
    with new_runner(postgres) as runner:
        runner.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'kept, Wang Fang'; END $$"
        )
        for table in ("detail", "node"):
            runner.sql(
                f"CREATE TRIGGER refuse BEFORE DELETE ON {table} FOR EACH ROW "
                "WHEN (OLD.id = 5) EXECUTE FUNCTION refuse()"
            )
        runner.insert("parcel", region="n", no=1, at=OLD)
        runner.insert("scan", id=1, region="n", no=1, at=OLD)
        for number in range(9):
            runner.insert("detail", id=number, scan=1, at=OLD)
            runner.insert("node", id=number, at=OLD)
        runner.sql("UPDATE node SET up = 7 WHERE id = 5")
        runner.sql("UPDATE node SET up = 2 WHERE id = 1")
        runner.sql("UPDATE node SET up = 1 WHERE id = 2")
        _planned, executed, _counted = runner.run()
        assert executed.data["done"] == {"detail": 8, "node": 7}
        assert executed.data["refused"] == {"detail P0001": 1, "node P0001": 1}
        assert codes(executed) == ["retention.refused"] * 2
        assert "Wang" not in executed.model_dump_json()
        assert runner.keys_in("detail") == {("5",)}
        assert runner.keys_in("node") == {("5",), ("7",)}
        assert runner.keys_in("scan") == {("1",)}
        unsettled = "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL"
        assert runner.state_sql(unsettled) == [(0,)]


def test_foreign_key_cycle_is_kept_and_other_records_are_deleted_if_trigger_refuses_deletion(
    postgres: EmbeddedPostgres,
) -> None:
    with new_runner(postgres) as runner:
        fill(runner)
        runner.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'kept'; END $$"
        )
        runner.sql(
            "CREATE TRIGGER refuse BEFORE DELETE ON ring_b FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        executed = runner.run()[1]
        assert executed.data["refused"] == {"ring_a P0001": 1, "ring_b P0001": 1}
        assert executed.data["done"]["scan"] == 1
        assert runner.keys_in("ring_a") == runner.keys_in("ring_b") == {("1",)}


def test_batch_that_exceeds_statement_timeout_is_retried_and_then_skipped(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "TRIES", 1)
    limits = disposition(batch={"rows": 1, "lock_timeout_ms": 100, "statement_timeout_s": 1})
    rules = [rule("tag"), rule("note")]
    with new_runner(postgres, rules=rules, rules_of_disposition=limits) as runner:
        runner.insert("tag", id=1, at=OLD)
        runner.insert("note", id=1, at=OLD)
        runner.sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(1.2); RETURN OLD; END $$"
        )
        runner.sql("CREATE TRIGGER slow BEFORE DELETE ON tag FOR EACH ROW EXECUTE FUNCTION slow()")
        _planned, executed, counted = runner.run()
        assert executed.data["done"] == {"note": 1}
        assert executed.data["busy"] == {"tag": batches.PASSES}
        assert codes(counted) == ["retention.left"]
        assert runner.keys_in("tag") == {("1",)}


@pytest.mark.parametrize("kept", ["unexpired", "held", "locked", "late"])
def test_partition_with_record_that_must_remain_is_not_dropped(
    runner: RetentionRunner, kept: str
) -> None:
    for number in range(4):
        runner.insert("event", no=number, at=OLD, who=f"p{number}")
    if kept == "unexpired":
        runner = runner.but(rules=[rule("event", action="drop_partition", period="P30M")])
        runner.insert("event", no=9, at="2023-09-01+00")
    planned = runner.plan()
    with application(runner) as session:
        if kept == "held":
            runner.hold(HoldKind.SUBJECT, "p1")
        if kept == "locked":
            session.execute("SELECT FROM event WHERE no = 1 FOR UPDATE")
        if kept == "late":  # in place of a planned record: the number stays the same
            runner.sql("DELETE FROM event WHERE no = 1")
            runner.insert("event", no=9, at="2023-06-02+00", who="p9")
        executed = runner.execute(planned)
    assert executed.data["partitions"] == {}
    assert runner.sql("SELECT to_regclass('event_2023')::text") == [("event_2023",)]
    left = {"unexpired": {9}, "held": {1}, "locked": {1}, "late": set()}[kept]
    assert {row[0] for row in runner.sql("SELECT no FROM event")} == left


def test_execution_raises_service_error_if_database_session_that_holds_its_lock_is_terminated(
    runner: RetentionRunner,
) -> None:
    runner = runner.but(rules_of_disposition=disposition(batch={"rows": 1}))
    nodes(runner, 5)
    planned = runner.plan()
    ended: list[int] = []

    def progress(stage: str) -> None:
        if stage == "committed" and not ended:
            rows = runner.state_sql(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            ended.extend(pid for (pid,) in rows)
            runner.state_sql("SELECT pg_terminate_backend(unnest(%s::int[]))", [ended])

    with pytest.raises(ServiceError, match="with it the lock"):
        runner.execute(planned, progress=progress)
    assert len(runner.keys_in("node")) == 4
    assert runner.execute(planned).data["done"] == {"node": 5}


def test_second_concurrent_execution_raises_service_error_and_the_first_execution_is_completed(
    runner: RetentionRunner,
) -> None:
    nodes(runner, 2)
    planned = runner.plan()
    refused = []

    def progress(stage: str) -> None:
        if stage == "changed" and not refused:
            with pytest.raises(ServiceError, match="busy") as error:
                runner.execute(planned)
            refused.append(error)

    assert runner.execute(planned, progress=progress).data["done"] == {"node": 2}
    assert refused


def test_legal_hold_waits_for_end_of_current_batch_and_then_keeps_all_remaining_records(
    runner: RetentionRunner,
) -> None:
    runner = runner.but(rules_of_disposition=ONE_BY_ONE)
    nodes(runner, 4)
    planned = runner.plan()
    threads = []
    left = []

    def place() -> None:
        runner.hold(HoldKind.CLASS, "node")
        left.append(len(runner.keys_in("node")))

    def progress(stage: str) -> None:
        if stage == "changed" and not threads:
            threads.append(aside(place))
            wait_until(lambda: runner.state_sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
            assert not left

    runner.execute(planned, progress=progress)
    threads[0].join(10)
    assert left == [len(runner.keys_in("node"))] == [3]
