"""The step records of a run are deleted only if the run's bundle in the store is valid."""

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
from include.evidence.prune import DeletedStepRecords, delete_step_records
from include.evidence.step_findings import artifacts_of, keep_artifact, record_step, steps_of
from include.services.objectstore.base import StoreError
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_ledger, run_artifact, run_step
from tests.evidence.support import CLOCK, FILES, FORK, Evidence, SealingProcess, result_of
from tests.support.s3 import client_for, new_bucket


def leave(evidence: Evidence, number: int) -> tuple[str, str]:
    """Store a step record and an artifact of a run; return the DAG id and run id."""
    run = result_of("backup_offsite", number).run
    key = (run.dag_id, run.run_id)
    record_step(evidence.conn, *key, StepRecord(step="dump", outcome=Outcome.PASS), CLOCK)
    keep_artifact(evidence.conn, *key, "plan.json", b"{}")
    evidence.conn.commit()
    return key


def is_left(conn: Connection, key: tuple[str, str]) -> bool:
    """Return whether a run still has its step records and artifacts.

    Fail if the run has only step records or only artifacts.
    """
    steps, files = steps_of(conn, *key), artifacts_of(conn, *key)
    conn.commit()
    assert bool(steps) == bool(files)
    return bool(steps)


def delete_records(evidence: Evidence, **more: Any) -> DeletedStepRecords:
    arguments = {"most": 100} | more
    return delete_step_records(
        evidence.store, evidence.engine, [evidence.signer.public_pem], **arguments
    )


def test_only_step_records_of_sealed_runs_are_deleted(evidence: Evidence) -> None:
    sealed, unsealed = leave(evidence, 1), leave(evidence, 2)
    evidence.seal(1)
    before = ledger.rows(evidence.conn)
    assert delete_records(evidence) == DeletedStepRecords(1)
    assert not is_left(evidence.conn, sealed)
    assert is_left(evidence.conn, unsealed)
    assert delete_records(evidence) == DeletedStepRecords(0)
    assert ledger.rows(evidence.conn) == before
    assert evidence.verify().verified


def test_step_records_of_run_that_is_being_sealed_are_kept(evidence: Evidence) -> None:
    first, last = leave(evidence, 1), leave(evidence, 2)
    evidence.seal(1)
    evidence.seal(2)
    assert delete_records(evidence, besides=last) == DeletedStepRecords(1)
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
def test_step_records_are_kept_if_the_bundle_is_invalid(evidence: Evidence, damage: str) -> None:
    """Such a run does not delay the deletion for other runs, even with a limit of one run."""
    key = leave(evidence, 1)
    bundle = evidence.seal(1).path
    DAMAGES[damage](evidence.root / bundle)
    assert delete_records(evidence) == DeletedStepRecords(0, (bundle,))
    newer = leave(evidence, 2)
    evidence.seal(2)
    assert delete_records(evidence, most=1) == DeletedStepRecords(1)
    assert is_left(evidence.conn, key)
    assert not is_left(evidence.conn, newer)


@pytest.mark.parametrize("column", ["outcome", "sums_sha256", "row_signature"])
def test_step_records_are_kept_if_the_ledger_row_was_changed(
    evidence: Evidence, column: str
) -> None:
    key = leave(evidence, 1)
    bundle = evidence.seal(1).path
    values = {"outcome": "fail", "row_signature": b"\0" * 64}
    evidence.tamper(update(evidence_ledger).values({column: values.get(column, "0" * 64)}))
    assert delete_records(evidence) == DeletedStepRecords(0, (bundle,))
    assert is_left(evidence.conn, key)


def test_step_records_are_kept_if_the_evidence_store_cannot_be_read(evidence: Evidence) -> None:
    key = leave(evidence, 1)
    evidence.seal(1)
    evidence.root.rename(evidence.root.with_name("away"))
    with pytest.raises(StoreError):
        delete_records(evidence)
    assert is_left(evidence.conn, key)


