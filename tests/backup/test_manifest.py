"""Test that a restore point exists only if its signed manifest is valid."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from include.backup import manifest as manifests
from include.backup.manifest import (
    DUMP_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Manifest,
    ManifestRefused,
    NoRestorePoint,
    load,
    publish,
    remove,
    restore_points,
)
from include.backup.point_folder import folder
from include.backup.source import Source
from include.encryption.crypto import ContentRefused
from include.evidence.signing import Signer, generate_key
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectLocked
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.backup.support import Taken
from tests.support.holders import NOW, Holder
from tests.support.s3 import MotoServer, client_for, new_bucket

Publish = Callable[..., Manifest]


@pytest.fixture
def published(taken: Taken, store: DirectoryStore, signer: Signer) -> Publish:
    """Return a function that publishes a small restore point with a given id, without a backup."""

    def make(point: str, by: Signer = signer, **changes: object) -> Manifest:
        key = f"courier/{point}/{DUMP_NAME}"
        stored = store.put(key, point.encode() * 9)
        dump = taken.manifest.dump.model_copy(
            update={"key": key, "size": stored.size, "sha256": stored.sha256}
        )
        manifest = taken.manifest.model_copy(update={"id": point, "dump": dump, **changes})
        publish(store, manifest, by, None)
        return manifest

    return make


def listed(store: DirectoryStore, signer: Signer) -> tuple[list[str], list[str]]:
    points, rejected = restore_points(store, "courier", [signer.public_pem])
    return [point.id for point in points], [folder.key for folder in rejected]


def file(store: DirectoryStore, point: str, name: str) -> Path:
    return Path(store.description.removeprefix("file://")) / "courier" / point / name


def test_manifest_is_unchanged_after_it_is_published_and_loaded(taken: Taken, signer: Signer):
    loaded = load(taken.store, "courier", taken.manifest.id, [signer.public_pem])
    assert loaded.manifest == taken.manifest
    assert Manifest.model_validate_json(taken.manifest.as_bytes()) == taken.manifest
    assert taken.manifest.rows == sum(table.rows for table in taken.manifest.tables)


def test_restore_point_ids_contain_the_time_in_utc():
    shanghai = datetime(2026, 11, 24, 2, 0, 5, tzinfo=timezone(timedelta(hours=8)))
    assert manifests.new_id(shanghai, "abc") == "20261123T180005Z-abc"
    assert manifests.new_id(datetime(2026, 11, 24, tzinfo=UTC), "x") == "20261124T000000Z-x"


def test_restore_points_are_listed_oldest_first(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """They are sorted by the time of the snapshot, not by name. Other databases are not listed."""
    published("b", taken_at=NOW - timedelta(days=1))
    published("a", taken_at=NOW)
    published("c", taken_at=NOW - timedelta(days=2))
    store.put(f"billing/x/{SIGNATURE_NAME}", b"x")
    assert listed(store, signer) == (["c", "b", "a"], [])
    assert restore_points(store, "nothing", [signer.public_pem]) == ([], [])


def test_manifest_without_signature_is_rejected(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """It is not rejected while a run is still working on the restore point."""
    published("good")
    published("bare")
    store.delete(f"courier/bare/{SIGNATURE_NAME}")
    assert listed(store, signer) == (["good"], [f"courier/bare/{SIGNATURE_NAME}"])
    with pytest.raises(ManifestRefused, match="it is missing, but its manifest exists"):
        load(store, "courier", "bare", [signer.public_pem])
    points, rejected = restore_points(store, "courier", [signer.public_pem], ["bare"])
    assert ([point.id for point in points], rejected) == (["good"], [])


def test_dump_without_manifest_is_neither_listed_nor_rejected(
    published: Publish, store: DirectoryStore, signer: Signer
):
    published("good")
    published("half")
    for name in (SIGNATURE_NAME, MANIFEST_NAME):
        store.delete(f"courier/half/{name}")
    assert listed(store, signer) == (["good"], [])
    with pytest.raises(NoRestorePoint, match="no restore point half of courier"):
        load(store, "courier", "half", [signer.public_pem])


def edit(content: bytes) -> bytes:
    return content.replace(b'"courier"', b'"courieR"', 1)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda s: file(s, "bad", MANIFEST_NAME).write_bytes(
            edit(file(s, "bad", MANIFEST_NAME).read_bytes())), "signature does not fit"),
        (lambda s: file(s, "bad", MANIFEST_NAME).write_bytes(b""), "signature does not fit"),
        (lambda s: file(s, "bad", SIGNATURE_NAME).write_bytes(b"x" * 64), "signature does not fit"),
        (lambda s: file(s, "bad", SIGNATURE_NAME).write_bytes(b""), "signature does not fit"),
        (lambda s: file(s, "bad", MANIFEST_NAME).unlink(), "it is missing"),
        (lambda s: file(s, "bad", DUMP_NAME).unlink(), "it is missing"),
        (lambda s: file(s, "bad", DUMP_NAME).write_bytes(b"short"), "5 bytes instead of"),
        (lambda s: [shutil.copy(file(s, "good", name), file(s, "bad", name))
                    for name in (MANIFEST_NAME, SIGNATURE_NAME)], "moved here"),
    ],
)  # fmt: skip
def test_listing_rejects_restore_point_with_changed_object_and_gives_the_reason(
    published: Publish,
    store: DirectoryStore,
    signer: Signer,
    harm: Callable[[DirectoryStore], object],
    reason: str,
):
    """The rejection names the changed object. Other restore points are still listed."""
    published("good")
    published("bad")
    harm(store)
    points, rejected = restore_points(store, "courier", [signer.public_pem])
    assert [point.id for point in points] == ["good"]
    (rejection,) = rejected
    assert rejection.key.startswith("courier/bad/")
    assert reason in rejection.reason
    with pytest.raises(ManifestRefused, match="courier/bad/"):
        load(store, "courier", "bad", [signer.public_pem])


@pytest.mark.parametrize("target", ["courier/a", "courier/c", "billing/b", "shop/b"])
def test_listing_rejects_signed_manifest_that_was_copied_to_another_folder(
    published: Publish, store: DirectoryStore, signer: Signer, target: str
) -> None:
    """The name of the other folder may sort before or after the original."""
    published("b")
    for name in (DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME):
        store.put(f"{target}/{name}", store.get(f"courier/b/{name}"))
    database = target.partition("/")[0]
    _points, rejected = restore_points(store, database, [signer.public_pem])
    assert [folder.key for folder in rejected] == [f"{target}/{MANIFEST_NAME}"]
    assert "moved here" in rejected[0].reason


def test_signature_of_untrusted_key_is_rejected(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """The signature is accepted once the key is trusted, for example after a key rotation."""
    other = Signer.from_pem(generate_key())
    published("foreign", by=other)
    assert listed(store, signer) == ([], [f"courier/foreign/{MANIFEST_NAME}"])
    trusted_points, rejected = restore_points(
        store, "courier", [signer.public_pem, other.public_pem]
    )
    assert ([point.id for point in trusted_points], rejected) == (["foreign"], [])
    assert restore_points(store, "courier", [])[0] == []


def test_signed_manifest_of_unknown_format_is_rejected(
    store: DirectoryStore, signer: Signer, published: Publish
):
    """The manifest has the format of a newer version, or unknown fields."""
    published("next")
    for content, why in (
        (
            b'{"format": "parcelseal.restore-point/9"}',
            "restore it with the version of ParcelSeal that wrote it",
        ),
        (b"[]", "cannot be read"),
        (b"not json", "cannot be read"),
    ):
        store.put(f"courier/next/{MANIFEST_NAME}", content)
        store.put(f"courier/next/{SIGNATURE_NAME}", signer.sign(content))
        with pytest.raises(ManifestRefused, match=why):
            load(store, "courier", "next", [signer.public_pem])


def test_dump_check_raises_content_refused_error_if_dump_was_replaced_by_another_of_equal_size(
    published: Publish, store: DirectoryStore, operations: Holder
):
    """A listing compares only sizes."""
    first, second = published("aa"), published("bb")
    file(store, "aa", DUMP_NAME).write_bytes(b"bb" * 9)
    with pytest.raises(ContentRefused, match="Restore point aa is refused"):
        Source(store, first, operations.opening).check()
    Source(store, second, operations.opening).check()


def test_reading_dump_under_another_restore_point_id_raises_content_refused_error(
    taken: Taken, store: DirectoryStore, signer: Signer, operations: Holder
):
    """The encryption context contains the id, so even a holder of the key cannot rename a dump."""
    content = taken.store.get(taken.manifest.dump.key)
    key = f"courier/later/{DUMP_NAME}"
    stored = store.put(key, content)
    context = {"database": "courier", "restore_point": "later"}
    forged = taken.manifest.model_copy(
        update={
            "id": "later",
            "dump": taken.manifest.dump.model_copy(update={"key": key, "sha256": stored.sha256}),
            "encryption": taken.manifest.encryption.model_copy(update={"context": context}),
        }
    )
    publish(store, forged, signer, None)
    source = replace(taken.source(operations.opening), store=store, manifest=forged)
    source.check()
    with pytest.raises(ContentRefused, match="as another object"):
        source.head()


def killed_after(
    steps: int, deleted: list[str], real: Callable[[str], None]
) -> Callable[[str], None]:
    def delete(key: str) -> None:
        if len(deleted) == steps:
            raise KeyboardInterrupt
        deleted.append(key)
        real(key)

    return delete


def test_removal_killed_at_any_step_leaves_no_usable_restore_point(
    published: Publish, store: DirectoryStore, signer: Signer, monkeypatch: pytest.MonkeyPatch
):
    """A removal deletes the signature first."""
    for step in (1, 2):
        published("old")
        deleted: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(store, "delete", killed_after(step, deleted, store.delete))
            with pytest.raises(KeyboardInterrupt):
                remove(store, folder("courier", "old"), NOW)
        assert deleted[0].endswith(SIGNATURE_NAME)
        assert restore_points(store, "courier", [signer.public_pem], ["old"]) == ([], [])
        for stored in list(store.list()):
            store.delete(stored.key)
    published("old")
    remove(store, folder("courier", "old"), NOW)
    assert list(store.list()) == []


def test_remove_of_locked_restore_point_deletes_nothing(
    moto: MotoServer, taken: Taken, signer: Signer
):
    """Object Lock protects all three objects."""
    client = client_for(moto.endpoint)
    s3 = S3Store(client, new_bucket(client))
    with s3.open_writer(taken.manifest.dump.key) as writer:
        writer.write(b"x")
        stored = writer.commit()
    dump = taken.manifest.dump.model_copy(update={"size": 1, "sha256": stored.sha256})
    manifest = taken.manifest.model_copy(update={"dump": dump})
    until = NOW + timedelta(days=1)
    publish(s3, manifest, signer, until)
    with pytest.raises(ObjectLocked):
        remove(s3, folder("courier", manifest.id), NOW)
    (point,), rejected = restore_points(s3, "courier", [signer.public_pem])
    assert rejected == []
    assert point.locked_until is not None
    assert abs(point.locked_until - until) < timedelta(seconds=2)
    prefix = manifests.folder("courier", manifest.id)
    for name in (DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME):
        assert s3.stat(prefix + name).locked_until is not None


@pytest.mark.parametrize("name", [DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME])
def test_remove_deletes_no_object_of_restore_point_if_one_object_is_on_legal_hold(
    moto: MotoServer, taken: Taken, signer: Signer, name: str
):
    """An S3 legal hold on the dump alone must also keep the manifest and the signature."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    s3 = S3Store(client, bucket)
    with s3.open_writer(taken.manifest.dump.key) as writer:
        writer.write(b"x")
        stored = writer.commit()
    dump = taken.manifest.dump.model_copy(update={"size": 1, "sha256": stored.sha256})
    manifest = taken.manifest.model_copy(update={"dump": dump})
    publish(s3, manifest, signer, NOW + timedelta(seconds=1))
    key = manifests.folder("courier", manifest.id) + name
    client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "ON"})
    later = NOW + timedelta(days=100)
    with pytest.raises(ObjectLocked, match="legal hold"):
        remove(s3, folder("courier", manifest.id), later)
    points, rejected = restore_points(s3, "courier", [signer.public_pem])
    assert ([point.id for point in points], rejected) == ([manifest.id], [])


