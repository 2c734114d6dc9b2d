"""Tests of killed processes, lost database connections, and restored copies."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from include.erasure.ledger import ErasureKeys
from include.erasure.replay import replay, replay_rules_of
from include.erasure.tables import table_names_of
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.services.clock import SystemClock
from include.services.errors import ServiceError, UsageError
from tests.retention.kills import execution, wait_until
from tests.retention.runner import (
    COLLECTIONS,
    NAME,
    OLD,
    RetentionRunner,
    disposition,
    fill,
    new_runner,
)

TABLES_THAT_LOSE = ("parcel", "scan", "detail", "event", "remark", "node", "ring_a", "ring_b")
AFTER = {"parcel": 2, "scan": 2, "detail": 1, "event": 1, "remark": 0, "node": 0, "ring_a": 0,
         "ring_b": 0}  # fmt: skip


def records(runner: RetentionRunner) -> dict[str, set[tuple[str, ...]]]:
    return {table: runner.keys_in(table) for table in TABLES_THAT_LOSE}


def settled_by_record(runner: RetentionRunner, table: str, key: tuple[str, ...]) -> list[bool]:
    """Return, for each ledger entry of a record, whether the batch of the entry is settled."""
    digest = runner.keys.digest("1", NAME, table, key)
    return [
        row[0]
        for row in runner.state_sql(
            "SELECT b.settled_at IS NOT NULL FROM erasure e JOIN erasure_batch b "
            "ON b.id = e.batch_id WHERE e.key_hmac = %s",
            [digest],
        )
    ]


def assert_all_erased_once(
    runner: RetentionRunner, before: dict[str, set[tuple[str, ...]]]
) -> None:
    """Check that exactly the planned records were erased, each in one settled ledger batch."""
    left = records(runner)
    assert {table: len(keys) for table, keys in left.items()} == AFTER
    for table, keys in before.items():
        for key in keys:
            assert settled_by_record(runner, table, key) == ([] if key in left[table] else [True])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("stage", "number"),
    [("changed", 2), ("intended", 4), ("confirmed", 3), ("committed", 5), ("settled", 9)],
)
def test_retry_completes_execution_that_was_killed_at_any_stage(
    runner: RetentionRunner, stage: str, number: int
) -> None:
    """At any time, each erased record has an entry in the ledger."""
    fill(runner)
    before = records(runner)
    planned = runner.plan()
    with execution(runner, planned, stage=stage, number=number) as child:
        child.kill()
        child.wait(10)
    wait_until(lambda: not runner.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
    left = records(runner)
    for table, keys in before.items():
        for key in keys - left[table]:
            assert len(settled_by_record(runner, table, key)) == 1
        for key in left[table]:
            assert True not in settled_by_record(runner, table, key)
    executed = runner.execute(planned)
    assert_all_erased_once(runner, before)
    assert sum(executed.data["done"].values()) == planned_of(planned.data)


def planned_of(data: dict[str, list[dict[str, int]]]) -> int:
    return sum(each["to_delete"] + each["to_mask"] for each in data["classes"])


@pytest.mark.parametrize("stage", ["changed", "intended"])
@pytest.mark.parametrize("lost", ["customer", "state"])
def test_execution_fails_if_database_is_lost_and_retry_completes_it(
    runner: RetentionRunner, stage: str, lost: str
) -> None:
    fill(runner)
    before = records(runner)
    planned = runner.plan()
    stages = []

    def progress(reached: str) -> None:
        stages.append(reached)
        if reached == stage and stages.count(stage) == 3:
            source = runner.source if lost == "customer" else runner.state_source
            runner.state_sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = %s AND pid <> pg_backend_pid()",
                [psycopg.conninfo.conninfo_to_dict(source)["dbname"]],
            )

    with pytest.raises(ServiceError):
        runner.execute(planned, progress=progress)
    left = records(runner)
    for table, keys in before.items():
        for key in keys - left[table]:
            assert len(settled_by_record(runner, table, key)) == 1
    runner.execute(planned)
    assert_all_erased_once(runner, before)


def test_deletion_batch_is_rolled_back_if_legal_hold_is_placed_after_execution_lost_the_lock(
    runner: RetentionRunner,
) -> None:
    runner = runner.but(rules_of_disposition=disposition(batch={"rows": 1}))
    for number in range(3):
        runner.insert("node", id=number, at=OLD, who="p")
    planned = runner.plan()
    placed = []

    def progress(stage: str) -> None:
        if stage == "intended" and not placed:
            runner.state_sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
                "WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
            )
            placed.append(runner.hold(HoldKind.CLASS, "node"))

    with pytest.raises(ServiceError):
        runner.execute(planned, progress=progress)
    assert placed
    assert len(runner.keys_in("node")) == 3
    assert runner.execute(planned).data["done"] == {}


def test_replay_of_erasure_ledger_in_older_copy_erases_the_same_records_as_the_run(
    postgres: EmbeddedPostgres,
) -> None:
    """The records include cycles, partitions, masked records and detached references."""
    with new_runner(postgres) as runner, new_runner(postgres) as other:
        for each in (runner, other):
            fill(each)
        runner.run()
        with psycopg.connect(other.source) as copy:
            done = replay(
                copy,
                NAME,
                table_names_of(runner.database),
                runner.engine,
                runner.keys,
                replay_rules_of(runner.database, runner.rules),
                SystemClock().now(),
            )
        assert (done.remaining, done.skipped) == (0, ())
        for table in COLLECTIONS:
            assert other.keys_in(table) == runner.keys_in(table)
        assert other.sql("SELECT scan FROM tag") == runner.sql("SELECT scan FROM tag") == [(None,)]
        query = sql.SQL("SELECT name, phone FROM person ORDER BY id")
        assert other.sql(query) == runner.sql(query)
        assert runner.sql(query)[0][0].startswith("W")


def test_execution_fails_if_secret_of_hmac_key_changed(runner: RetentionRunner) -> None:
    runner.insert("note", id=1, at=OLD)
    runner.run()
    runner.insert("note", id=2, at=OLD)
    other = runner.but(
        keys=ErasureKeys(dict.fromkeys(runner.keys.keys, b"x" * 32), runner.keys.current)
    )
    with pytest.raises(UsageError, match="differs from the secret"):
        other.execute(other.plan("r2"), "r2")
    assert runner.keys_in("note") == {("2",)}
