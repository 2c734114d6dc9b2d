"""SIGKILL in every stage of a backup, a drill and a seal: the next run finds a clean place."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from include.backup.prune import clear_unfinished
from include.backup.scratch import drop_left_over
from include.evidence.bundle import seal
from include.evidence.verify import verify_all
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from include.state.locks import exclusive
from tests.evidence.support import CLOCK, FILES, result_of
from tests.faults.support import (
    PATIENCE,
    RULES,
    Rig,
    StorePlace,
    child,
    now,
    running,
    until,
)
from tests.support.faulty_proxy import Fault, FaultyProxy, ProxiedRequest
from tests.support.s3 import client_for, unfinished_uploads

pytestmark = pytest.mark.fault

MB = 1_000_000
NO_ORPHAN_AFTER = 5  # seconds
SCRATCH = "parcelseal_drill_%"


@contextmanager
def held(
    proxy: FaultyProxy, matches: Callable[[ProxiedRequest], bool]
) -> Iterator[threading.Event]:
    """Never answer such requests; the event says that one came."""
    reached = threading.Event()

    def rule(request: ProxiedRequest) -> Fault | None:
        if not matches(request):
            return None
        reached.set()
        return Fault(hang_seconds=600)

    proxy.rule = rule
    yield reached


def require_clean_run(rig: Rig, place: StorePlace) -> None:
    """Back up again: one whole restore point, and nothing else in the store."""
    store = place.open()
    _, manifest = rig.back_up(store)
    assert [one.id for one in rig.points(store)] == [manifest.id]
    folder = f"courier/{manifest.id}/"
    assert {one.key for one in store.list()} == {
        folder + name for name in ("database.dump.zst.enc", "manifest.json", "manifest.json.sig")
    }
    if place.kind == "s3":
        assert unfinished_uploads(client_for(place.place), place.bucket) == 0
    else:
        assert not list(Path(place.place).rglob(".*.partial-*"))


def test_a_backup_killed_while_dumping(rig: Rig, directory: StorePlace) -> None:
    """pg_dump ends too, nothing is listed, and the next run leaves one whole restore point."""
    with child("backup", rig, directory, pause_after=10 * MB) as killed:
        killed.wait_for("dumping")
        assert running(rig.source, "%COPY%public.waybill%")
        assert killed.helpers_named("pg_dump")
        killed.kill()
    assert killed.helpers_left(NO_ORPHAN_AFTER) == []
    assert rig.points(directory.open()) == []
    require_clean_run(rig, directory)


def test_a_backup_killed_while_uploading(
    rig: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy
) -> None:
    """A multipart upload is left half-way; the next run removes it and says so."""
    with (
        held(proxy, lambda one: "partNumber=2" in one.path) as reached,
        child("backup", rig, s3_through_proxy) as killed,
    ):
        assert reached.wait(PATIENCE)
        killed.kill()
    assert killed.helpers_left(NO_ORPHAN_AFTER) == []
    assert unfinished_uploads(client_for(s3.place), s3.bucket) == 1
    assert rig.points(s3.open()) == []
    require_clean_run(rig, s3)


@pytest.mark.parametrize("name", ["manifest.json", "lock of manifest.json", "manifest.json.sig"])
def test_a_backup_killed_while_publishing(small: Rig, directory: StorePlace, name: str) -> None:
    """Locked dump, no signature: no restore point, named in the report, cleared after the lock."""
    with child("backup", small, directory, pause_at=name) as killed:
        killed.wait_for(f"before {name}")
        killed.kill()
    store = directory.open()
    left = [one.key for one in store.list()]
    assert any(key.endswith("/database.dump.zst.enc") for key in left)
    assert small.points(store) == []
    record, manifest = small.back_up(store)
    assert [one.id for one in small.points(store)] == [manifest.id]
    assert [one.code for one in record.findings] == ["backup.unfinished.locked"]
    folder = left[0].rpartition("/")[0] + "/"
    assert record.findings[0].subject == folder
    later_on = now() + timedelta(days=RULES.lock_days + 1)
    later = DirectoryStore(Path(directory.place), clock=FixedClock(later_on))
    trusted = small.keys.offsite(later).trusted
    cleared = clear_unfinished(later, small.engine(), "courier", trusted, later_on)
    assert cleared.folders == (folder,)
    assert [one.name for one in Path(directory.place, "courier").iterdir()] == [manifest.id]


def test_a_backup_killed_while_publishing_to_s3(
    small: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy
) -> None:
    """The same where Object Lock keeps what was there: never listed, named in the report."""
    with (
        held(proxy, lambda one: one.method == "PUT" and ".json.sig" in one.path) as reached,
        child("backup", small, s3_through_proxy) as killed,
    ):
        assert reached.wait(PATIENCE)
        killed.kill()
    store = s3.open()
    assert len(list(store.list())) == 2
    assert small.points(store) == []
    record, manifest = small.back_up(store)
    assert [one.id for one in small.points(store)] == [manifest.id]
    assert [one.code for one in record.findings] == ["backup.unfinished.locked"]


def test_a_drill_killed_while_loading(rig: Rig, directory: StorePlace) -> None:
    """pg_restore ends too; the next drill drops what was left, and proves the restore."""
    store = directory.open()
    rig.back_up(store)
    with child("drill", rig, directory) as killed:
        until(lambda: running(rig.server, "COPY public.waybill%", SCRATCH))
        assert killed.helpers_named("pg_restore")
        killed.kill()
    assert killed.helpers_left(NO_ORPHAN_AFTER) == []
    left = rig.scratch_names()
    assert len(left) == 1
    assert rig.owed_scratch() == left
    record = rig.drill(store)
    assert record.findings == []
    assert record.data["compared"] == 2
    assert rig.scratch_names() == rig.owed_scratch() == []


def test_a_drill_killed_while_indexing(slow_to_index: Rig, directory: StorePlace) -> None:
    """The build of an index, which would take half a minute, ends; the next task drops all."""
    slow_to_index.back_up(directory.open())
    with child("drill", slow_to_index, directory) as killed:
        until(lambda: running(slow_to_index.server, "CREATE INDEX%", SCRATCH))
        assert killed.helpers_named("pg_restore")
        killed.kill()
    assert killed.helpers_left(NO_ORPHAN_AFTER) == []
    until(lambda: not running(slow_to_index.server, "CREATE INDEX%", SCRATCH), NO_ORPHAN_AFTER)
    left = slow_to_index.scratch_names()
    assert len(left) == 1
    assert slow_to_index.drop_scratch().data["databases"] == left
    assert slow_to_index.scratch_names() == slow_to_index.owed_scratch() == []


def test_left_overs_are_told_from_a_drill_at_work(rig: Rig, directory: StorePlace) -> None:
    """Clearing up never takes the scratch database of a drill that lives."""
    store = directory.open()
    rig.back_up(store)
    server = DatabaseAddress.from_conninfo(rig.server)
    with child("drill", rig, directory) as other:
        until(lambda: running(rig.server, "COPY public.waybill%", SCRATCH))
        assert drop_left_over(server, rig.engine(), rig.clock) == []
        assert len(rig.scratch_names()) == 1
        assert other.finish() == 0
    assert rig.scratch_names() == rig.owed_scratch() == []


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(r"/SHA256SUMS$", id="before the sums"),
        pytest.param(r"/SHA256SUMS\.sig$", id="before the signature"),
        pytest.param(r"/SHA256SUMS\.sig\?retention", id="while locking"),
    ],
)
def test_a_seal_killed_in_s3(
    rig: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy, stage: str
) -> None:
    """The run's next try seals once, and the whole chain verifies."""
    store, signer = s3.open(), rig.keys.offsite(s3.open()).signer
    lock_until = now() + timedelta(days=1)

    def matches(one: ProxiedRequest) -> bool:
        return one.method == "PUT" and re.search(stage, one.path) is not None

    with (
        held(proxy, matches) as reached,
        child("seal", rig, s3_through_proxy, number=1, lock_until=lock_until.isoformat()) as killed,
    ):
        assert reached.wait(PATIENCE)
        killed.kill()
    with rig.engine().connect() as conn:
        for number in (1, 2):
            seal(
                store,
                conn,
                signer,
                result=result_of(number=number),
                files=FILES,
                clock=CLOCK,
                lock_until=lock_until,
            )
        verified = verify_all(store, conn, [signer.public_pem])
    assert verified.reason is None
    assert verified.verified
    assert verified.bundles == 2


def test_two_backups_of_one_database_at_once(rig: Rig, directory: StorePlace) -> None:
    """The second is refused at once and changes nothing; the first ends well."""
    with child("backup", rig, directory, pause_after=10 * MB) as first:
        first.wait_for("dumping")
        with (
            pytest.raises(ServiceError, match="busy with a backup of courier"),
            exclusive(rig.engine(), "backup:courier", "a backup of courier"),
        ):
            pytest.fail("two at once")
        assert first.finish() == 0
    store = directory.open()
    assert len(rig.points(store)) == 1
    rig.back_up(store)
    assert len(rig.points(store)) == 2
