"""A restore point exists when its signed manifest fits; all else is refused, named or cleared."""

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
from include.encryption.crypto import Refused
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
    """Publish a small restore point under some id, without taking a backup."""

    def make(point: str, by: Signer = signer, **changes: object) -> Manifest:
        key = f"courier/{point}/{DUMP_NAME}"
        stored = store.put(key, point.encode() * 9)
        dump = taken.manifest.dump.model_copy(
            update={"key": key, "size": stored.size, "sha256": stored.sha256}
        )
        made = taken.manifest.model_copy(update={"id": point, "dump": dump, **changes})
        publish(store, made, by, None)
        return made

    return make


def listed(store: DirectoryStore, signer: Signer) -> tuple[list[str], list[str]]:
    points, rejected = restore_points(store, "courier", [signer.public_pem])
    return [one.id for one in points], [one.key for one in rejected]


def file(store: DirectoryStore, point: str, name: str) -> Path:
    return Path(store.description.removeprefix("file://")) / "courier" / point / name


def test_a_manifest_reads_back_as_it_was_written(taken: Taken, signer: Signer):
    """Through the store, with its signature checked."""
    loaded = load(taken.store, "courier", taken.manifest.id, [signer.public_pem])
    assert loaded.manifest == taken.manifest
    assert Manifest.model_validate_json(taken.manifest.as_bytes()) == taken.manifest
    assert taken.manifest.rows == sum(one.rows for one in taken.manifest.tables)


def test_ids_sort_by_time_whatever_the_timezone():
    """In UTC, so that folders are in order."""
    shanghai = datetime(2026, 11, 24, 2, 0, 5, tzinfo=timezone(timedelta(hours=8)))
    assert manifests.new_id(shanghai, "abc") == "20261123T180005Z-abc"
    assert manifests.new_id(datetime(2026, 11, 24, tzinfo=UTC), "x") == "20261124T000000Z-x"


