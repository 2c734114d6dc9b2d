"""Left-overs of killed runs are cleared when this installation began them; all else is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from include.backup import listing
from include.backup.listing import Work
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
from include.state.tables import restore_point_begun
from tests.backup.offsite_support import end_hold_locks_meanwhile, hold
from tests.backup.support import Taken, begin
from tests.support.holders import NOW
from tests.support.registers import unguarded
from tests.support.s3 import MotoServer, client_for, new_bucket

Publish = Callable[..., Manifest]
Clear = Callable[..., Cleared]


@pytest.fixture
def published(taken: Taken, any_store: ObjectStore, signer: Signer) -> Publish:
    """Publish a small restore point under some id, without taking a backup."""

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
        made = taken.manifest.model_copy(update={"id": point, "dump": dump, **changes})
        publish(any_store, made, signer, None)
        return made

    return make


@pytest.fixture
def clear(any_store: ObjectStore, state: Engine, signer: Signer) -> Clear:
    """Clear what killed runs left of courier."""
    return lambda: clear_unfinished(any_store, state, "courier", [signer.public_pem], NOW)


def keys(store: ObjectStore, point: str) -> set[str]:
    return {stored.key.rpartition("/")[2] for stored in store.list(f"courier/{point}/")}


def hide(store: ObjectStore, moto: MotoServer, key: str) -> None:
    """Delete with a plain client: a marker in S3, `rm` in a directory."""
    if isinstance(store, S3Store):
        bucket = store.description.split("/")[2]
        client_for(moto.endpoint).delete_object(Bucket=bucket, Key=f"offsite/{key}")
    else:
        store.delete(key)


def open_work(state: Engine) -> int:
    table = restore_point_begun
    with state.connect() as conn:
        return len(conn.execute(select(table).where(table.c.ended_at.is_(None))).all())


@pytest.mark.parametrize("names", [[DUMP_NAME], [DUMP_NAME, MANIFEST_NAME]])
def test_clear_removes_folder_begun_by_killed_run_once(
    any_store: ObjectStore, state: Engine, published: Publish, clear: Clear, names: list[str]
) -> None:
    """And nothing else: not a whole restore point, not another database's."""
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


def test_a_run_killed_before_it_stored_anything_leaves_no_open_work(
    any_store: ObjectStore, state: Engine, clear: Clear
) -> None:
    """Its folder never came to be."""
    begin(state, any_store, "none")
    assert clear() == Cleared(0, ())
    assert open_work(state) == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_a_published_point_whose_signature_is_gone_is_never_cleared(
    any_store: ObjectStore,
    moto: MotoServer,
    state: Engine,
    published: Publish,
    clear: Clear,
    signer: Signer,
    recorded: bool,
) -> None:
    """A plain delete of the signature: with versions it stays usable, without it is refused."""
    if recorded:
        begin(state, any_store, "point")
    published("point")
    if recorded:
        listing.end_work(state, "courier", ["point"], listing.Ending.PUBLISHED, NOW)
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


def test_a_signature_hidden_before_the_run_recorded_its_end_is_found_by_version(
    moto: MotoServer, state: Engine, taken: Taken, signer: Signer
) -> None:
    """A run that was killed between the signature and its record in the ledger."""
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


def test_clear_keeps_complete_restore_point_of_killed_run(
    any_store: ObjectStore, state: Engine, published: Publish, clear: Clear
) -> None:
    """The signature is written last, so the restore point exists; the ledger follows."""
    begin(state, any_store, "point")
    published("point")
    assert clear() == Cleared(0, ())
    assert keys(any_store, "point") == set(NAMES)
    assert open_work(state) == 0


def test_a_folder_that_no_run_is_known_to_have_begun_is_named_and_kept(
    any_store: ObjectStore, state: Engine, clear: Clear
) -> None:
    """The ledger was lost, or restored from an older backup, or another installation wrote it."""
    any_store.put(f"courier/unknown/{DUMP_NAME}", b"half")
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    with state.begin() as conn, unguarded(conn, "restore_point_begun"):
        conn.execute(restore_point_begun.delete())
    assert clear() == Cleared(0, (), unknown=("courier/half/", "courier/unknown/"))
    assert keys(any_store, "half") == keys(any_store, "unknown") == {DUMP_NAME}


