"""Test pruning: rules, legal holds, locks, killed runs, and legal holds placed during pruning."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup import operations
from include.backup.manifest import MANIFEST_NAME, NAMES, SIGNATURE_NAME
from include.backup.offsite import PRUNE
from include.backup.operations import Ending
from include.backup.prune import Cleared, clear_unfinished
from include.encryption.recipients import Recipient
from include.evidence import ledger
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.holds.registry import HoldKind
from include.notify.outbox import Run
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.workflow.run_context import RunContext, TaskState
from tests.backup.offsite_support import (
    RULES,
    end_hold_locks_meanwhile,
    hold,
    make,
    publish,
    run_backup,
    run_prune,
)
from tests.backup.support import Taken, begin
from tests.support.contexts import offsite_services, services_stub, step_record
from tests.support.holders import NOW
from tests.support.s3 import MotoServer, client_for, new_bucket


def test_pruning_removes_expired_and_superseded_restore_points_only(
    any_store: ObjectStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """A second run removes nothing."""
    for day in (0, 1, 2, 10, 11, 95, 96):
        publish(any_store, taken, signer, day)
    offsite = make(any_store, recipients, signer)
    hold(state, HoldKind.RESTORE_POINT, "courier/p096")
    record = run_prune(offsite, state)
    assert record.outcome is Outcome.PASS
    assert record.data["removed"]["p095"] == "expired"
    assert record.data["kept"]["p096"] == "legal hold"
    assert {"p000", "p001", "p002"} <= set(record.data["kept"])
    left, _ = manifests.restore_points(any_store, "courier", [signer.public_pem])
    assert {point.id for point in left} == set(record.data["kept"])
    assert record.metrics[0].value == len(left)
    assert not [stored.key for stored in any_store.list("courier/p095/")]
    again = run_prune(offsite, state)
    assert again.data["removed"] == {}


def hold_waits(state: Engine) -> bool:
    """Return whether a session waits for an advisory lock."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with state.connect() as conn:
        return bool(conn.exec_driver_sql(query).scalar())


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        (HoldKind.DATABASE, "courier", {"p100", "p101", "p102"}),
        (HoldKind.RESTORE_POINT, "p101", {"p101"}),
    ],
)
def test_legal_hold_placed_during_pruning_keeps_remaining_restore_points(
    any_store: ObjectStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    kind: HoldKind,
    value: str,
    kept: set[str],
):
    """The hold is placed after the current removal, and is read before the next removal."""
    for day in (0, 1, 2, 100, 101, 102):
        publish(any_store, taken, signer, day)
    publish(any_store, taken, signer, 99)
    removal, delete = any_store.delete, []
    placing = threading.Thread(target=hold, args=(state, kind, value), daemon=True)

    def delete_first(key: str) -> None:
        delete.append(key)
        if len(delete) == 1:
            placing.start()
            while placing.is_alive() and not hold_waits(state):
                time.sleep(0.01)
        removal(key)

    monkeypatch.setattr(any_store, "delete", delete_first)
    record = run_prune(make(any_store, recipients, signer), state)
    placing.join(20)
    assert delete[0].startswith("courier/p099/")
    assert "p099" in record.data["removed"]
    assert {
        point for point, reason in record.data["kept"].items() if reason == "legal hold"
    } == kept
    points, rejected = manifests.restore_points(any_store, "courier", [signer.public_pem])
    assert rejected == []
    assert kept < {point.id for point in points}


