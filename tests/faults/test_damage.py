"""Tests that restores refuse damaged objects before they change the target database.

Errors and reports name the damaged object.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from include.backup import manifest as manifests
from include.backup.drill import CHOOSE
from include.backup.dump import take_backup
from include.backup.manifest import Manifest
from include.backup.restore import restore
from include.backup.source import Source
from include.encryption.crypto import ContentRefused
from include.evidence.model import Outcome
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.workflow.run_context import RunContext
from tests.faults.support import Rig, StoreLocation, query
from tests.support.contexts import offsite_services, services_stub, step_record
from tests.support.damage import flipped
from tests.support.s3 import MotoServer, client_for, new_bucket

pytestmark = pytest.mark.fault

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"


@dataclass
class Damaged:
    """A store with two restore points whose objects tests can change although they are locked."""

    rig: Rig
    store: ObjectStore
    location: StoreLocation
    old: Manifest
    new: Manifest

    def read(self, key: str) -> bytes:
        return self.store.get(key)

    def write(self, key: str, data: bytes) -> None:
        if isinstance(self.store, DirectoryStore):
            path = f"{self.location.address}/{key}"
            with open(path, "r+b") as file:  # noqa: PTH123 - as root, whatever its mode
                file.truncate()
                file.write(data)
        else:
            client_for(self.location.address).put_object(
                Bucket=self.location.bucket, Key=f"off site/{key}", Body=data
            )

    def change(self, key: str, how: Callable[[bytes], bytes]) -> None:
        self.write(key, how(self.read(key)))

    def source(self, point: Manifest, key: str = "operations") -> Source:
        return Source(self.store, point, self.rig.keys.opening(key))


def two_points(rig: Rig, store: ObjectStore, location: StoreLocation) -> Damaged:
    _, old = rig.back_up(store)
    query(rig.source, "UPDATE waybill SET proof = proof || 'x'")
    _, new = rig.back_up(store)
    return Damaged(rig, store, location, old, new)


@pytest.fixture
def damaged(small: Rig, location: StoreLocation) -> Damaged:
    return two_points(small, location.open(), location)


@pytest.fixture
def in_directory(small: Rig, directory: StoreLocation) -> Damaged:
    return two_points(small, directory.open(), directory)


@pytest.fixture
def unversioned(small: Rig, moto: MotoServer) -> Damaged:
    """Provide two restore points in a bucket without versions and locks.

    In this bucket, only checksums show that an object is damaged.
    """
    client = client_for(moto.endpoint)
    location = StoreLocation("s3", moto.endpoint, new_bucket(client, lock=False))
    store = S3Store(client, location.bucket, "off site")
    return Damaged(small, store, location, take(small, store), take(small, store))


def take(rig: Rig, store: ObjectStore) -> Manifest:
    offsite = rig.keys.offsite(store)
    backup = take_backup(
        rig.address, "courier", [], store, offsite.recipients,
        expires_after=lambda moment: moment + timedelta(days=40),
    )  # fmt: skip
    manifests.publish(store, backup.manifest, offsite.signer, None)
    return backup.manifest


def flip(data: bytes) -> bytes:
    return flipped(data, len(data) // 2)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one flipped byte": flip,
    "truncated": lambda data: data[:-1],
    "extended": lambda data: data + b"\0",
    "emptied": lambda _: b"",
}


def test_restore_from_damaged_object_raises_error_and_target_database_stays_empty(
    in_directory: Damaged, database: str
) -> None:
    """The error names the object, and the target stays empty. The other restore point is usable."""
    key = in_directory.new.dump.key
    original = in_directory.read(key)
    for damage in DAMAGES.values():
        in_directory.write(key, damage(original))
        require_refused(in_directory.source(in_directory.new), database, key)
    target = DatabaseAddress.from_conninfo(database)
    assert restore(in_directory.source(in_directory.old), target).differences == ()


def test_restore_raises_error_if_objects_of_two_restore_points_were_swapped(
    in_directory: Damaged, database: str
) -> None:
    """Each object can be decrypted with the key, but belongs to the other restore point."""
    old, new = (
        in_directory.read(in_directory.old.dump.key),
        in_directory.read(in_directory.new.dump.key),
    )
    in_directory.write(in_directory.old.dump.key, new)
    in_directory.write(in_directory.new.dump.key, old)
    require_refused(in_directory.source(in_directory.old), database, in_directory.old.dump.key)
    require_refused(in_directory.source(in_directory.new), database, in_directory.new.dump.key)


def test_restore_reads_locked_object_versions_if_current_versions_are_damaged(
    small: Rig, s3: StoreLocation, database: str
) -> None:
    """The listing reports each damaged version that hides a locked version."""
    damaged = two_points(small, s3.open(), s3)
    keys = [damaged.new.dump.key, f"courier/{damaged.new.id}/manifest.json"]
    for key in keys:
        for damage in DAMAGES.values():
            damaged.write(key, damage(damaged.read(key)))
    points = {point.id: point for point in small.points(damaged.store)}
    assert points[damaged.old.id].hidden == ()
    assert {each.key for each in points[damaged.new.id].hidden} == set(keys)
    target = DatabaseAddress.from_conninfo(database)
    source = damaged.source(points[damaged.new.id].manifest)
    assert restore(source, target).differences == ()


def test_restore_raises_error_if_size_or_checksum_of_s3_object_has_changed(
    unversioned: Damaged, database: str
) -> None:
    """Without versions, size and checksum of the S3 object show the damage.

    After the damage is undone, the restore succeeds.
    """
    key = unversioned.new.dump.key
    original, other = unversioned.read(key), unversioned.read(unversioned.old.dump.key)
    for damage in [*DAMAGES.values(), lambda _: other]:
        unversioned.write(key, damage(original))
        require_refused(unversioned.source(unversioned.new), database, key)
    unversioned.write(key, original)
    target = DatabaseAddress.from_conninfo(database)
    assert restore(unversioned.source(unversioned.new), target).differences == ()


@pytest.mark.parametrize("kind", ["in_directory", "unversioned"])
def test_decryption_raises_content_refused_if_object_is_damaged_or_swapped(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """Even if the store reports the original checksum, decryption fails and names the object."""
    damaged: Damaged = request.getfixturevalue(kind)
    key = damaged.new.dump.key
    original, other = damaged.read(key), damaged.read(damaged.old.dump.key)
    for damage in [flip, DAMAGES["truncated"], DAMAGES["emptied"], lambda _: other]:
        damaged.write(key, damage(original))
        with (
            damaged.source(damaged.new).opened() as archive,
            pytest.raises(ContentRefused) as caught,
        ):
            list(iter(lambda: archive.read(1 << 20), b""))
        assert key in caught.value.message
        swapped = damage(original) == other
        assert ("as another object" in caught.value.message) == swapped


def test_restore_raises_error_if_private_key_does_not_belong_to_a_recipient(
    damaged: Damaged, database: str
) -> None:
    """The restore is refused before it changes the target database."""
    require_refused(
        damaged.source(damaged.new, "stranger"), database, damaged.new.dump.key, "does not belong"
    )


def test_restore_point_is_not_listed_and_is_reported_if_its_manifest_was_edited(
    in_directory: Damaged,
) -> None:
    """The drill's record names the manifest, and the drill uses the other restore point."""
    key = f"courier/{in_directory.new.id}/manifest.json"
    in_directory.change(key, lambda data: data.replace(b'"rows": 50', b'"rows": 49'))
    require_rejected(in_directory, key, "the signature does not fit")


