"""Damage done to a store: refused before the target is touched, and the report names the object."""

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
from include.encryption.crypto import Refused
from include.evidence.model import Outcome
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.workflow.run_context import RunContext
from tests.faults.support import Rig, StorePlace, query
from tests.support.contexts import offsite_services, services_stub, step_record
from tests.support.damage import flipped
from tests.support.s3 import MotoServer, client_for, new_bucket

pytestmark = pytest.mark.fault

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"


@dataclass
class Damaged:
    """Two restore points, and hands that reach past every lock into the store."""

    rig: Rig
    store: ObjectStore
    place: StorePlace
    old: Manifest
    new: Manifest

    def read(self, key: str) -> bytes:
        return self.store.get(key)

    def write(self, key: str, data: bytes) -> None:
        if isinstance(self.store, DirectoryStore):
            path = f"{self.place.place}/{key}"
            with open(path, "r+b") as file:  # noqa: PTH123 - as root, whatever its mode
                file.truncate()
                file.write(data)
        else:
            client_for(self.place.place).put_object(
                Bucket=self.place.bucket, Key=f"off site/{key}", Body=data
            )

    def change(self, key: str, how: Callable[[bytes], bytes]) -> None:
        self.write(key, how(self.read(key)))

    def source(self, point: Manifest, key: str = "operations") -> Source:
        return Source(self.store, point, self.rig.keys.opening(key))


def two_points(rig: Rig, store: ObjectStore, place: StorePlace) -> Damaged:
    _, old = rig.back_up(store)
    query(rig.source, "UPDATE waybill SET proof = proof || 'x'")
    _, new = rig.back_up(store)
    return Damaged(rig, store, place, old, new)


@pytest.fixture
def damaged(small: Rig, place: StorePlace) -> Damaged:
    return two_points(small, place.open(), place)


@pytest.fixture
def in_directory(small: Rig, directory: StorePlace) -> Damaged:
    return two_points(small, directory.open(), directory)


@pytest.fixture
def unversioned(small: Rig, moto: MotoServer) -> Damaged:
    """A bucket that keeps no versions, so that only checksums can tell; nothing is locked."""
    client = client_for(moto.endpoint)
    place = StorePlace("s3", moto.endpoint, new_bucket(client, lock=False))
    store = S3Store(client, place.bucket, "off site")
    return Damaged(small, store, place, take(small, store), take(small, store))


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


def test_a_damaged_object(in_directory: Damaged, database: str) -> None:
    """Refused by name; the target stays empty; the other restore point still restores."""
    key = in_directory.new.dump.key
    original = in_directory.read(key)
    for damage in DAMAGES.values():
        in_directory.write(key, damage(original))
        require_refused(in_directory.source(in_directory.new), database, key)
    target = DatabaseAddress.from_conninfo(database)
    assert restore(in_directory.source(in_directory.old), target).differences == ()


def test_objects_swapped_between_two_restore_points(in_directory: Damaged, database: str) -> None:
    """Both are whole and open with the key, and neither is accepted in the other's place."""
    old, new = (
        in_directory.read(in_directory.old.dump.key),
        in_directory.read(in_directory.new.dump.key),
    )
    in_directory.write(in_directory.old.dump.key, new)
    in_directory.write(in_directory.new.dump.key, old)
    require_refused(in_directory.source(in_directory.old), database, in_directory.old.dump.key)
    require_refused(in_directory.source(in_directory.new), database, in_directory.new.dump.key)


def test_damage_put_on_top_of_locked_versions_keeps_nobody_from_a_restore(
    small: Rig, s3: StorePlace, database: str
) -> None:
    """What was signed is restored by its versions, and every object that is hidden is named."""
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


