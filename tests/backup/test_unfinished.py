"""Test that leftovers of killed runs are deleted and all other folders are kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from include.backup import operations
from include.backup.manifest import (
    DUMP_NAME,
    MANIFEST_NAME,
    NAMES,
    SIGNATURE_NAME,
    Manifest,
    publish,
    remove,
    restore_points,
)
from include.backup.offsite_findings import CLAUSE, report_unfinished
from include.backup.operations import Operation
from include.backup.point_folder import folder
from include.backup.prune import Cleared, clear_unfinished
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import SystemClock
from include.services.errors import ControlFailed, ServiceError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.tables import restore_point_operation
from tests.backup.offsite_support import end_hold_locks_meanwhile, hold
from tests.backup.support import Taken, begin
from tests.support.holders import NOW
from tests.support.registers import unguarded
from tests.support.s3 import MotoServer, client_for, new_bucket

Publish = Callable[..., Manifest]
Clear = Callable[..., Cleared]


@pytest.fixture
def published(taken: Taken, any_store: ObjectStore, signer: Signer) -> Publish:
    """Return a function that publishes a small restore point with a given id, without a backup."""

    def make(point: str, **changes: object) -> Manifest:
        stored = any_store.put(f"courier/{point}/{DUMP_NAME}", point.encode() * 9)
        dump = taken.manifest.dump.model_copy(
            update={
                "key": stored.key,
                "size": stored.size,
                "sha256": stored.sha256,
                "checksum": stored.checksum,
                "version_id": stored.version_id,
            }
        )
        manifest = taken.manifest.model_copy(update={"id": point, "dump": dump, **changes})
        publish(any_store, manifest, signer, None)
        return manifest

    return make


@pytest.fixture
def clear(any_store: ObjectStore, state: Engine, signer: Signer) -> Clear:
    """Return a function that deletes the leftovers of killed runs of the database courier."""
    return lambda: clear_unfinished(any_store, state, "courier", [signer.public_pem], NOW)


def keys(store: ObjectStore, point: str) -> set[str]:
    return {stored.key.rpartition("/")[2] for stored in store.list(f"courier/{point}/")}


def hide(store: ObjectStore, moto: MotoServer, key: str) -> None:
    """Delete an object without its version id. In S3, this only adds a delete marker."""
    if isinstance(store, S3Store):
        bucket = store.description.split("/")[2]
        client_for(moto.endpoint).delete_object(Bucket=bucket, Key=f"offsite/{key}")
    else:
        store.delete(key)


def open_work(state: Engine) -> int:
    table = restore_point_operation
    with state.connect() as conn:
        return len(conn.execute(select(table).where(table.c.ended_at.is_(None))).all())


@pytest.mark.parametrize("names", [[DUMP_NAME], [DUMP_NAME, MANIFEST_NAME]])
def test_clear_unfinished_removes_folder_of_killed_run(
    any_store: ObjectStore, state: Engine, published: Publish, clear: Clear, names: list[str]
) -> None:
    """Complete restore points and folders of other databases are kept."""
    published("good")
    any_store.put(f"courier2/x/{DUMP_NAME}", b"not ours")
    begin(state, any_store, "half")
    for name in names:
        any_store.put(f"courier/half/{name}", b"half")
    assert clear() == Cleared(0, ("courier/half/",))
    assert keys(any_store, "good") == set(NAMES)
    assert len(list(any_store.list_versions())) == 4
    assert clear() == Cleared(0, ())
    assert open_work(state) == 0


def test_clear_unfinished_closes_ledger_entry_of_run_that_was_killed_before_it_stored_objects(
    any_store: ObjectStore, state: Engine, clear: Clear
) -> None:
    begin(state, any_store, "none")
    assert clear() == Cleared(0, ())
    assert open_work(state) == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_clear_unfinished_keeps_published_restore_point_whose_signature_was_deleted(
    any_store: ObjectStore,
    moto: MotoServer,
    state: Engine,
    published: Publish,
    clear: Clear,
    signer: Signer,
    recorded: bool,
) -> None:
    """Someone has deleted the signature. Only a store with versions still contains it."""
    if recorded:
        begin(state, any_store, "point")
    published("point")
    if recorded:
        operations.end_operations(state, "courier", ["point"], operations.Ending.PUBLISHED, NOW)
    hide(any_store, moto, f"courier/point/{SIGNATURE_NAME}")
    assert clear() == Cleared(0, ())
    points, rejected = restore_points(any_store, "courier", [signer.public_pem])
    if isinstance(any_store, S3Store):
        assert ([point.id for point in points], rejected) == (["point"], [])
        assert [each.is_deleted for each in points[0].hidden] == [True]
    else:
        assert points == []
        assert [each.key for each in rejected] == [f"courier/point/{SIGNATURE_NAME}"]
        assert keys(any_store, "point") == {DUMP_NAME, MANIFEST_NAME}


def test_restore_point_of_killed_run_is_kept_if_its_signature_was_overwritten_or_deleted(
    moto: MotoServer, state: Engine, taken: Taken, signer: Signer
) -> None:
    """The run was killed after it stored the signature and before it recorded this."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client), "offsite")
    stored = store.put(f"courier/p/{DUMP_NAME}", b"x")
    dump = taken.manifest.dump.model_copy(
        update={"key": stored.key, "size": 1, "version_id": stored.version_id}
    )
    begin(state, store, "p")
    publish(store, taken.manifest.model_copy(update={"id": "p", "dump": dump}), signer, None)
    hide(store, moto, f"courier/p/{SIGNATURE_NAME}")
    cleared = clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert cleared == Cleared(0, ())
    (point,), _rejected = restore_points(store, "courier", [signer.public_pem])
    assert point.id == "p"
    assert open_work(state) == 0


