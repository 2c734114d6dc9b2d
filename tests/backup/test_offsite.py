"""The steps of a backup run: clear, dump, verify, publish, prune; on both kinds of store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from include.backup import manifest as manifests
from include.backup.manifest import DUMP_NAME, MANIFEST_NAME
from include.backup.offsite import Offsite, back_up, prune_restore_points
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome, StepRecord
from include.evidence.signing import Signer
from include.policy.rules import BackupRules
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.backup.support import Taken, mapped
from tests.support.holders import NOW
from tests.support.s3 import MotoServer, client_for, new_bucket

RULES = BackupRules()
ZONE = ZoneInfo("Asia/Shanghai")


@pytest.fixture(params=["directory", "s3"])
def any_store(request: pytest.FixtureRequest, moto: MotoServer) -> ObjectStore:
    if request.param == "s3":
        client = client_for(moto.endpoint)
        return S3Store(client, new_bucket(client), "offsite", "shanghai")
    found: DirectoryStore = request.getfixturevalue("store")
    return found


@pytest.fixture(scope="module")
def tiny(new_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    return new_database(
        f"CREATE TABLE customer (id int, seen timestamptz); CREATE TABLE waybill (id int); "
        f"INSERT INTO customer VALUES (1, '{NOW}'), (2, NULL)"
    )


def make(store: ObjectStore, recipients: list[Recipient], signer: Signer) -> Offsite:
    return Offsite(store, recipients, [], signer, [signer.public_pem])


def run_backup(offsite: Offsite, source: DatabaseAddress) -> tuple[StepRecord, manifests.Manifest]:
    return back_up(
        mapped(), source, offsite, RULES, dag_id="backup_offsite", run_id="r", clock=SystemClock()
    )


def test_a_backup_is_published_locked_and_clears_what_a_killed_run_left(
    any_store: ObjectStore, tiny: DatabaseAddress, recipients: list[Recipient], signer: Signer
):
    """The restore point is listed, its lock and expiry are the policy's, the left-over is gone."""
    any_store.put(f"courier/killed/{DUMP_NAME}", b"half")
    offsite = make(any_store, recipients, signer)
    record, manifest = run_backup(offsite, tiny)
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["cleared"] == ["courier/killed/"]
    assert record.data["restore_point"] == manifest.id
    assert {one.name: one.value for one in record.metrics}["backup.rows"] == 2
    (point,), rejected = manifests.restore_points(any_store, "courier", [signer.public_pem])
    assert rejected == []
    assert point.manifest == manifest
    assert manifest.newest[0].moment == NOW
    assert manifest.expires_at - manifest.taken_at == timedelta(days=RULES.expire_days)
    if any_store.kind == "s3":
        assert point.locked_until is not None
        locked = point.locked_until - manifest.taken_at
        assert abs(locked - timedelta(days=RULES.lock_days)) < timedelta(seconds=2)