def test_damage_where_only_checksums_can_tell(unversioned: Damaged, database: str) -> None:
    """Without versions, S3's own size and checksum give the damage away; sound, it restores."""
    key = unversioned.new.dump.key
    original, other = unversioned.read(key), unversioned.read(unversioned.old.dump.key)
    for damage in [*DAMAGES.values(), lambda _: other]:
        unversioned.write(key, damage(original))
        require_refused(unversioned.source(unversioned.new), database, key)
    unversioned.write(key, original)
    target = DatabaseAddress.from_conninfo(database)
    assert restore(unversioned.source(unversioned.new), target).differences == ()


@pytest.mark.parametrize("kind", ["in_directory", "unversioned"])
def test_damage_behind_a_forged_checksum(request: pytest.FixtureRequest, kind: str) -> None:
    """A store that lies about its checksums: decryption itself refuses, and names the object."""
    damaged: Damaged = request.getfixturevalue(kind)
    key = damaged.new.dump.key
    original, other = damaged.read(key), damaged.read(damaged.old.dump.key)
    for damage in [flip, DAMAGES["truncated"], DAMAGES["emptied"], lambda _: other]:
        damaged.write(key, damage(original))
        with damaged.source(damaged.new).opened() as archive, pytest.raises(Refused) as caught:
            list(iter(lambda: archive.read(1 << 20), b""))
        assert key in caught.value.message
        swapped = damage(original) == other
        assert ("as another object" in caught.value.message) == swapped


def test_a_wrong_key(damaged: Damaged, database: str) -> None:
    """Refused before the target is touched."""
    require_refused(
        damaged.source(damaged.new, "stranger"), database, damaged.new.dump.key, "does not belong"
    )


def test_an_edited_manifest(in_directory: Damaged) -> None:
    """Not listed as a restore point, named in the drill's record; the other one is drilled."""
    key = f"courier/{in_directory.new.id}/manifest.json"
    in_directory.change(key, lambda data: data.replace(b'"rows": 50', b'"rows": 49'))
    require_rejected(in_directory, key, "the signature does not fit")


def test_a_manifest_moved_to_another_restore_point(in_directory: Damaged) -> None:
    """Signed, but in the wrong place."""
    for name in ("manifest.json", "manifest.json.sig"):
        in_directory.write(
            f"courier/{in_directory.new.id}/{name}",
            in_directory.read(f"courier/{in_directory.old.id}/{name}"),
        )
    require_rejected(in_directory, f"courier/{in_directory.new.id}/manifest.json", "moved here")


@pytest.mark.parametrize("name", ["manifest.json", "database.dump.zst.enc"])
def test_a_restore_point_with_a_part_missing(unversioned: Damaged, name: str) -> None:
    """Half a restore point is none, and does not hide the whole ones."""
    key = f"courier/{unversioned.new.id}/{name}"
    unversioned.store.delete(key)
    require_rejected(unversioned, key, "is missing")


def test_a_truncated_object_is_seen_in_the_list(unversioned: Damaged) -> None:
    """A restore point of the wrong size does not count where restore points are counted."""
    unversioned.change(unversioned.new.dump.key, lambda data: data[:-1])
    require_rejected(unversioned, unversioned.new.dump.key, "bytes instead of")


def require_refused(source: Source, target: str, key: str, why: str = "") -> None:
    """The restore is refused, the error names the object, and the target has no table."""
    with pytest.raises(Refused) as caught:
        restore(source, DatabaseAddress.from_conninfo(target))
    assert key in caught.value.message
    assert why in caught.value.message
    assert query(target, TABLES) == [0]


def require_rejected(damaged: Damaged, key: str, why: str) -> None:
    """The new restore point is not listed, the old one is, and the drill's record names why."""
    trusted = damaged.rig.keys.offsite(damaged.store).trusted
    points, rejected = manifests.restore_points(damaged.store, "courier", trusted)
    assert [one.id for one in points] == [damaged.old.id]
    assert [one.key for one in rejected] == [key]
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
    assert key in json.dumps([one.message.values for one in record.findings])
    with pytest.raises(ControlFailed, match=damaged.new.id):
        manifests.load(damaged.store, "courier", damaged.new.id, trusted)
