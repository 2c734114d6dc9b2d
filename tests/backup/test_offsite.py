"""Test the steps of a backup run on both kinds of store: clear, dump, verify, publish, prune."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup.manifest import DUMP_NAME
from include.backup.prune import clear_unfinished
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.evidence.step_findings import record_step
from include.holds.registry import HoldKind
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.tables import restore_point_operation
from tests.backup.offsite_support import RULES, hold, make, run_backup, run_prune
from tests.backup.support import begin
from tests.support.holders import NOW
from tests.support.s3 import MotoServer, client_for, new_bucket


def test_run_publishes_and_locks_backup_and_removes_leftovers_of_a_killed_run(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """The policy pack defines the duration of the lock and the expiry."""
    begin(state, any_store, "killed")
    any_store.put(f"courier/killed/{DUMP_NAME}", b"half")
    offsite = make(any_store, recipients, signer)
    record, manifest = run_backup(offsite, tiny, state)
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["cleared"] == ["courier/killed/"]
    assert record.data["restore_point"] == manifest.id
    assert {metric.name: metric.value for metric in record.metrics}["backup.rows"] == 2
    (point,), rejected = manifests.restore_points(any_store, "courier", [signer.public_pem])
    assert rejected == []
    assert point.manifest == manifest
    assert manifest.newest[0].moment == NOW
    assert manifest.expires_at - manifest.taken_at == timedelta(days=RULES.expire_days)
    if any_store.kind == "s3":
        assert point.locked_until is not None
        locked = point.locked_until - manifest.taken_at
        assert abs(locked - timedelta(days=RULES.lock_days)) < timedelta(seconds=2)


def test_pruning_removes_leftover_objects_that_the_backup_may_not_delete(
    store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    """The step that prunes uses other credentials, which allow to delete."""
    begin(state, store, "killed")
    store.put(f"courier/killed/{DUMP_NAME}", b"half")
    pruning = make(store, recipients, signer)
    with monkeypatch.context() as patch:
        patch.delattr(type(store), "delete")
        record, _ = run_backup(replace(pruning, may_delete=False), tiny, state)
    assert record.data["cleared"] == []
    assert record.data["leftovers_left_to_pruning"]
    assert store.get(f"courier/killed/{DUMP_NAME}") == b"half"
    with state.begin() as conn:
        record_step(conn, "backup_offsite", "r", record, FixedClock(NOW))
    assert run_prune(pruning, state).outcome is Outcome.PASS
    with pytest.raises(ObjectMissing):
        store.get(f"courier/killed/{DUMP_NAME}")


def test_retried_backup_returns_newest_restore_point_of_its_run(
    store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """A retry makes a new backup only if its run has published no restore point.

    If it makes no backup, its result has no duration.
    """
    offsite = make(store, recipients, signer)
    for run_id, again in (("mine", True), ("other", False)):
        record, _manifest = run_backup(offsite, tiny, state, run_id, again=again)
        assert record.data["published_by_an_earlier_try"] is False
        assert record.data["seconds"] > 0
    _record, newest = run_backup(offsite, tiny, state, "mine")
    run_backup(offsite, tiny, state, "other")
    repeated, manifest = run_backup(offsite, tiny, state, "mine", again=True)
    assert manifest == newest
    assert repeated.data["published_by_an_earlier_try"] is True
    assert repeated.data["seconds"] is None
    assert (repeated.outcome, repeated.findings) == (Outcome.PASS, [])
    points, _rejected = manifests.restore_points(store, "courier", [signer.public_pem])
    assert len(points) == 4


def test_backup_with_locked_leftovers_of_an_earlier_run_needs_attention(
    moto: MotoServer,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """Leftovers that are locked in the store do not stop the backup."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    begin(state, store, "half")
    store.put(f"courier/half/{DUMP_NAME}", b"x", locked_until=NOW + timedelta(days=2))
    record, _ = run_backup(make(store, recipients, signer), tiny, state)
    assert [finding.code for finding in record.findings] == ["backup.unfinished.locked"]
    assert record.outcome is Outcome.ATTENTION


def test_backup_raises_object_damaged_error_and_publishes_nothing_if_stored_bytes_were_damaged(
    store: DirectoryStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    real = store.verify

    def verify_damaged(expected: object) -> None:
        (dump,) = (item.key for item in store.list())
        store.put(dump, b"rotten")
        real(expected)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "verify", verify_damaged)
    with pytest.raises(ObjectDamaged):
        run_backup(make(store, recipients, signer), tiny, state)
    assert manifests.restore_points(store, "courier", [signer.public_pem]) == ([], [])
    cleared = clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert len(cleared.folders) == 1


def test_backup_without_encryption_recipient_raises_usage_error_and_stores_nothing(
    store: DirectoryStore, tiny: DatabaseAddress, signer: Signer, state: Engine
):
    """This also applies if the preflight was skipped."""
    with pytest.raises(UsageError, match="No recipient"):
        run_backup(make(store, [], signer), tiny, state)
    assert list(store.list()) == []


@pytest.mark.parametrize("lost", ["nothing", "the ledger"])
def test_backup_reports_and_keeps_leftover_folder_without_ledger_entry(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    lost: str,
):
    """The folder needs attention and is kept. The backup continues."""
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    if lost == "the ledger":
        with state.begin() as conn:
            conn.execute(restore_point_operation.delete())
    record, _manifest = run_backup(make(any_store, recipients, signer), tiny, state)
    expected = [] if lost == "nothing" else ["backup.unfinished.unknown"]
    assert [finding.code for finding in record.findings] == expected
    assert bool(list(any_store.list("courier/half/"))) == (lost == "the ledger")


def test_leftover_under_legal_hold_needs_attention(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """The leftover does not stop the backup."""
    hold(state, HoldKind.DATABASE, "courier")
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    record, _manifest = run_backup(make(any_store, recipients, signer), tiny, state)
    assert [finding.code for finding in record.findings] == ["backup.unfinished.held"]
    assert record.outcome is Outcome.ATTENTION


def test_backup_with_missing_mapped_table_needs_attention(
    store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """The data map is outdated; the backup itself is complete."""
    with tiny.connect(autocommit=True) as connection:
        connection.execute("ALTER TABLE waybill RENAME TO parcel")
    try:
        record, _manifest = run_backup(make(store, recipients, signer), tiny, state)
    finally:
        with tiny.connect(autocommit=True) as connection:
            connection.execute("ALTER TABLE parcel RENAME TO waybill")
    assert [finding.code for finding in record.findings] == ["backup.mapped.missing"]


def test_backup_of_database_without_any_mapped_table_raises_usage_error(
    store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """A wrong database name on the right server must not pass as a backup."""
    with pytest.raises(UsageError, match="it is another database"):
        run_backup(make(store, recipients, signer), tiny.with_database("postgres"), state)
