"""Rows of a run's steps disappear only when the run's bundle verifies in the store."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from include.evidence import ledger, prune
from include.evidence.folder import SIGNATURE
from include.evidence.model import Outcome, StepRecord
from include.evidence.prune import Forgotten, forget_sealed_runs
from include.evidence.step_findings import artifacts_of, keep_artifact, record_step, steps_of
from include.services.objectstore.base import StoreError
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_ledger, run_artifact, run_step
from tests.evidence.support import CLOCK, FILES, FORK, Evidence, SealingProcess, result_of
from tests.support.s3 import client_for, new_bucket


def leave(evidence: Evidence, number: int) -> tuple[str, str]:
    """Leave a step record and a file of a run; return the run's key."""
    run = result_of("backup_offsite", number).run
    key = (run.dag_id, run.run_id)
    record_step(evidence.conn, *key, StepRecord(step="dump", outcome=Outcome.PASS), CLOCK)
    keep_artifact(evidence.conn, *key, "plan.json", b"{}")
    evidence.conn.commit()
    return key


def is_left(conn: Connection, key: tuple[str, str]) -> bool:
    """Return whether a run still has its rows: all of them, or none."""
    steps, files = steps_of(conn, *key), artifacts_of(conn, *key)
    conn.commit()
    assert bool(steps) == bool(files)
    return bool(steps)


def forgotten(evidence: Evidence, **more: Any) -> Forgotten:
    arguments = {"most": 100} | more
    return forget_sealed_runs(
        evidence.store, evidence.engine, [evidence.signer.public_pem], **arguments
    )


def test_rows_of_sealed_runs_go_and_rows_of_other_runs_stay(evidence: Evidence) -> None:
    sealed, unsealed = leave(evidence, 1), leave(evidence, 2)
    evidence.seal(1)
    before = ledger.rows(evidence.conn)
    assert forgotten(evidence) == Forgotten(1)
    assert not is_left(evidence.conn, sealed)
    assert is_left(evidence.conn, unsealed)
    assert forgotten(evidence) == Forgotten(0)
    assert ledger.rows(evidence.conn) == before
    assert evidence.verify().verified


def test_run_that_is_being_sealed_is_left_to_the_next_seal(evidence: Evidence) -> None:
    first, last = leave(evidence, 1), leave(evidence, 2)
    evidence.seal(1)
    evidence.seal(2)
    assert forgotten(evidence, besides=last) == Forgotten(1)
    assert not is_left(evidence.conn, first)
    assert is_left(evidence.conn, last)


def change(path: Path) -> None:
    path.write_bytes(b"changed")


