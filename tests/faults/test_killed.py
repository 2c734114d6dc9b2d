"""Tests that the next run cleans up after a backup, a drill or a seal was killed with SIGKILL."""

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
from include.state.locks import hold_exclusive_lock
from tests.evidence.support import CLOCK, FILES, result_of
from tests.faults.support import (
    PATIENCE,
    RULES,
    Rig,
    StoreLocation,
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
def hanging_requests(
    proxy: FaultyProxy, matches: Callable[[ProxiedRequest], bool]
) -> Iterator[threading.Event]:
    """Make the proxy leave requests without an answer.

    Args:
        proxy: proxy between client and store.
        matches: function that returns whether a request is left without an answer.

    Yields:
        An event that is set at the first such request.
    """
    reached = threading.Event()

    def rule(request: ProxiedRequest) -> Fault | None:
        if not matches(request):
            return None
        reached.set()
        return Fault(hang_seconds=600)

    proxy.rule = rule
    yield reached


def require_clean_run(rig: Rig, location: StoreLocation) -> None:
    """Make a backup, and require that its complete restore point is the only one in the store."""
    store = location.open()
    _, manifest = rig.back_up(store)
    assert [point.id for point in rig.points(store)] == [manifest.id]
    folder = f"courier/{manifest.id}/"
    assert {stored.key for stored in store.list()} == {
        folder + name for name in ("database.dump.zst.enc", "manifest.json", "manifest.json.sig")
    }
    if location.kind == "s3":
        assert unfinished_uploads(client_for(location.address), location.bucket) == 0
    else:
        assert not list(Path(location.address).rglob(".*.partial-*"))


def test_backup_killed_while_dumping_leaves_no_restore_point_or_process(
    rig: Rig, directory: StoreLocation
) -> None:
    """The process pg_dump ends, no restore point is listed, and the next backup is complete."""
    with child("backup", rig, directory, pause_after=10 * MB) as killed:
        killed.wait_for("dumping")
        assert running(rig.source, "%COPY%public.waybill%")
        assert killed.helpers_named("pg_dump")
        killed.kill()
    assert killed.helpers_left(NO_ORPHAN_AFTER) == []
    assert rig.points(directory.open()) == []
    require_clean_run(rig, directory)


def test_multipart_upload_of_killed_backup_is_removed_by_next_backup(
    rig: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy
) -> None:
    """The killed backup leaves an incomplete multipart upload, but no restore point."""
    with (
        hanging_requests(proxy, lambda request: "partNumber=2" in request.path) as reached,
        child("backup", rig, s3_through_proxy) as killed,
    ):
        assert reached.wait(PATIENCE)
        killed.kill()
    assert killed.helpers_left(NO_ORPHAN_AFTER) == []
    assert unfinished_uploads(client_for(s3.address), s3.bucket) == 1
    assert rig.points(s3.open()) == []
    require_clean_run(rig, s3)


@pytest.mark.parametrize("name", ["manifest.json", "lock of manifest.json", "manifest.json.sig"])
def test_backup_killed_before_it_wrote_its_signature_is_not_listed_as_restore_point(
    small: Rig, directory: StoreLocation, name: str
) -> None:
    """The killed backup leaves a locked dump without a signature.

    The next backup reports its folder. The folder is deleted after the lock expires.
    """
    with child("backup", small, directory, pause_at=name) as killed:
        killed.wait_for(f"before {name}")
        killed.kill()
    store = directory.open()
    left = [stored.key for stored in store.list()]
    assert any(key.endswith("/database.dump.zst.enc") for key in left)
    assert small.points(store) == []
    record, manifest = small.back_up(store)
    assert [point.id for point in small.points(store)] == [manifest.id]
    assert [finding.code for finding in record.findings] == ["backup.unfinished.locked"]
    folder = left[0].rpartition("/")[0] + "/"
    assert record.findings[0].subject == folder
    later_on = now() + timedelta(days=RULES.lock_days + 1)
    later = DirectoryStore(Path(directory.address), clock=FixedClock(later_on))
    trusted = small.keys.offsite(later).trusted
    cleared = clear_unfinished(later, small.engine(), "courier", trusted, later_on)
    assert cleared.folders == (folder,)
    assert [path.name for path in Path(directory.address, "courier").iterdir()] == [manifest.id]


def test_backup_killed_before_it_wrote_its_signature_to_s3_is_not_listed_as_restore_point(
    small: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy
) -> None:
    """The killed backup leaves unsigned objects, which Object Lock keeps.

    They are not listed as a restore point, and the next backup reports them.
    """
    with (
        hanging_requests(
            proxy, lambda request: request.method == "PUT" and ".json.sig" in request.path
        ) as reached,
        child("backup", small, s3_through_proxy) as killed,
    ):
        assert reached.wait(PATIENCE)
        killed.kill()
    store = s3.open()
    assert len(list(store.list())) == 2
    assert small.points(store) == []
    record, manifest = small.back_up(store)
    assert [point.id for point in small.points(store)] == [manifest.id]
    assert [finding.code for finding in record.findings] == ["backup.unfinished.locked"]


def test_scratch_database_of_killed_restore_drill_is_dropped_by_next_restore_drill(
    rig: Rig, directory: StoreLocation
) -> None:
    """The process pg_restore ends, and the next drill passes."""
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


def test_server_stops_creating_index_after_restore_drill_is_killed(
    slow_to_index: Rig, directory: StoreLocation
) -> None:
    """Creating the index takes half a minute. The next clean-up drops the scratch database."""
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


def test_clean_up_keeps_scratch_database_of_running_restore_drill(
    rig: Rig, directory: StoreLocation
) -> None:
    """Only scratch databases of drills that have ended are dropped."""
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
def test_second_seal_after_kill_during_s3_upload_creates_a_single_valid_bundle(
    rig: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy, stage: str
) -> None:
    """The retry seals a single bundle. After it, the verification of all bundles succeeds."""
    store, signer = s3.open(), rig.keys.offsite(s3.open()).signer
    lock_until = now() + timedelta(days=1)

    def matches(request: ProxiedRequest) -> bool:
        return request.method == "PUT" and re.search(stage, request.path) is not None

    with (
        hanging_requests(proxy, matches) as reached,
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


def test_second_backup_of_database_cannot_get_lock_while_first_backup_runs(
    rig: Rig, directory: StoreLocation
) -> None:
    """The first backup completes."""
    with child("backup", rig, directory, pause_after=10 * MB) as first:
        first.wait_for("dumping")
        with (
            pytest.raises(ServiceError, match="busy with a backup of courier"),
            hold_exclusive_lock(rig.engine(), "backup:courier", "a backup of courier"),
        ):
            pytest.fail("two at once")
        assert first.finish() == 0
    store = directory.open()
    assert len(rig.points(store)) == 1
    rig.back_up(store)
    assert len(rig.points(store)) == 2