@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME])
def test_oversized_manifest_or_signature_is_rejected_without_reading_it(
    published: Publish, store: DirectoryStore, signer: Signer, name: str
):
    """A listing must need only a limited amount of memory."""
    published("good")
    published("bad")
    path = file(store, "bad", name)
    with path.open("r+b") as large:
        large.truncate(manifests.MANIFEST_BYTES + 1)
    tracemalloc.start()
    try:
        names, refused = listed(store, signer)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * manifests.MANIFEST_BYTES
    finally:
        tracemalloc.stop()
    assert (names, refused) == (["good"], [f"courier/bad/{MANIFEST_NAME}"])


def test_oversized_manifest_is_not_published(
    published: Publish, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
):
    """Readers would refuse the manifest later."""
    monkeypatch.setattr(manifests, "MANIFEST_BYTES", 100)
    with pytest.raises(UsageError, match="Split the database"):
        published("large")
    assert not file(store, "large", MANIFEST_NAME).exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME, DUMP_NAME])
def test_listing_rejects_restore_point_in_which_a_file_is_a_named_pipe(
    published: Publish, store: DirectoryStore, signer: Signer, name: str
):
    """Other restore points are still listed."""
    published("good")
    published("bad")
    path = file(store, "bad", name)
    path.unlink()
    os.mkfifo(path)
    names, refused = listed(store, signer)
    assert names == ["good"]
    assert len(refused) == 1


