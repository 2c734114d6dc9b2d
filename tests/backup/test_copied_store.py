"""Test that restore points in a copy of a store are verified by digest.

Objects have other version ids in the copy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from include.backup.manifest import DUMP_NAME, MANIFEST_NAME, load, restore_points
from include.backup.restore import restore
from include.encryption.crypto import ContentRefused
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.backup.offsite_support import make, run_backup
from tests.backup.support import Taken
from tests.backup.test_versions import Locked, locked
from tests.support.holders import Holder
from tests.support.s3 import MotoServer, client_for, new_bucket

__all__ = ["locked"]  # a fixture


@pytest.fixture(params=["s3", "directory"])
def copied(
    request: pytest.FixtureRequest, moto: MotoServer, locked: Locked, tmp_path: Path
) -> ObjectStore:
    """Return a store to which the current objects of another store were copied."""
    store: ObjectStore
    if request.param == "s3":
        client = client_for(moto.endpoint)
        store = S3Store(client, new_bucket(client))
    else:
        (tmp_path / "copied").mkdir()
        store = DirectoryStore(tmp_path / "copied")
    for each in locked.store.list():
        store.put(each.key, locked.store.get(each.key))
    return store


def same_size(content: bytes) -> bytes:
    """Return other content of the same size."""
    return bytes([content[0] ^ 1]) + content[1:]


def test_restore_point_copied_to_another_store_is_marked_as_copy_in_the_listing(
    locked: Locked, copied: ObjectStore, operations: Holder
) -> None:
    """Readers of such a dump must compare its digest, because its version id differs."""
    (point,), rejected = restore_points(copied, "courier", locked.trusted)
    assert (rejected, point.hidden, point.is_copy) == ([], (), True)
    source = Taken(copied, load(copied, "courier", point.id, locked.trusted).manifest).source(
        operations.opening
    )
    source.check()
    assert (source.is_copy, source.checked_by) == (True, "digest")
    with source.archive() as archive:
        while archive.read(1 << 20):
            pass
    (original,), _rejected = restore_points(locked.store, "courier", locked.trusted)
    assert not original.is_copy
    source = Taken(locked.store, original.manifest).source(operations.opening)
    assert source.checked_by == "version"


def test_restore_of_copied_restore_point_has_all_rows(
    locked: Locked, copied: ObjectStore, operations: Holder, target: DatabaseAddress
) -> None:
    point = load(copied, "courier", locked.manifest.id, locked.trusted)
    done = restore(Taken(copied, point.manifest).source(operations.opening), target)
    assert (done.tables, done.differences) == (len(locked.manifest.tables), ())


def test_dump_copied_from_directory_to_bucket_is_read_from_older_version_if_deleted(
    moto: MotoServer, taken: Taken, signer: Signer, operations: Holder
) -> None:
    """A directory was copied to a bucket with versioning, and then the dump was deleted there."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    for each in taken.store.list():
        store.put(each.key, taken.store.get(each.key))
    (point,), _rejected = restore_points(store, "courier", [signer.public_pem])
    assert not point.is_copy
    remove(store, taken.manifest.dump.key)
    (point,), rejected = restore_points(store, "courier", [signer.public_pem])
    assert (point.is_copy, rejected) == (True, [])
    assert [each.key for each in point.hidden] == [taken.manifest.dump.key]
    Taken(store, point.manifest).source(operations.opening).check()


