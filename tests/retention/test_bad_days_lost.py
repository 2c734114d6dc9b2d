"""Processes that are killed, databases that are lost, and copies from before an erasure."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from include.erasure.ledger import ErasureKeys
from include.erasure.places import places_of
from include.erasure.replay import replay, schedule_of
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.services.clock import SystemClock
from include.services.errors import ServiceError, UsageError
from tests.retention.kills import execution, until
from tests.retention.rig import COLLECTIONS, NAME, OLD, Rig, disposition, fill, new_rig

TABLES_THAT_LOSE = ("parcel", "scan", "detail", "event", "remark", "node", "ring_a", "ring_b")
AFTER = {"parcel": 2, "scan": 2, "detail": 1, "event": 1, "remark": 0, "node": 0, "ring_a": 0,
         "ring_b": 0}  # fmt: skip


def records(rig: Rig) -> dict[str, set[tuple[str, ...]]]:
    return {table: rig.keys_in(table) for table in TABLES_THAT_LOSE}


def in_ledger(rig: Rig, table: str, key: tuple[str, ...]) -> list[bool]:
    """Whether each entry of a record is settled."""
    digest = rig.keys.digest("1", NAME, table, key)
    return [
        row[0]
        for row in rig.state_sql(
            "SELECT b.settled_at IS NOT NULL FROM erasure e JOIN erasure_batch b "
            "ON b.id = e.batch_id WHERE e.key_hmac = %s",
            [digest],
        )
    ]


def ends(rig: Rig, before: dict[str, set[tuple[str, ...]]]) -> None:
    """All that may go is gone and on record once, and nothing else is."""
    left = records(rig)
    assert {table: len(found) for table, found in left.items()} == AFTER
    for table, keys in before.items():
        for key in keys:
            assert in_ledger(rig, table, key) == ([] if key in left[table] else [True])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("stage", "number"),
    [("changed", 2), ("intended", 4), ("confirmed", 3), ("committed", 5), ("settled", 9)],
)
def test_an_execution_that_is_killed_and_repeated(rig: Rig, stage: str, number: int) -> None:
    """SIGKILL at a stage: what is gone is on record before anybody repairs it; a retry ends it."""
    fill(rig)
    before = records(rig)
    planned = rig.plan()
    with execution(rig, planned, stage=stage, number=number) as child:
        child.kill()
        child.wait(10)
    until(lambda: not rig.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
    left = records(rig)
    for table, keys in before.items():
        for key in keys - left[table]:
            assert len(in_ledger(rig, table, key)) == 1
        for key in left[table]:
            assert True not in in_ledger(rig, table, key)
    executed = rig.execute(planned)
    ends(rig, before)
    assert sum(executed.data["done"].values()) == planned_of(planned.data)


def planned_of(data: dict[str, list[dict[str, int]]]) -> int:
    return sum(one["to_delete"] + one["to_mask"] for one in data["classes"])


@pytest.mark.parametrize("stage", ["changed", "intended"])
@pytest.mark.parametrize("lost", ["customer", "state"])
def test_a_database_that_is_lost_in_the_middle_of_a_batch(rig: Rig, stage: str, lost: str) -> None:
    """The run says so and ends; nothing went that is not on record, and a retry ends it."""
    fill(rig)
    before = records(rig)
    planned = rig.plan()
    stages = []

    def progress(reached: str) -> None:
        stages.append(reached)
        if reached == stage and stages.count(stage) == 3:
            source = rig.source if lost == "customer" else rig.state_source
            rig.state_sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = %s AND pid <> pg_backend_pid()",
                [psycopg.conninfo.conninfo_to_dict(source)["dbname"]],
            )

    with pytest.raises(ServiceError):
        rig.execute(planned, progress=progress)
    left = records(rig)
    for table, keys in before.items():
        for key in keys - left[table]:
            assert len(in_ledger(rig, table, key)) == 1
    rig.execute(planned)
    ends(rig, before)


def test_a_hold_placed_when_the_guard_was_lost_is_obeyed(rig: Rig) -> None:
    """The state database drops the lock in mid-batch and a hold slips in: the batch rolls back."""
    rig = rig.but(rules_of_disposition=disposition(batch={"rows": 1}))
    for number in range(3):
        rig.insert("node", id=number, at=OLD, who="p")
    planned = rig.plan()
    placed = []

    def progress(stage: str) -> None:
        if stage == "intended" and not placed:
            rig.state_sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
                "WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
            )
            placed.append(rig.hold(HoldKind.CLASS, "node"))

    with pytest.raises(ServiceError):
        rig.execute(planned, progress=progress)
    assert placed
    assert len(rig.keys_in("node")) == 3
    assert rig.execute(planned).data["done"] == {}


def test_a_copy_from_before_any_erasure_is_erased_again(postgres: EmbeddedPostgres) -> None:
    """The ledger finds a run's records in a restored copy: circles, partitions, masks, detached."""
    with new_rig(postgres) as rig, new_rig(postgres) as other:
        for one in (rig, other):
            fill(one)
        rig.run()
        with psycopg.connect(other.source) as copy:
            done = replay(
                copy,
                NAME,
                places_of(rig.database),
                rig.engine,
                rig.keys,
                schedule_of(rig.database, rig.rules),
                SystemClock().now(),
            )
        assert (done.remaining, done.skipped) == (0, ())
        for table in COLLECTIONS:
            assert other.keys_in(table) == rig.keys_in(table)
        assert other.sql("SELECT scan FROM tag") == rig.sql("SELECT scan FROM tag") == [(None,)]
        query = sql.SQL("SELECT name, phone FROM person ORDER BY id")
        assert other.sql(query) == rig.sql(query)
        assert rig.sql(query)[0][0].startswith("W")


def test_nothing_is_erased_under_another_secret(rig: Rig) -> None:
    """Entries of which a replay would find none would not protect anybody."""
    rig.insert("note", id=1, at=OLD)
    rig.run()
    rig.insert("note", id=2, at=OLD)
    other = rig.but(keys=ErasureKeys(dict.fromkeys(rig.keys.keys, b"x" * 32), rig.keys.current))
    with pytest.raises(UsageError, match="is not the one"):
        other.execute(other.plan("r2"), "r2")
    assert rig.keys_in("note") == {("2",)}
