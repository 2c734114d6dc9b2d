"""The steps of a backup run: clear, dump, verify, publish, prune; on both kinds of store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup.manifest import DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME
from include.backup.offsite import Offsite, back_up, prune_restore_points
from include.backup.unfinished import clear_unfinished
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome, StepRecord
from include.evidence.signing import Signer
from include.holds import registry
from include.holds.registry import HoldKind
from include.policy.rules import BackupRules
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.tables import restore_point_begun
from tests.backup.support import Taken, begin, mapped
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


def run_backup(
    offsite: Offsite, source: DatabaseAddress, state: Engine
) -> tuple[StepRecord, manifests.Manifest]:
    return back_up(
        mapped(), source, offsite, RULES, state,
        dag_id="backup_offsite", run_id="r", clock=SystemClock(),
    )  # fmt: skip


def run_prune(offsite: Offsite, state: Engine, now: datetime = NOW) -> StepRecord:
    return prune_restore_points(
        "courier", offsite, RULES, state,
        zone=ZONE, now=now, dag_id="backup_offsite", run_id="r",
    )  # fmt: skip


def hold(state: Engine, kind: HoldKind, value: str) -> None:
    with state.begin() as conn:
        registry.add(
            conn, SystemClock(), kind=kind, value=value, reason="claim", owner="legal",
            case_ref="C-1", review_on=(NOW + timedelta(days=3650)).date(),
        )  # fmt: skip


def test_a_backup_is_published_locked_and_clears_what_a_killed_run_left(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """The restore point is listed, its lock and expiry are the policy's, the left-over is gone."""
    begin(state, any_store, "killed")
    any_store.put(f"courier/killed/{DUMP_NAME}", b"half")
    offsite = make(any_store, recipients, signer)
    record, manifest = run_backup(offsite, tiny, state)
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
    moto: MotoServer,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """They do not stop the backup."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    begin(state, store, "half")
    store.put(f"courier/half/{DUMP_NAME}", b"x", locked_until=NOW + timedelta(days=2))
    record, _ = run_backup(make(store, recipients, signer), tiny, state)
    assert [one.code for one in record.findings] == ["backup.unfinished.locked"]
    assert record.outcome is Outcome.ATTENTION


def test_a_store_that_kept_other_bytes_gets_no_signature(
    store: DirectoryStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
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
        run_backup(make(store, recipients, signer), tiny, state)
    assert manifests.restore_points(store, "courier", [signer.public_pem]) == ([], [])
    cleared = clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert len(cleared.folders) == 1


def test_without_a_recipient_nothing_is_stored(
    store: DirectoryStore, tiny: DatabaseAddress, signer: Signer, state: Engine
):
    """Also when somebody skips the preflight."""
    with pytest.raises(UsageError, match="no recipient"):
        run_backup(make(store, [], signer), tiny, state)
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
    any_store: ObjectStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """Expired and superseded go, floor and holds stay; again, nothing more goes."""
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
    assert {one.id for one in left} == set(record.data["kept"])
    assert record.metrics[0].value == len(left)
    assert not [one.key for one in any_store.list("courier/p095/")]
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
def test_a_hold_placed_while_pruning_runs_keeps_what_is_left(
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
    """It waits for the removal of the point at hand, and the next points see it."""
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
    assert {one for one, why in record.data["kept"].items() if why == "legal hold"} == kept
    points, rejected = manifests.restore_points(any_store, "courier", [signer.public_pem])
    assert rejected == []
    assert kept < {point.id for point in points}


def test_pruning_that_loses_its_lock_removes_nothing(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    """The session with the lock ends while locks of the store are read: a hold may come in."""
    for day in (0, 1, 2, 100):
        publish(store, taken, signer, day)
    require_deletable = store.require_deletable

    def lose_lock(key: str, now: datetime) -> None:
        require_deletable(key, now)
        with state.begin() as conn:
            conn.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                " AND mode = 'ShareLock' AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )

    monkeypatch.setattr(store, "require_deletable", lose_lock)
    with pytest.raises(ServiceError, match="lock that keeps new holds out"):
        run_prune(make(store, recipients, signer), state)
    points, rejected = manifests.restore_points(store, "courier", [signer.public_pem])
    assert ([point.id for point in points], rejected) == (["p100", "p002", "p001", "p000"], [])


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_hidden_restore_point_fails_pruning_and_counts(
    moto: MotoServer,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    is_deleted: bool,
):
    """Somebody deleted or overwrote a part of it in the store: it is kept, and the run fails."""
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


def test_a_run_killed_while_pruning_is_completed_by_the_next(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    """The signature is gone, the dump is not: the next run removes it, and reports no tampering."""
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


@pytest.mark.parametrize("lost", ["nothing", "the ledger"])
def test_a_backup_reports_a_folder_that_is_not_in_the_ledger(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
    lost: str,
):
    """It needs attention, is kept, and does not stop the backup."""
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    if lost == "the ledger":
        with state.begin() as conn:
            conn.execute(restore_point_begun.delete())
    record, _manifest = run_backup(make(any_store, recipients, signer), tiny, state)
    expected = [] if lost == "nothing" else ["backup.unfinished.unknown"]
    assert [one.code for one in record.findings] == expected
    assert bool(list(any_store.list("courier/half/"))) == (lost == "the ledger")


def test_a_left_over_under_a_legal_hold_needs_attention(
    any_store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """It does not stop the backup."""
    hold(state, HoldKind.DATABASE, "courier")
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    record, _manifest = run_backup(make(any_store, recipients, signer), tiny, state)
    assert [one.code for one in record.findings] == ["backup.unfinished.held"]
    assert record.outcome is Outcome.ATTENTION


def test_a_changed_restore_point_fails_pruning_and_is_kept_as_evidence(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """It counts for nothing: the floor is made of good ones only."""
    for day in (0, 1, 100, 101, 102):
        publish(store, taken, signer, day)
    store.put(f"courier/p001/{MANIFEST_NAME}", b"changed")
    record = run_prune(make(store, recipients, signer), state)
    assert [one.code for one in record.findings] == ["backup.manifest.refused"]
    assert record.outcome is Outcome.FAIL
    assert set(record.data["kept"]) == {"p000", "p100", "p101"}
    assert set(record.data["removed"]) == {"p102"}
    assert store.get(f"courier/p001/{MANIFEST_NAME}") == b"changed"


def test_locked_restore_points_stay(
    moto: MotoServer,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """The plan knows the lock, and the store would refuse anyway."""
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
    assert [one.code for one in later.findings] == ["backup.prune.locked"]
    assert later.outcome is Outcome.ATTENTION
    assert later.data["removed"] == {}
    assert len(manifests.restore_points(s3, "courier", [signer.public_pem])[0]) == 5


def test_a_mapped_table_that_is_gone_needs_attention(
    store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """A data map that no longer fits is said; the backup itself is whole."""
    with tiny.connect(autocommit=True) as connection:
        connection.execute("ALTER TABLE waybill RENAME TO parcel")
    try:
        record, _manifest = run_backup(make(store, recipients, signer), tiny, state)
    finally:
        with tiny.connect(autocommit=True) as connection:
            connection.execute("ALTER TABLE parcel RENAME TO waybill")
    assert [one.code for one in record.findings] == ["backup.mapped.missing"]


def test_a_database_without_any_mapped_table_is_another_one(
    store: ObjectStore,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
):
    """A wrong database name on the right server must not pass for a backup."""
    with pytest.raises(UsageError, match="it is another database"):
        run_backup(make(store, recipients, signer), tiny.with_database("postgres"), state)