def test_listing_rejects_restore_point_with_unreadable_lock(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """Other restore points are still listed."""
    published("good")
    published("bad")
    os.mkfifo(file(store, "bad", f".{DUMP_NAME}.lock.json"))
    assert listed(store, signer) == (["good"], [f"courier/bad/{DUMP_NAME}"])


def test_listing_rejects_folders_with_invalid_names(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """In the report, line feeds and bytes that are not text are escaped."""
    published("good")
    root = os.fsencode(store.description)
    for name in (b"a\nb", b"\xff\xfe"):
        odd = Path(os.fsdecode(root + b"/courier/" + name))
        odd.mkdir()
        for inside in (MANIFEST_NAME, SIGNATURE_NAME):
            (odd / inside).write_bytes(b"x")
    names, refused = listed(store, signer)
    assert names == ["good"]
    assert refused == ["'courier/a\\nb/'", "'courier/\\udcff\\udcfe/'"]


def test_listing_omits_folder_that_is_a_symbolic_link(
    published: Publish, store: DirectoryStore, signer: Signer
):
    published("good")
    file(store, "link", "x").parent.symlink_to(file(store, "good", "x").parent)
    assert listed(store, signer) == (["good"], [])
    with pytest.raises(NoRestorePoint):
        load(store, "courier", "link", [signer.public_pem])
