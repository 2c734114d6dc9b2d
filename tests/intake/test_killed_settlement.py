"""Tests that each row is promoted exactly once if a process is killed during the promotion.

The test then starts the process again.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import pytest
from sqlalchemy import select

from include.evidence.step_findings import steps_of
from include.state.tables import approval_decision
from tests.intake import child
from tests.intake.conftest import OLDEST, Rig

pytestmark = pytest.mark.fault
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([child.__name__])


@contextmanager
def settle(rig: Rig, pause_at: str) -> Iterator[tuple[BaseProcess, Connection]]:
    """Execute the decision on a batch in a separate process.

    Yield the process, and the pipe on which it sends messages.
    """
    messages, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=child.main, args=(rig.conninfo, rig.state, pause_at, theirs))
    process.start()
    theirs.close()
    yield process, messages
    process.join(60)
    assert process.exitcode is not None


def wait_for_rollback(rig: Rig) -> None:
    """Wait until the server has ended the sessions of the killed process."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    end = time.monotonic() + 300
    while rig.one(query) and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("boundary", "promoted_by_then"),
    [("before commit", 0), ("committed", 24), ("recorded", 24)],
)
@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_review_decision_is_executed_exactly_once_if_its_task_is_killed_and_repeated(
    rig: Rig, boundary: str, promoted_by_then: int, option: str
) -> None:
    checked = rig.checked()
    rig.answered(checked, option)
    customers = rig.one("SELECT count(*) FROM customer")
    approved = option == "Approve"
    with settle(rig, boundary) as (process, messages):
        assert messages.recv() == boundary
        process.kill()
    wait_for_rollback(rig)
    by_then = promoted_by_then if approved else 0
    assert rig.one("SELECT count(*) FROM customer") == customers + by_then
    assert (rig.states() == {"pending": 30}) is (boundary == "before commit")

    for _repeat in range(2):
        with settle(rig, "never") as (process, messages):
            assert messages.recv() == "done"
        assert process.exitcode == 0
    promoted = 24 if approved else 0
    assert rig.one("SELECT count(*) FROM customer") == customers + promoted
    formal = "FROM intake_record i JOIN customer c USING (customer_id) WHERE i.batch_id = %s"
    assert rig.one(f"SELECT count(*) {formal}", OLDEST) == promoted
    assert rig.one(f"SELECT count(DISTINCT i.customer_id) {formal}", OLDEST) == promoted
    assert rig.states() == ({"promoted": 24, "rejected": 6} if approved else {"rejected": 30})
    with rig.table.state.connect() as conn:
        assert len(conn.execute(select(approval_decision)).all()) == 1
        records = steps_of(conn, "review_intake", "run")
    (record,) = [record for record in records if record.step == "settle"]
    assert (record.data["promoted"], record.data["set_aside"], record.data["rejected"]) == (
        (24, 6, 0) if approved else (0, 0, 30)
    )


def test_two_concurrent_executions_of_a_review_decision_create_each_record_only_once(
    rig: Rig,
) -> None:
    checked = rig.checked()
    rig.answered(checked)
    customers = rig.one("SELECT count(*) FROM customer")
    with settle(rig, "never") as (first, _), settle(rig, "never") as (second, _):
        pass
    assert 0 in (first.exitcode, second.exitcode)
    assert rig.one("SELECT count(*) FROM customer") == customers + 24
    assert rig.states() == {"promoted": 24, "rejected": 6}