@pytest.mark.parametrize("overwrite", [same_size, lambda _content: b"short"])
def test_dump_copied_from_directory_to_bucket_is_read_from_older_version_if_overwritten(
    moto: MotoServer,
    taken: Taken,
    signer: Signer,
    operations: Holder,
    overwrite: Callable[[bytes], bytes],
) -> None:
    """A directory was copied to a bucket with versioning. There, the dump was overwritten."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    for each in taken.store.list():
        store.put(each.key, taken.store.get(each.key))
    store.put(taken.manifest.dump.key, overwrite(taken.store.get(taken.manifest.dump.key)))
    (point,), rejected = restore_points(store, "courier", [signer.public_pem])
    assert (point.is_copy, rejected) == (True, [])
    Taken(store, point.manifest).source(operations.opening).check()


def test_dump_check_raises_content_refused_error_if_copied_dump_has_other_content_of_same_size(
    locked: Locked, copied: ObjectStore, operations: Holder
) -> None:
    """The restore checks the object before it changes the target."""
    key = locked.manifest.dump.key
    if copied.kind == "s3":
        copied.delete(key)
    copied.put(key, same_size(locked.store.get(key)))
    (point,), _rejected = restore_points(copied, "courier", locked.trusted)
    assert point.is_copy
    with pytest.raises(ContentRefused, match="its content differs"):
        Taken(copied, point.manifest).source(operations.opening).check()


def test_listing_rejects_copied_restore_point_if_size_of_its_dump_differs_from_manifest(
    locked: Locked, copied: ObjectStore
) -> None:
    if copied.kind == "s3":
        copied.delete(locked.manifest.dump.key)
    copied.put(locked.manifest.dump.key, b"short")
    points, (refusal,) = restore_points(copied, "courier", locked.trusted)
    assert (points, refusal.key) == ([], locked.manifest.dump.key)
    assert "no version of it has" in refusal.reason


def hide(store: S3Store, key: str) -> None:
    store.put(key, same_size(store.get(key)))


def remove(store: S3Store, key: str) -> None:
    store._bucket.client.delete_object(Bucket=store._bucket.name, Key=key)


@pytest.mark.parametrize("copied", ["s3"], indirect=True)
@pytest.mark.parametrize("how", [hide, remove])
def test_overwritten_or_deleted_copied_dump_is_read_from_older_version_with_digest_in_manifest(
    locked: Locked, copied: S3Store, operations: Holder, how: Callable[[S3Store, str], None]
) -> None:
    """A newer version or a delete marker hides the version that has the digest."""
    key = locked.manifest.dump.key
    (version,) = [each for each in copied.list_versions(key) if not each.is_marker]
    how(copied, key)
    (point,), rejected = restore_points(copied, "courier", locked.trusted)
    assert (rejected, point.is_copy) == ([], True)
    source = Taken(copied, point.manifest).source(operations.opening)
    source.check()
    assert source.version_id == version.version_id
    assert [each.key for each in point.hidden] == ([key] if how is remove else [])


def test_restore_point_with_overwritten_dump_in_its_original_store_is_not_marked_as_copy(
    locked: Locked, operations: Holder
) -> None:
    """The store is the original store, so the recorded version is read.

    The overwrite is reported.
    """
    key = locked.key(DUMP_NAME)
    locked.store.put(key, same_size(locked.store.get(key)))
    (point,), _rejected = restore_points(locked.store, "courier", locked.trusted)
    assert not point.is_copy
    source = Taken(locked.store, point.manifest).source(operations.opening)
    assert source.version_id == locked.manifest.dump.version_id
    assert [each.key for each in point.hidden] == [key]
    assert locked.key(MANIFEST_NAME) not in {each.key for each in point.hidden}


def test_retried_backup_makes_new_restore_point_if_store_has_only_a_copied_restore_point(
    moto: MotoServer,
    locked: Locked,
    tiny: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """The first try of the run published its restore point in another store."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    for each in locked.store.list():
        store.put(each.key, locked.store.get(each.key))
    first, offsite = locked.manifest, make(store, recipients, signer)
    run = {"run_id": first.run_id, "dag_id": first.dag_id}
    record, manifest = run_backup(offsite, tiny, state, **run, again=True)
    assert not record.data["published_by_an_earlier_try"]
    assert manifest.id != first.id
    record, same = run_backup(offsite, tiny, state, **run, again=True)
    assert (record.data["published_by_an_earlier_try"], same.id) == (True, manifest.id)