def test_left_overs_that_are_locked_need_attention(
    moto: MotoServer, tiny: DatabaseAddress, recipients: list[Recipient], signer: Signer
):
    """They do not stop the backup."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    store.put(f"courier/half/{DUMP_NAME}", b"x", locked_until=NOW + timedelta(days=2))
    record, _ = run_backup(make(store, recipients, signer), tiny)
    assert [one.code for one in record.findings] == ["backup.unfinished.locked"]
    assert record.outcome is Outcome.ATTENTION


def test_a_store_that_kept_other_bytes_gets_no_signature(
    store: DirectoryStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    monkeypatch: pytest.MonkeyPatch,
):
    """What is not verified is no restore point."""
    real = store.verify

    def verify_damaged(expected: object) -> None:
        (dump,) = (one.key for one in store.list())
        store.put(dump, b"rotten")
        real(expected)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "verify", verify_damaged)
    with pytest.raises(ObjectDamaged):
        run_backup(make(store, recipients, signer), tiny)
    assert manifests.restore_points(store, "courier", [signer.public_pem]) == ([], [])
    assert len(manifests.clear_unfinished(store, "courier").folders) == 1


def test_without_a_recipient_nothing_is_stored(
    store: DirectoryStore, tiny: DatabaseAddress, signer: Signer
):
    """Also when somebody skips the preflight."""
    with pytest.raises(UsageError, match="no recipient"):
        run_backup(make(store, [], signer), tiny)
    assert list(store.list()) == []


def publish(
    store: ObjectStore, taken: Taken, signer: Signer, day: int, locked: datetime | None = None
) -> str:
    at = NOW - timedelta(days=day)
    point = f"p{day:03d}"
    key = f"courier/{point}/{DUMP_NAME}"
    stored = store.put(key, point.encode())
    dump = taken.manifest.dump.model_copy(update={"key": key, "size": stored.size})
    made = taken.manifest.model_copy(
        update={"id": point, "dump": dump, "taken_at": at, "expires_at": at + timedelta(days=90)}
    )
    manifests.publish(store, made, signer, locked)
    return point


def test_pruning_removes_what_the_rules_say_and_nothing_else(
    any_store: ObjectStore, taken: Taken, recipients: list[Recipient], signer: Signer
):
    """Expired and superseded go, floor and holds stay; again, nothing more goes."""
    for day in (0, 1, 2, 10, 11, 95, 96):
        publish(any_store, taken, signer, day)
    offsite = make(any_store, recipients, signer)
    record = prune_restore_points("courier", offsite, RULES, {"p096"}, zone=ZONE, now=NOW)
    assert record.outcome is Outcome.PASS
    assert record.data["removed"]["p095"] == "expired"
    assert record.data["kept"]["p096"] == "legal hold"
    assert {"p000", "p001", "p002"} <= set(record.data["kept"])
    left, _ = manifests.restore_points(any_store, "courier", [signer.public_pem])
    assert {one.id for one in left} == set(record.data["kept"])
    assert record.metrics[0].value == len(left)
    assert not [one.key for one in any_store.list("courier/p095/")]
    again = prune_restore_points("courier", offsite, RULES, {"p096"}, zone=ZONE, now=NOW)
    assert again.data["removed"] == {}


def test_a_changed_restore_point_fails_pruning_and_is_kept_as_evidence(
    store: DirectoryStore, taken: Taken, recipients: list[Recipient], signer: Signer
):
    """It counts for nothing: the floor is made of good ones only."""
    for day in (0, 1, 100, 101, 102):
        publish(store, taken, signer, day)
    store.put(f"courier/p001/{MANIFEST_NAME}", b"changed")
    record = prune_restore_points(
        "courier", make(store, recipients, signer), RULES, set(), zone=ZONE, now=NOW
    )
    assert [one.code for one in record.findings] == ["backup.manifest.refused"]
    assert record.outcome is Outcome.FAIL
    assert set(record.data["kept"]) == {"p000", "p100", "p101"}
    assert set(record.data["removed"]) == {"p102"}
    assert store.get(f"courier/p001/{MANIFEST_NAME}") == b"changed"


def test_locked_restore_points_stay(
    moto: MotoServer, taken: Taken, recipients: list[Recipient], signer: Signer
):
    """The plan knows the lock, and the store would refuse anyway."""
    client = client_for(moto.endpoint)
    s3 = S3Store(client, new_bucket(client))
    for day in (0, 1, 2, 100, 101):
        publish(s3, taken, signer, day, NOW + timedelta(days=1) if day == 101 else None)
    offsite = make(s3, recipients, signer)
    record = prune_restore_points("courier", offsite, RULES, set(), zone=ZONE, now=NOW)
    assert record.data["kept"]["p101"] == "locked"
    assert set(record.data["removed"]) == {"p100"}
    publish(s3, taken, signer, -2)
    later = prune_restore_points(
        "courier", offsite, RULES, set(), zone=ZONE, now=NOW + timedelta(days=2)
    )
    assert later.data["refused"] == ["p101"]
    assert [one.code for one in later.findings] == ["backup.prune.locked"]
    assert later.outcome is Outcome.ATTENTION
    assert later.data["removed"] == {}
    assert len(manifests.restore_points(s3, "courier", [signer.public_pem])[0]) == 5


def test_a_mapped_table_that_is_gone_needs_attention(
    store: ObjectStore, tiny: DatabaseAddress, recipients: list[Recipient], signer: Signer
):
    """A data map that no longer fits is said; the backup itself is whole."""
    with tiny.connect(autocommit=True) as connection:
        connection.execute("ALTER TABLE waybill RENAME TO parcel")
    try:
        record, _manifest = run_backup(make(store, recipients, signer), tiny)
    finally:
        with tiny.connect(autocommit=True) as connection:
            connection.execute("ALTER TABLE parcel RENAME TO waybill")
    assert [one.code for one in record.findings] == ["backup.mapped.missing"]


def test_a_database_without_any_mapped_table_is_another_one(
    store: ObjectStore, tiny: DatabaseAddress, recipients: list[Recipient], signer: Signer
):
    """A wrong database name on the right server must not pass for a backup."""
    with pytest.raises(UsageError, match="it is another database"):
        run_backup(make(store, recipients, signer), tiny.with_database("postgres"))