def test_restore_points_are_listed_oldest_first(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """By the moment of their snapshot, not by their name; of their database only."""
    published("b", taken_at=NOW - timedelta(days=1))
    published("a", taken_at=NOW)
    published("c", taken_at=NOW - timedelta(days=2))
    store.put(f"billing/x/{SIGNATURE_NAME}", b"x")
    assert listed(store, signer) == (["c", "b", "a"], [])
    assert restore_points(store, "nothing", [signer.public_pem]) == ([], [])


def test_a_manifest_without_its_signature_is_refused(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """It was published and somebody removed the signature, unless a run is still at work on it."""
    published("good")
    published("bare")
    store.delete(f"courier/bare/{SIGNATURE_NAME}")
    assert listed(store, signer) == (["good"], [f"courier/bare/{SIGNATURE_NAME}"])
    with pytest.raises(ManifestRefused, match="it is missing, its manifest is there"):
        load(store, "courier", "bare", [signer.public_pem])
    points, rejected = restore_points(store, "courier", [signer.public_pem], ["bare"])
    assert ([point.id for point in points], rejected) == (["good"], [])


def test_a_dump_alone_is_no_restore_point(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """It is neither listed nor refused."""
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
        (lambda s: [shutil.copy(file(s, "good", one), file(s, "bad", one))
                    for one in (MANIFEST_NAME, SIGNATURE_NAME)], "moved here"),
    ],
)  # fmt: skip
def test_a_restore_point_that_was_changed_is_refused_by_name(
    published: Publish,
    store: DirectoryStore,
    signer: Signer,
    harm: Callable[[DirectoryStore], object],
    reason: str,
):
    """Edited, exchanged, hollow: it is not listed and not loaded, and the others are."""
    published("good")
    published("bad")
    harm(store)
    points, rejected = restore_points(store, "courier", [signer.public_pem])
    assert [one.id for one in points] == ["good"]
    (one,) = rejected
    assert one.key.startswith("courier/bad/")
    assert reason in one.reason
    with pytest.raises(ManifestRefused, match="courier/bad/"):
        load(store, "courier", "bad", [signer.public_pem])


@pytest.mark.parametrize("target", ["courier/a", "courier/c", "billing/b", "shop/b"])
def test_signed_manifest_counts_in_its_own_folder_only(
    published: Publish, store: DirectoryStore, signer: Signer, target: str
) -> None:
    """Whether the other folder sorts before its own or after it."""
    published("b")
    for name in (DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME):
        store.put(f"{target}/{name}", store.get(f"courier/b/{name}"))
    database = target.partition("/")[0]
    _points, rejected = restore_points(store, database, [signer.public_pem])
    assert [folder.key for folder in rejected] == [f"{target}/{MANIFEST_NAME}"]
    assert "moved here" in rejected[0].reason


def test_another_ones_signature_does_not_count(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """Unless that key is trusted too, after a rotation."""
    other = Signer.from_pem(generate_key())
    published("foreign", by=other)
    assert listed(store, signer) == ([], [f"courier/foreign/{MANIFEST_NAME}"])
    both, rejected = restore_points(store, "courier", [signer.public_pem, other.public_pem])
    assert ([one.id for one in both], rejected) == (["foreign"], [])
    assert restore_points(store, "courier", [])[0] == []


def test_a_signed_manifest_of_an_unknown_format_is_refused(
    store: DirectoryStore, signer: Signer, published: Publish
):
    """A newer version's, or one with fields that nobody knows."""
    published("next")
    for content, why in (
        (b'{"format": "parcelseal.restore-point/9"}', "restore it with its own ParcelSeal"),
        (b"[]", "cannot be read"),
        (b"not json", "cannot be read"),
    ):
        store.put(f"courier/next/{MANIFEST_NAME}", content)
        store.put(f"courier/next/{SIGNATURE_NAME}", signer.sign(content))
        with pytest.raises(ManifestRefused, match=why):
            load(store, "courier", "next", [signer.public_pem])


def test_dumps_that_were_exchanged_are_refused_when_restored(
    published: Publish, store: DirectoryStore, operations: Holder
):
    """Two restore points of one size: the listing cannot see it, the check does."""
    one, two = published("aa"), published("bb")
    file(store, "aa", DUMP_NAME).write_bytes(b"bb" * 9)
    with pytest.raises(Refused, match="Restore point aa is refused"):
        Source(store, one, operations.opening).check()
    Source(store, two, operations.opening).check()


def test_a_whole_restore_point_under_another_name_is_refused(
    taken: Taken, store: DirectoryStore, signer: Signer, operations: Holder
):
    """Even one who may sign cannot pass a dump off as another day's: its context says which."""
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
    with pytest.raises(Refused, match="as another object"):
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


def test_removal_begins_with_the_signature(
    published: Publish, store: DirectoryStore, signer: Signer, monkeypatch: pytest.MonkeyPatch
):
    """Killed after any step, what is left is no restore point."""
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


def test_a_locked_restore_point_stays_whole(moto: MotoServer, taken: Taken, signer: Signer):
    """Object Lock holds all three objects; a removal that is refused removes nothing."""
    client = client_for(moto.endpoint)
    s3 = S3Store(client, new_bucket(client))
    with s3.open_writer(taken.manifest.dump.key) as writer:
        writer.write(b"x")
        stored = writer.commit()
    dump = taken.manifest.dump.model_copy(update={"size": 1, "sha256": stored.sha256})
    made = taken.manifest.model_copy(update={"dump": dump})
    until = NOW + timedelta(days=1)
    publish(s3, made, signer, until)
    with pytest.raises(ObjectLocked):
        remove(s3, folder("courier", made.id), NOW)
    (point,), rejected = restore_points(s3, "courier", [signer.public_pem])
    assert rejected == []
    assert point.locked_until is not None
    assert abs(point.locked_until - until) < timedelta(seconds=2)
    place = manifests.folder("courier", made.id)
    for name in (DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME):
        assert s3.stat(place + name).locked_until is not None


@pytest.mark.parametrize("name", [DUMP_NAME, MANIFEST_NAME, SIGNATURE_NAME])
def test_a_legal_hold_on_one_object_keeps_the_whole_restore_point(
    moto: MotoServer, taken: Taken, signer: Signer, name: str
):
    """A court asks for the dump alone: pruning must not leave it without its manifest."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    s3 = S3Store(client, bucket)
    with s3.open_writer(taken.manifest.dump.key) as writer:
        writer.write(b"x")
        stored = writer.commit()
    dump = taken.manifest.dump.model_copy(update={"size": 1, "sha256": stored.sha256})
    made = taken.manifest.model_copy(update={"dump": dump})
    publish(s3, made, signer, NOW + timedelta(seconds=1))
    key = manifests.folder("courier", made.id) + name
    client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "ON"})
    later = NOW + timedelta(days=100)
    with pytest.raises(ObjectLocked, match="legal hold"):
        remove(s3, folder("courier", made.id), later)
    points, rejected = restore_points(s3, "courier", [signer.public_pem])
    assert ([one.id for one in points], rejected) == ([made.id], [])


@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME])
def test_an_object_too_large_for_its_kind_is_refused_unread(
    published: Publish, store: DirectoryStore, signer: Signer, name: str
):
    """Whatever somebody writes there, listing it takes bounded memory."""
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


def test_a_manifest_too_large_to_be_read_is_not_published(
    published: Publish, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
):
    """What could not be restored does not pass for a restore point."""
    monkeypatch.setattr(manifests, "MANIFEST_BYTES", 100)
    with pytest.raises(UsageError, match="Split the database"):
        published("large")
    assert not file(store, "large", MANIFEST_NAME).exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME, DUMP_NAME])
def test_a_fifo_in_a_restore_point_does_not_hang_the_list(
    published: Publish, store: DirectoryStore, signer: Signer, name: str
):
    """The restore point is refused, and the others are listed."""
    published("good")
    published("bad")
    path = file(store, "bad", name)
    path.unlink()
    os.mkfifo(path)
    names, refused = listed(store, signer)
    assert names == ["good"]
    assert len(refused) == 1


def test_a_lock_that_cannot_be_read_does_not_end_the_list(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """The restore point is refused by its dump, and the others are listed."""
    published("good")
    published("bad")
    os.mkfifo(file(store, "bad", f".{DUMP_NAME}.lock.json"))
    assert listed(store, signer) == (["good"], [f"courier/bad/{DUMP_NAME}"])


def test_folders_with_names_that_no_run_writes_do_not_end_the_list(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """A line feed, bytes that are no text: refused by an escaped name."""
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


def test_a_linked_folder_is_no_restore_point(
    published: Publish, store: DirectoryStore, signer: Signer
):
    """Neither listed nor loaded by its name."""
    published("good")
    file(store, "link", "x").parent.symlink_to(file(store, "good", "x").parent)
    assert listed(store, signer) == (["good"], [])
    with pytest.raises(NoRestorePoint):
        load(store, "courier", "link", [signer.public_pem])