def test_clear_keeps_work_of_other_store_open(
    any_store: ObjectStore, state: Engine, clear: Clear, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The connection names another store for a while; back in the first, the rest is cleared."""
    other = DirectoryStore(tmp_path_factory.mktemp("other"))
    begin(state, other, "half")
    other.put(f"courier/half/{DUMP_NAME}", b"half")
    assert clear() == Cleared(0, ())
    assert clear_unfinished(other, state, "courier", [], NOW).folders == ("courier/half/",)


def test_a_folder_begun_under_another_address_of_the_store_is_cleared(
    any_store: ObjectStore, state: Engine, clear: Clear, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The service got another name, or the disk another path."""
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
def test_a_left_over_under_a_legal_hold_is_kept_until_its_release(
    any_store: ObjectStore, state: Engine, clear: Clear, kind: HoldKind, value: str
) -> None:
    """Clearing asks the holds as pruning does."""
    number = hold(state, kind, value)
    begin(state, any_store, "half")
    any_store.put(f"courier/half/{DUMP_NAME}", b"half")
    assert clear() == Cleared(0, (), held=("courier/half/",))
    with state.begin() as conn:
        registry.release(conn, SystemClock(), number, released_by="legal", reason="settled")
    assert clear() == Cleared(0, ("courier/half/",))


def test_a_left_over_that_is_locked_in_part_is_kept_whole(
    any_store: ObjectStore, state: Engine, clear: Clear
) -> None:
    """The locks of all its objects are asked before anything is removed."""
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
def test_an_interrupted_removal_is_completed_or_left_to_pruning(
    any_store: ObjectStore,
    state: Engine,
    published: Publish,
    clear: Clear,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    """Before its first step the point is valid and pruning decides anew; after, it is cleared."""
    published("old")
    begin(state, any_store, "old", Work.REMOVE)
    with monkeypatch.context() as patch:
        patch.setattr(any_store, "delete", killed_after(steps, any_store.delete))
        with pytest.raises(KeyboardInterrupt):
            remove(any_store, folder("courier", "old"), NOW)
    assert clear().folders == (() if steps == 0 else ("courier/old/",))
    assert keys(any_store, "old") == (set(NAMES) if steps == 0 else set())
    assert open_work(state) == 0


def test_unfinished_uploads_are_removed_and_other_databases_left(
    any_store: ObjectStore, published: Publish, clear: Clear
) -> None:
    """A writer that never committed, beside a whole restore point and other files."""
    published("good")
    any_store.put(f"courier2/x/{DUMP_NAME}", b"not ours")
    kept = {stored.key for stored in any_store.list()}
    writer = any_store.open_writer(f"courier/killed/{DUMP_NAME}")
    writer.write(b"x" * 17 * 1024 * 1024)
    assert clear() == Cleared(1, ())
    assert {stored.key for stored in any_store.list()} == kept
    writer.abort()


def test_a_folder_of_an_odd_name_is_reported_escaped(
    store: DirectoryStore, state: Engine, signer: Signer
) -> None:
    """A name chosen by somebody else goes into reports as plain text."""
    odd = Path(store.description, "courier", "a\nb")
    odd.mkdir(parents=True)
    (odd / DUMP_NAME).write_bytes(b"x")
    cleared = clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert cleared.unknown == ("'courier/a\\nb/'",)


def refuse_holds() -> None:
    raise ControlFailed("The state database is not complete: a hold is missing.")


def test_clearing_keeps_left_overs_while_sealed_holds_are_missing(
    any_store: ObjectStore, state: Engine, published: Publish, signer: Signer
) -> None:
    """The lost hold may be on the restore point whose removal was interrupted."""
    published("gone")
    begin(state, any_store, "gone", Work.REMOVE)
    any_store.delete(f"courier/gone/{SIGNATURE_NAME}")
    trusted = [signer.public_pem]
    cleared = clear_unfinished(any_store, state, "courier", trusted, NOW, refuse_holds)
    assert cleared == Cleared(0, (), uncompared=("courier/gone/",))
    assert (keys(any_store, "gone"), open_work(state)) == ({DUMP_NAME, MANIFEST_NAME}, 1)
    seen = StepFindings("backup", CLAUSE, "courier")
    report_unfinished(seen, cleared)
    assert [each.code for each in seen.findings] == ["backup.unfinished.uncompared"]
    cleared = clear_unfinished(any_store, state, "courier", trusted, NOW, lambda: None)
    assert cleared.folders == ("courier/gone/",)


def test_clearing_compares_no_holds_where_nothing_is_removed(
    any_store: ObjectStore, state: Engine, published: Publish, signer: Signer
) -> None:
    """A backup does not depend on the evidence store then."""
    published("good")
    begin(state, any_store, "good")
    trusted = [signer.public_pem]
    assert clear_unfinished(any_store, state, "courier", trusted, NOW, refuse_holds) == Cleared(
        0, ()
    )


def test_clearing_that_loses_its_lock_removes_nothing(
    store: DirectoryStore, state: Engine, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session with the lock ends while locks of the store are read: a hold may come in."""
    begin(state, store, "half")
    store.put(f"courier/half/{DUMP_NAME}", b"half")
    end_hold_locks_meanwhile(store, state, monkeypatch)
    with pytest.raises(ServiceError, match="lock that keeps new holds out"):
        clear_unfinished(store, state, "courier", [signer.public_pem], NOW)
    assert keys(store, "half") == {DUMP_NAME}