def test_pruning_removes_nothing_if_its_lock_against_new_legal_holds_was_lost(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    """The session that prevents new legal holds ends before the removal.

    A new legal hold could therefore be placed on the restore point.
    """
    for day in (0, 1, 2, 100):
        publish(store, taken, signer, day)
    end_hold_locks_meanwhile(store, state, monkeypatch)
    with pytest.raises(ServiceError, match="lock against new holds"):
        run_prune(make(store, recipients, signer), state)
    points, rejected = manifests.restore_points(store, "courier", [signer.public_pem])
    assert ([point.id for point in points], rejected) == (["p100", "p002", "p001", "p000"], [])


def test_pruning_checks_before_each_removal_that_its_run_is_not_sealed(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """The run may be sealed after the first removal.

    The ledger does not say that the refused second removal has begun.
    """
    for day in (0, 1, 2, 100, 101, 102):
        publish(store, taken, signer, day)
    calls: list[int] = []

    def confirm() -> None:
        calls.append(len(manifests.restore_points(store, "courier", [signer.public_pem])[0]))
        if len(calls) == 3:
            raise ServiceError("The run was sealed.", "")

    with pytest.raises(ServiceError, match="sealed"):
        run_prune(make(store, recipients, signer), state, confirm=confirm)
    assert calls == [6, 6, 5]  # before each removal is recorded, and before it deletes
    assert len(manifests.restore_points(store, "courier", [signer.public_pem])[0]) == 5
    with state.connect() as conn:
        removals = conn.exec_driver_sql(
            "SELECT result FROM restore_point_operation WHERE operation = 'remove'"
        ).all()
    assert removals == [("removed",)]


def test_prune_task_raises_run_sealed_error_and_removes_nothing_if_its_run_was_sealed(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A removal would be missing in the evidence of the run.

    The task has lost the session that prevents the run from being sealed.
    """
    from include.orchestration import run as runs
    from include.orchestration.run_lock import RunSealed

    run = ("backup_offsite", "r1")
    services = services_stub(
        {}, state, FixedClock(NOW), rules=RULES,
        **offsite_services(make(store, recipients, signer)),
    )  # fmt: skip
    monkeypatch.setattr(runs, "run_key", lambda: run)
    task = TaskState(confirm_open=lambda: runs.confirm_open(services))
    context = RunContext(services, None, Run(*run), task=task)
    for day in (0, 1, 2, 100, 101):
        publish(store, taken, signer, day)
    row = ledger.LedgerRow(
        1, "backup_offsite/2026/11/r1", *run, "pass", [], NOW, NOW, "0" * 64, "", signer.fingerprint
    )

    def seal(_key: str, _now: datetime) -> None:
        with state.begin() as conn:
            if ledger.find(conn, *run) is None:
                ledger.append(conn, signer, row)

    monkeypatch.setattr(store, "require_deletable", seal)
    with pytest.raises(RunSealed, match="sealed"):
        step_record(PRUNE, context, "courier")
    assert len(manifests.restore_points(store, "courier", [signer.public_pem])[0]) == 5


@pytest.mark.parametrize("is_deleted", [True, False])
def test_pruning_fails_and_keeps_restore_point_if_its_signature_was_overwritten_or_deleted(
    moto: MotoServer,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    is_deleted: bool,
):
    """The signature was overwritten or deleted by someone.

    It is still read in its older version.
    """
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    s3 = S3Store(client, bucket)
    for day in (0, 1):
        publish(s3, taken, signer, day, NOW + timedelta(days=1))
    key = f"courier/p001/{SIGNATURE_NAME}"
    if is_deleted:
        client.delete_object(Bucket=bucket, Key=key)
    else:
        s3.put(key, b"forged")
    record = run_prune(make(s3, recipients, signer), state)
    assert record.outcome is Outcome.FAIL
    (finding,) = record.findings
    assert (finding.code, finding.subject) == ("backup.object.hidden", key)
    assert ("deleted" if is_deleted else "overwritten") in finding.message.text
    assert set(record.data["kept"]) == {"p000", "p001"}


def test_next_backup_completes_removal_that_a_killed_pruning_began(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    """The signature was deleted, but not the dump. The next run does not report tampering."""
    for day in (0, 1, 2, 100):
        publish(any_store, taken, signer, day)
    offsite = make(any_store, recipients, signer)
    removal = any_store.delete

    def delete_signature(key: str) -> None:
        if not key.endswith(SIGNATURE_NAME):
            raise KeyboardInterrupt
        removal(key)

    with monkeypatch.context() as patch:
        patch.setattr(any_store, "delete", delete_signature)
        with pytest.raises(KeyboardInterrupt):
            run_prune(offsite, state)
    record, _manifest = run_backup(offsite, tiny, state)
    assert record.data["cleared"] == ["courier/p100/"]
    assert record.findings == []
    assert run_prune(offsite, state).findings == []


def test_pruning_fails_and_keeps_restore_point_if_its_manifest_was_changed(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """A changed restore point does not count towards the minimum number."""
    for day in (0, 1, 100, 101, 102):
        publish(store, taken, signer, day)
    store.put(f"courier/p001/{MANIFEST_NAME}", b"changed")
    record = run_prune(make(store, recipients, signer), state)
    assert [finding.code for finding in record.findings] == ["backup.manifest.refused"]
    assert record.outcome is Outcome.FAIL
    assert set(record.data["kept"]) == {"p000", "p100", "p101"}
    assert set(record.data["removed"]) == {"p102"}
    assert store.get(f"courier/p001/{MANIFEST_NAME}") == b"changed"


def test_pruning_keeps_locked_restore_points(
    moto: MotoServer,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """The plan considers the lock, and the store would also refuse the deletion."""
    client = client_for(moto.endpoint)
    s3 = S3Store(client, new_bucket(client))
    for day in (0, 1, 2, 100, 101):
        publish(s3, taken, signer, day, NOW + timedelta(days=1) if day == 101 else None)
    offsite = make(s3, recipients, signer)
    record = run_prune(offsite, state)
    assert record.data["kept"]["p101"] == "locked"
    assert set(record.data["removed"]) == {"p100"}
    publish(s3, taken, signer, -2)
    later = run_prune(offsite, state, NOW + timedelta(days=2))
    assert later.data["refused"] == ["p101"]
    assert [finding.code for finding in later.findings] == ["backup.prune.locked"]
    assert later.outcome is Outcome.ATTENTION
    assert later.data["removed"] == {}
    assert len(manifests.restore_points(s3, "courier", [signer.public_pem])[0]) == 5


@pytest.mark.parametrize("names", [NAMES, (SIGNATURE_NAME, MANIFEST_NAME)])
@pytest.mark.parametrize("is_held", [True, False])
def test_pruning_reports_missing_published_restore_point(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    is_held: bool,
    names: Sequence[str],
):
    """If the restore point is under a legal hold, the run fails. Otherwise, it needs attention."""
    for day in (0, 1, 2):
        publish(store, taken, signer, day)
        begin(state, store, f"p{day:03d}")
        operations.end_operations(state, "courier", [f"p{day:03d}"], Ending.PUBLISHED, NOW)
    if is_held:
        hold(state, HoldKind.RESTORE_POINT, "p001")
    for name in names:
        store.delete(f"courier/p001/{name}")
    cleared = clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert cleared == Cleared(0, ())
    record = run_prune(make(store, recipients, signer), state)
    (finding,) = record.findings
    assert (finding.code, finding.subject) == ("backup.point.lost", "courier/p001/")
    assert finding.severity is (Outcome.FAIL if is_held else Outcome.ATTENTION)
    later = NOW + timedelta(days=RULES.expire_days)
    assert run_prune(make(store, recipients, signer), state, later).findings == []


def test_pruning_reports_no_missing_restore_point_if_its_removal_was_recorded(
    any_store: ObjectStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """Pruning records each removal."""
    for day in (0, 1, 2, 100):
        publish(any_store, taken, signer, day)
        begin(state, any_store, f"p{day:03d}")
        operations.end_operations(state, "courier", [f"p{day:03d}"], Ending.PUBLISHED, NOW)
    offsite = make(any_store, recipients, signer)
    assert set(run_prune(offsite, state).data["removed"]) == {"p100"}
    assert run_prune(offsite, state).findings == []