def test_restore_point_is_not_listed_and_is_reported_if_manifest_is_of_another_restore_point(
    in_directory: Damaged,
) -> None:
    """The manifest has a valid signature, but for another restore point."""
    for name in ("manifest.json", "manifest.json.sig"):
        in_directory.write(
            f"courier/{in_directory.new.id}/{name}",
            in_directory.read(f"courier/{in_directory.old.id}/{name}"),
        )
    require_rejected(in_directory, f"courier/{in_directory.new.id}/manifest.json", "moved here")


@pytest.mark.parametrize("name", ["manifest.json", "database.dump.zst.enc"])
def test_restore_point_with_missing_manifest_or_dump_is_not_listed(
    unversioned: Damaged, name: str
) -> None:
    """Complete restore points are still listed."""
    key = f"courier/{unversioned.new.id}/{name}"
    unversioned.store.delete(key)
    require_rejected(unversioned, key, "is missing")


def test_restore_point_with_truncated_object_is_not_listed_and_is_reported(
    unversioned: Damaged,
) -> None:
    """The object's size in the listing differs from its size in the manifest."""
    unversioned.change(unversioned.new.dump.key, lambda data: data[:-1])
    require_rejected(unversioned, unversioned.new.dump.key, "bytes instead of")


def require_refused(source: Source, target: str, key: str, why: str = "") -> None:
    """Require that a restore is refused, and that the target database stays empty.

    Args:
        source: restore point and its store.
        target: connection string of the target database.
        key: name of an object, which the error has to contain.
        why: text that the error has to contain.
    """
    with pytest.raises(ContentRefused) as caught:
        restore(source, DatabaseAddress.from_conninfo(target))
    assert key in caught.value.message
    assert why in caught.value.message
    assert query(target, TABLES) == [0]


def require_rejected(damaged: Damaged, key: str, why: str) -> None:
    """Require that the listing contains only the old restore point, and that a drill reports why.

    Args:
        damaged: store with an old and a new restore point.
        key: name of a damaged object of the new restore point.
        why: text that the report has to contain.
    """
    trusted = damaged.rig.keys.offsite(damaged.store).trusted
    points, rejected = manifests.restore_points(damaged.store, "courier", trusted)
    assert [point.id for point in points] == [damaged.old.id]
    assert [entry.key for entry in rejected] == [key]
    assert why in rejected[0].reason
    services = services_stub(
        {},
        damaged.rig.engine(),
        damaged.rig.clock,
        database=lambda _connection: DatabaseAddress.from_conninfo(damaged.rig.server),
        drill_key=damaged.rig.keys.opening,
        **offsite_services(damaged.rig.keys.offsite(damaged.store)),
    )
    run = RunContext(services, None, parameters={"choose": "latest"})
    record = step_record(CHOOSE, run, "courier")
    assert record.outcome == Outcome.FAIL
    assert record.data["restore_point"] == damaged.old.id
    assert key in json.dumps([finding.message.values for finding in record.findings])
    with pytest.raises(ControlFailed, match=damaged.new.id):
        manifests.load(damaged.store, "courier", damaged.new.id, trusted)
