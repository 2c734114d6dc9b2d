"""Test that a restore point stays usable if its locked objects are overwritten or deleted.

Object Lock keeps the signed versions, which newer versions or delete markers then hide.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from include.backup.manifest import (
    DUMP_NAME,
    MANIFEST_NAME,
    NAMES,
    SIGNATURE_NAME,
    Manifest,
    load,
    publish,
    remove,
    restore_points,
)
from include.backup.point_folder import folder
from include.cli import backup as commands
from include.encryption.crypto import ContentRefused
from include.evidence.signing import Signer, generate_key
from include.services.objectstore.base import MOST_VERSIONS, ObjectLocked
from include.services.objectstore.s3 import S3Store
from tests.backup.support import Taken, mapped
from tests.support.holders import NOW, Holder
from tests.support.s3 import MotoServer, client_for, new_bucket


@dataclass(frozen=True)
class Locked:
    """A locked restore point in a bucket. Other users can also write to the bucket."""

    store: S3Store
    client: Any
    bucket: str
    manifest: Manifest
    trusted: list[bytes]

    def key(self, name: str) -> str:
        return f"courier/{self.manifest.id}/{name}"

    def delete_plainly(self, name: str) -> None:
        """Delete an object without naming a version, which only adds a delete marker."""
        self.client.delete_object(Bucket=self.bucket, Key=self.key(name))

    def overwrite(self, name: str) -> None:
        self.store.put(self.key(name), b"forged")


@pytest.fixture
def locked(moto: MotoServer, taken: Taken, signer: Signer) -> Locked:
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket)
    restore_point = copy_into(store, taken, signer, taken.manifest.id)
    return Locked(store, client, bucket, restore_point, [signer.public_pem])


def copy_into(store: S3Store, taken: Taken, signer: Signer, point: str) -> Manifest:
    """Publish the dump of an existing restore point in another store, and lock it for a day.

    Args:
        store: other store.
        taken: existing restore point.
        signer: key that signs the manifest.
        point: id of the new restore point.
    """
    stored = store.put(f"courier/{point}/{DUMP_NAME}", taken.store.get(taken.manifest.dump.key))
    dump = taken.manifest.dump.model_copy(
        update={
            "key": stored.key,
            "checksum": stored.checksum,
            "version_id": stored.version_id,
        }
    )
    manifest = taken.manifest.model_copy(update={"id": point, "dump": dump})
    publish(store, manifest, signer, NOW + timedelta(days=1))
    return manifest


HIDE: dict[str, Callable[[Locked, str], None]] = {
    "deleted": Locked.delete_plainly,
    "overwritten": Locked.overwrite,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", HIDE)
def test_restore_point_with_overwritten_or_deleted_object_is_read_from_its_signed_versions(
    locked: Locked, operations: Holder, how: str, name: str
) -> None:
    """The signed versions are listed and loaded, and the hidden object is reported."""
    HIDE[how](locked, name)
    (point,), rejected = restore_points(locked.store, "courier", locked.trusted)
    assert rejected == []
    assert point.manifest == locked.manifest
    (hidden,) = point.hidden
    assert (hidden.key, hidden.is_deleted) == (locked.key(name), how == "deleted")
    assert load(locked.store, "courier", point.id, locked.trusted) == point
    source = Taken(locked.store, point.manifest).source(operations.opening)
    source.check()
    assert source.head()[1]


def test_restore_point_whose_objects_are_all_behind_delete_markers_is_listed(
    locked: Locked, operations: Holder
) -> None:
    """A listing of current objects shows none of the restore point's three objects."""
    for name in NAMES:
        locked.delete_plainly(name)
    assert list(locked.store.list()) == []
    (point,), rejected = restore_points(locked.store, "courier", locked.trusted)
    assert rejected == []
    assert {each.key for each in point.hidden} == set(map(locked.key, NAMES))
    Taken(locked.store, point.manifest).source(operations.opening).check()


def test_source_of_unchanged_restore_point_reads_object_version_of_dump_in_the_manifest(
    locked: Locked, operations: Holder
) -> None:
    point = load(locked.store, "courier", locked.manifest.id, locked.trusted)
    assert (point.manifest, point.hidden) == (locked.manifest, ())
    source = Taken(locked.store, point.manifest).source(operations.opening)
    assert source.version_id == locked.manifest.dump.version_id != ""


def test_load_reads_signed_manifest_version_despite_many_newer_versions(locked: Locked) -> None:
    """There are more newer versions than are tried. The oldest versions are always tried."""
    for _ in range(MOST_VERSIONS + 3):
        locked.overwrite(MANIFEST_NAME)
        locked.overwrite(SIGNATURE_NAME)
    point = load(locked.store, "courier", locked.manifest.id, locked.trusted)
    assert {each.key for each in point.hidden} == {
        locked.key(MANIFEST_NAME),
        locked.key(SIGNATURE_NAME),
    }