def test_deletion_of_step_records_stops_at_maximum_number_of_runs_and_skips_too_large_bundles(
    evidence: Evidence,
) -> None:
    """Only the bundle above the size limit waits for a call with a higher limit."""
    keys = [leave(evidence, number) for number in range(1, 6)]
    for number in range(1, 5):
        evidence.seal(number)
    evidence.seal(5, files=FILES | {"frame.csv": b"x" * 100_000})
    assert delete_records(evidence, most=2, largest=50_000) == DeletedStepRecords(2)
    assert [is_left(evidence.conn, key) for key in keys] == [True, True, False, False, True]
    assert delete_records(evidence, largest=None) == DeletedStepRecords(3)


def test_step_records_are_kept_if_seal_was_killed_before_it_stored_the_signature(
    evidence: Evidence,
) -> None:
    """The ledger has the run, but the store lacks the signature."""
    key = leave(evidence, 1)
    SealingProcess(evidence, 1, block_before=f"put {SIGNATURE}").kill_when_blocked()
    assert ledger.find(evidence.conn, *key)
    evidence.conn.commit()
    assert delete_records(evidence).runs == 0
    assert is_left(evidence.conn, key)
    evidence.seal(2)
    assert delete_records(evidence).runs == 1
    assert not is_left(evidence.conn, key)


@pytest.mark.fault
def test_killed_deletion_of_step_records_keeps_all_records_of_the_run(evidence: Evidence) -> None:
    """A call that is killed after it deleted from one of two tables commits nothing."""
    key = leave(evidence, 1)
    evidence.seal(1)

    def child() -> None:
        remove = prune._forget

        def killed(conn: Connection, row: ledger.LedgerRow) -> None:
            remove(conn, row)
            os.kill(os.getpid(), signal.SIGKILL)

        prune._forget = killed  # type: ignore[assignment]
        delete_records(replace(evidence, engine=engine(evidence.database)))

    process = FORK.Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert is_left(evidence.conn, key)
    assert delete_records(evidence).runs == 1


def test_concurrent_calls_delete_step_records_of_every_sealed_run(evidence: Evidence) -> None:
    keys = [leave(evidence, number) for number in range(1, 9)]
    for number in range(1, 9):
        evidence.seal(number)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            delete_records(replace(evidence, engine=engine(evidence.database)))
        except OperationalError as error:  # a deadlock would be one
            errors.append(error)

    threads = [Thread(target=call) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert not any(is_left(evidence.conn, key) for key in keys)


def test_step_records_are_deleted_if_bundle_in_s3_is_valid(
    evidence: Evidence, endpoint: str
) -> None:
    """The records are kept if a newer version hides an object of the bundle."""
    client = client_for(endpoint)
    evidence = replace(evidence, store=S3Store(client, new_bucket(client), "evidence"))
    first, second = leave(evidence, 1), leave(evidence, 2)
    until = CLOCK.now() + timedelta(days=36500)
    evidence.seal(1, lock_until=until)
    bundle = evidence.seal(2, lock_until=until).path
    evidence.store.put(f"{bundle}/report.en.html", b"hides the sealed version")
    assert delete_records(evidence) == DeletedStepRecords(1, (bundle,))
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
def test_step_records_are_never_deleted_without_a_valid_bundle(
    evidence: Evidence, operations: list[tuple[str, int]]
) -> None:
    """After each random action, the runs with step records are compared with an expected list."""
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
            done = delete_records(evidence)
            gone = {run for run in left if run in sealed and run not in damaged}
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
    delete_records(evidence)


_bases = iter(range(0, 10_000, 10))


def test_invalid_bundle_does_not_delay_deletion_of_step_records_of_other_runs(
    evidence: Evidence,
) -> None:
    older, newer = leave(evidence, 1), leave(evidence, 2)
    evidence.seal(1)
    bundle = evidence.seal(2).path
    change(evidence.root / bundle / "report.en.html")
    assert delete_records(evidence, most=2) == DeletedStepRecords(1, (bundle,))
    another = leave(evidence, 3)
    evidence.seal(3)
    assert not is_left(evidence.conn, older)
    assert delete_records(evidence, most=2) == DeletedStepRecords(1, (bundle,))
    assert is_left(evidence.conn, newer)
    assert not is_left(evidence.conn, another)