DAMAGES = {
    "changed file": lambda folder: change(folder / "report.en.html"),
    "missing file": lambda folder: (folder / "result.json").unlink(),
    "added file": lambda folder: change(folder / "added.txt"),
    "missing signature": lambda folder: (folder / SIGNATURE).unlink(),
    "forged signature": lambda folder: (folder / SIGNATURE).write_bytes(b"\0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_stay_while_the_bundle_does_not_verify(evidence: Evidence, damage: str) -> None:
    """And keep no other run waiting, though the call looks at one run only."""
    key = leave(evidence, 1)
    bundle = evidence.seal(1).path
    DAMAGES[damage](evidence.root / bundle)
    assert forgotten(evidence) == Forgotten(0, (bundle,))
    newer = leave(evidence, 2)
    evidence.seal(2)
    assert forgotten(evidence, most=1) == Forgotten(1)
    assert is_left(evidence.conn, key)
    assert not is_left(evidence.conn, newer)


@pytest.mark.parametrize("column", ["outcome", "sums_sha256", "row_signature"])
def test_rows_stay_while_the_ledger_row_is_changed(evidence: Evidence, column: str) -> None:
    key = leave(evidence, 1)
    bundle = evidence.seal(1).path
    values = {"outcome": "fail", "row_signature": b"\0" * 64}
    evidence.tamper(update(evidence_ledger).values({column: values.get(column, "0" * 64)}))
    assert forgotten(evidence) == Forgotten(0, (bundle,))
    assert is_left(evidence.conn, key)


def test_rows_stay_when_the_store_cannot_be_read(evidence: Evidence) -> None:
    key = leave(evidence, 1)
    evidence.seal(1)
    evidence.root.rename(evidence.root.with_name("away"))
    with pytest.raises(StoreError):
        forgotten(evidence)
    assert is_left(evidence.conn, key)


def test_one_call_checks_a_bounded_number_of_runs_and_bytes(evidence: Evidence) -> None:
    """A bundle that is too large waits for a call with a higher limit; others do not."""
    keys = [leave(evidence, number) for number in range(1, 6)]
    for number in range(1, 5):
        evidence.seal(number)
    evidence.seal(5, files=FILES | {"frame.csv": b"x" * 100_000})
    assert forgotten(evidence, most=2, largest=50_000) == Forgotten(2)
    assert [is_left(evidence.conn, key) for key in keys] == [True, True, False, False, True]
    assert forgotten(evidence, largest=None) == Forgotten(3)


def test_seal_that_was_killed_before_its_signature_is_finished_first(evidence: Evidence) -> None:
    """The ledger has the run, and the store lacks the signature: the rows stay until then."""
    key = leave(evidence, 1)
    SealingProcess(evidence, 1, block_before=f"put {SIGNATURE}").kill_when_blocked()
    assert ledger.find(evidence.conn, *key)
    evidence.conn.commit()
    assert forgotten(evidence).runs == 0
    assert is_left(evidence.conn, key)
    evidence.seal(2)
    assert forgotten(evidence).runs == 1
    assert not is_left(evidence.conn, key)


@pytest.mark.fault
def test_call_that_is_killed_leaves_each_run_whole(evidence: Evidence) -> None:
    """Between the deletions of the two tables: nothing is committed, and the next call goes on."""
    key = leave(evidence, 1)
    evidence.seal(1)

    def child() -> None:
        remove = prune._forget

        def killed(conn: Connection, row: ledger.LedgerRow) -> None:
            remove(conn, row)
            os.kill(os.getpid(), signal.SIGKILL)

        prune._forget = killed  # type: ignore[assignment]
        forgotten(replace(evidence, engine=engine(evidence.database)))

    process = FORK.Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert is_left(evidence.conn, key)
    assert forgotten(evidence).runs == 1


def test_several_calls_at_once_remove_each_run(evidence: Evidence) -> None:
    keys = [leave(evidence, number) for number in range(1, 9)]
    for number in range(1, 9):
        evidence.seal(number)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            forgotten(replace(evidence, engine=engine(evidence.database)))
        except OperationalError as error:  # a deadlock would be one
            errors.append(error)

    threads = [Thread(target=call) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert not any(is_left(evidence.conn, key) for key in keys)


def test_rows_are_forgotten_with_the_bundle_in_s3(evidence: Evidence, endpoint: str) -> None:
    """A version that hides the sealed one keeps the rows; so does a lock that is only a delete."""
    client = client_for(endpoint)
    evidence = replace(evidence, store=S3Store(client, new_bucket(client), "evidence"))
    first, second = leave(evidence, 1), leave(evidence, 2)
    until = CLOCK.now() + timedelta(days=36500)
    evidence.seal(1, lock_until=until)
    bundle = evidence.seal(2, lock_until=until).path
    evidence.store.put(f"{bundle}/report.en.html", b"hides the sealed version")
    assert forgotten(evidence) == Forgotten(1, (bundle,))
    assert not is_left(evidence.conn, first)
    assert is_left(evidence.conn, second)


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["leave", "seal", "forget", "damage", "repair"]), st.integers(1, 3)
        ),
        max_size=12,
    )
)
def test_no_order_of_operations_removes_rows_without_a_bundle(
    evidence: Evidence, operations: list[tuple[str, int]]
) -> None:
    """A model of which runs have rows, which are sealed, and which bundles are damaged."""
    base = next(_bases)
    left: set[int] = set()
    sealed: dict[int, Path] = {}
    damaged: set[int] = set()
    for operation, number in operations:
        run = base + number
        if operation == "leave" and number not in sealed:  # a sealed run refuses its steps
            leave(evidence, run)
            left.add(number)
        elif operation == "seal":
            sealed.setdefault(number, evidence.root / evidence.seal(run).path)
        elif operation == "damage" and number in sealed:
            (sealed[number] / "note.txt").write_bytes(b"added")
            damaged.add(number)
        elif operation == "repair" and number in damaged:
            (sealed[number] / "note.txt").unlink()
            damaged.discard(number)
        elif operation == "forget":
            done = forgotten(evidence)
            gone = {one for one in left if one in sealed and one not in damaged}
            assert done.runs == len(gone)
            left -= gone
        with evidence.engine.connect() as conn:
            runs = conn.execute(select(run_step.c.run_id).distinct()).all()
            files = conn.execute(select(run_artifact.c.run_id).distinct()).all()
        assert len(runs) == len(files) == len(left)
    for number in damaged:
        (sealed[number] / "note.txt").unlink()
    for number in left - sealed.keys():
        evidence.seal(base + number)
    forgotten(evidence)


_bases = iter(range(0, 10_000, 10))


def test_refused_bundle_takes_no_place_of_an_older_bundle(evidence: Evidence) -> None:
    older, newer = leave(evidence, 1), leave(evidence, 2)
    evidence.seal(1)
    bundle = evidence.seal(2).path
    change(evidence.root / bundle / "report.en.html")
    assert forgotten(evidence, most=2) == Forgotten(1, (bundle,))
    another = leave(evidence, 3)
    evidence.seal(3)
    assert not is_left(evidence.conn, older)
    assert forgotten(evidence, most=2) == Forgotten(1, (bundle,))
    assert is_left(evidence.conn, newer)
    assert not is_left(evidence.conn, another)
