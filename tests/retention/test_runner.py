"""Tests of `RetentionRunner`, which other tests of retention use."""

from __future__ import annotations

import pytest

from tests.retention.kills import execution, wait_until
from tests.retention.runner import YOUNG, RetentionRunner, fill


def test_run_erases_expired_records_of_every_table(runner: RetentionRunner) -> None:
    fill(runner)
    _planned, executed, verified = runner.run()
    assert executed.data["done"] == {
        "parcel": 1, "scan": 1, "detail": 1, "event": 2, "remark": 1, "node": 3, "ring_a": 1,
        "ring_b": 1, "person": 1,
    }  # fmt: skip
    assert executed.data["partitions"] == {"event": 1}
    assert verified.data["unexplained"] == 0
    assert verified.findings == []
    left = {
        table: len(runner.keys_in(table)) for table in ("parcel", "scan", "detail", "tag", "note")
    }
    assert left == {"parcel": 2, "scan": 2, "detail": 1, "tag": 1, "note": 1}
    assert runner.run("r2")[1].data["done"] == {}


def test_verification_record_contains_no_restore_point_if_run_had_no_expired_records(
    runner: RetentionRunner,
) -> None:
    runner.insert("node", id=1, at=YOUNG)
    assert runner.run()[-1].data["copies"] == []


@pytest.mark.fault
def test_execution_can_be_repeated_after_its_process_was_killed(
    runner: RetentionRunner,
) -> None:
    fill(runner)
    planned = runner.plan()
    with execution(runner, planned, stage="changed", number=2) as child:
        child.kill()
        assert child.wait(10) == -9
    wait_until(lambda: not runner.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
    assert runner.execute(planned).data["done"]["scan"] == 1