def test_clear_unfinished_keeps_complete_restore_point_of_killed_run(
    any_store: ObjectStore, state: Engine, published: Publish, clear: Clear
) -> None:
    """The signature is written last, so the restore point is complete.

    Only the ledger is incomplete.
    """
    begin(state, any_store, "point")
    published("point")
    assert clear() == Cleared(0, ())
    assert keys(any_store, "point") == set(NAMES)
    assert open_work(state) == 0


def test_clear_unfinished_reports_and_keeps_folder_without_ledger_entry(
    any_store: ObjectStore, state: Engine, clear: Clear
) -> None:
    """The ledger may be lost or outdated, or another installation wrote the folder."""
    any_store.put(f"courier/unknown/{DUMP_NAME}", b"half")
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    with state.begin() as conn, unguarded(conn, "restore_point_operation"):
        conn.execute(restore_point_operation.delete())
    assert clear() == Cleared(0, (), unknown=("courier/half/", "courier/unknown/"))
    assert keys(any_store, "half") == keys(any_store, "unknown") == {DUMP_NAME}


def test_clear_unfinished_keeps_ledger_entry_of_unfinished_backup_in_another_store(
    any_store: ObjectStore, state: Engine, clear: Clear, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For a while, the connection may name another store, and later the first store again."""
    other = DirectoryStore(tmp_path_factory.mktemp("other"))
    begin(state, other, "half")
    other.put(f"courier/half/{DUMP_NAME}", b"half")
    assert clear() == Cleared(0, ())
    assert clear_unfinished(other, state, "courier", [], NOW).folders == ("courier/half/",)


def test_folder_of_killed_run_is_deleted_even_if_address_of_the_store_has_changed(
    any_store: ObjectStore, state: Engine, clear: Clear, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The host name of the service or the path of the disk has changed."""
    begin(state, DirectoryStore(tmp_path_factory.mktemp("other")), "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    assert clear().folders == ("courier/half/",)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (HoldKind.RESTORE_POINT, "half"),
        (HoldKind.RESTORE_POINT, "courier/half"),
        (HoldKind.DATABASE, "courier"),
    ],
)
def test_leftover_under_legal_hold_is_kept_until_the_hold_is_released(
    any_store: ObjectStore, state: Engine, clear: Clear, kind: HoldKind, value: str
) -> None:
    number = hold(state, kind, value)
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    assert clear() == Cleared(0, (), held=("courier/half/",))
    with state.begin() as conn:
        registry.release(conn, SystemClock(), number, released_by="legal", reason="settled")
    assert clear() == Cleared(0, ("courier/half/",))


def test_clear_unfinished_deletes_no_object_of_leftover_folder_if_any_object_is_locked(
    any_store: ObjectStore, state: Engine, clear: Clear
) -> None:
    """The locks of all objects are checked before any object is deleted."""
    begin(state, any_store, "half")
    any_store.put(
        f"courier/half/{DUMP_NAME}", b"half", locked_until=SystemClock().now() + timedelta(days=1)
    )
    any_store.put(f"courier/half/{MANIFEST_NAME}", b"half")
    assert clear() == Cleared(0, (), locked=("courier/half/",))
    assert keys(any_store, "half") == {DUMP_NAME, MANIFEST_NAME}
    assert open_work(state) == 1