def test_load_ignores_newer_manifest_of_untrusted_key(locked: Locked) -> None:
    """The older manifest and signature of a trusted key are used instead."""
    forger = Signer.from_pem(generate_key())
    content = locked.manifest.as_bytes().replace(b'"rows"', b'"rows" ')
    locked.store.put(locked.key(MANIFEST_NAME), content)
    locked.store.put(locked.key(SIGNATURE_NAME), forger.sign(content))
    point = load(locked.store, "courier", locked.manifest.id, locked.trusted)
    assert point.manifest == locked.manifest
    assert len(point.hidden) == 2


def test_load_ignores_newer_manifest_that_belongs_to_another_restore_point(
    locked: Locked, taken: Taken, signer: Signer
) -> None:
    """A trusted key signed the manifest, but for another restore point."""
    other = copy_into(locked.store, taken, signer, "other")
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        content = locked.store.get(f"courier/{other.id}/{name}")
        locked.store.put(locked.key(name), content)
    assert load(locked.store, "courier", locked.manifest.id, locked.trusted).manifest == (
        locked.manifest
    )


def test_dump_check_raises_content_refused_error_if_recorded_version_is_missing_and_digest_differs(
    moto: MotoServer, taken: Taken, signer: Signer, operations: Holder
) -> None:
    """The current version has the recorded name and size, but its content was never backed up."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket)
    stored = store.put(f"courier/p/{DUMP_NAME}", b"signed")
    dump = taken.manifest.dump.model_copy(
        update={"key": stored.key, "size": stored.size, "version_id": stored.version_id}
    )
    manifest = taken.manifest.model_copy(update={"id": "p", "dump": dump})
    publish(store, manifest, signer, None)
    store.put(stored.key, b"forged")
    client.delete_object(Bucket=bucket, Key=stored.key, VersionId=stored.version_id)
    point = load(store, "courier", "p", [signer.public_pem])
    assert point.is_copy  # for all that is known: the digest tells
    with pytest.raises(ContentRefused, match="its content differs"):
        Taken(store, manifest).source(operations.opening).check()


def test_publish_locks_the_object_version_of_the_dump_that_the_manifest_contains(
    moto: MotoServer, taken: Taken, signer: Signer
) -> None:
    """Someone overwrites the dump before it is locked."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    stored = store.put(f"courier/p/{DUMP_NAME}", b"written")
    store.put(stored.key, b"forged")
    dump = taken.manifest.dump.model_copy(
        update={"key": stored.key, "size": stored.size, "version_id": stored.version_id}
    )
    manifest = taken.manifest.model_copy(update={"id": "p", "dump": dump})
    publish(store, manifest, signer, NOW + timedelta(days=1))
    assert store.stat(stored.key, version_id=stored.version_id).locked_until is not None
    (point,), _rejected = restore_points(store, "courier", [signer.public_pem])
    assert point.locked_until is not None
    assert [each.is_deleted for each in point.hidden] == [False]


def test_locked_restore_point_behind_delete_markers_is_not_removed(locked: Locked) -> None:
    """The locks of all versions are checked, not only those of the current versions."""
    for name in NAMES:
        locked.delete_plainly(name)
    with pytest.raises(ObjectLocked):
        remove(locked.store, folder("courier", locked.manifest.id), NOW)
    (point,), _rejected = restore_points(locked.store, "courier", locked.trusted)
    assert point.manifest == locked.manifest


@pytest.mark.parametrize("is_hidden", [True, False])
def test_backup_list_reports_object_behind_a_delete_marker_and_exits_with_1(
    locked: Locked,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_hidden: bool,
) -> None:
    """The restore point is listed, and the exit code shows that the store was changed."""
    key = locked.key(SIGNATURE_NAME)
    if is_hidden:
        locked.delete_plainly(SIGNATURE_NAME)
    stub = SimpleNamespace(
        state=state,
        pack=SimpleNamespace(databases={"courier": mapped()}),
        trusted_for_manifests=locked.trusted,
        store=lambda _name: locked.store,
        is_local=lambda _name: True,
    )
    monkeypatch.setattr(commands, "command_services", lambda: stub)
    monkeypatch.setattr(commands, "local_stack", nullcontext)
    assert commands.list_(None, as_json=True) == (1 if is_hidden else 0)
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)["restore_points"]
    assert row["id"] == locked.manifest.id
    assert row["hidden"] == ([key] if is_hidden else [])
    assert (
        f"hidden: {key}: A backup file was deleted in the off-site store" in printed.err
    ) == is_hidden