def killed_after(steps: int, real: Callable[[str], None]) -> Callable[[str], None]:
    deleted = 0

    def delete(key: str) -> None:
        nonlocal deleted
        if deleted == steps:
            raise KeyboardInterrupt
        deleted += 1
        real(key)

    return delete


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_clear_unfinished_completes_interrupted_removal_only_if_an_object_was_deleted(
    any_store: ObjectStore,
    state: Engine,
    published: Publish,
    clear: Clear,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """If no object was deleted yet, the restore point is valid and kept, and pruning decides.

    If the first object was deleted, the remaining objects are deleted too.
    """
    published("old")
    begin(state, any_store, "old", Operation.REMOVE)
    with monkeypatch.context() as patch:
        patch.setattr(any_store, "delete", killed_after(steps, any_store.delete))
        with pytest.raises(KeyboardInterrupt):
            remove(any_store, folder("courier", "old"), NOW)
    assert clear().folders == (() if steps == 0 else ("courier/old/",))
    assert keys(any_store, "old") == (set(NAMES) if steps == 0 else set())
    assert open_work(state) == 0


def test_clear_unfinished_removes_unfinished_upload_and_keeps_stored_objects(
    any_store: ObjectStore, published: Publish, clear: Clear
) -> None:
    """A complete restore point and other files are kept."""
    published("good")
    any_store.put(f"courier2/x/{DUMP_NAME}", b"not ours")
    kept = {stored.key for stored in any_store.list()}
    writer = any_store.open_writer(f"courier/killed/{DUMP_NAME}")
    writer.write(b"x" * 17 * 1024 * 1024)
    assert clear() == Cleared(1, ())
    assert {stored.key for stored in any_store.list()} == kept
    writer.abort()


def test_clear_unfinished_escapes_line_feed_in_reported_folder_name(
    store: DirectoryStore, state: Engine, signer: Signer
) -> None:
    """Names that other programs created must appear in reports as plain text."""
    odd = Path(store.description, "courier", "a\nb")
    odd.mkdir(parents=True)
    (odd / DUMP_NAME).write_bytes(b"x")
    cleared = clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert cleared.unknown == ("'courier/a\\nb/'",)


def refuse_holds() -> None:
    raise ControlFailed("The state database is not complete: a hold is missing.")


def test_clear_unfinished_keeps_folders_if_register_of_legal_holds_is_incomplete(
    any_store: ObjectStore, state: Engine, published: Publish, signer: Signer
) -> None:
    """The lost legal hold may protect the restore point whose removal was interrupted."""
    published("gone")
    begin(state, any_store, "gone", Operation.REMOVE)
    any_store.delete(f"courier/gone/{SIGNATURE_NAME}")
    trusted = [signer.public_pem]
    cleared = clear_unfinished(any_store, state, "courier", trusted, NOW, refuse_holds)
    assert cleared == Cleared(0, (), uncompared=("courier/gone/",))
    assert (keys(any_store, "gone"), open_work(state)) == ({DUMP_NAME, MANIFEST_NAME}, 1)
    step_findings = StepFindings("backup", CLAUSE, "courier")
    report_unfinished(step_findings, cleared)
    assert [each.code for each in step_findings.findings] == ["backup.unfinished.uncompared"]
    cleared = clear_unfinished(any_store, state, "courier", trusted, NOW, lambda: None)
    assert cleared.folders == ("courier/gone/",)


def test_clear_unfinished_does_not_read_legal_holds_if_it_removes_nothing(
    any_store: ObjectStore, state: Engine, published: Publish, signer: Signer
) -> None:
    """A backup without leftovers thus does not depend on the evidence store."""
    published("good")
    begin(state, any_store, "good")
    trusted = [signer.public_pem]
    assert clear_unfinished(any_store, state, "courier", trusted, NOW, refuse_holds) == Cleared(
        0, ()
    )


def test_clear_unfinished_removes_nothing_if_its_lock_against_new_legal_holds_was_lost(
    store: DirectoryStore, state: Engine, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session that prevents new legal holds ends before the removal.

    A new legal hold could therefore be placed on the restore point.
    """
    begin(state, store, "half")
    store.put(f"courier/half/{DUMP_NAME}", b"half")
    end_hold_locks_meanwhile(store, state, monkeypatch)
    with pytest.raises(ServiceError, match="lock against new holds"):
        clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert keys(store, "half") == {DUMP_NAME}
