"""Tests of backups and drills with stores that fail, hang, throttle, are full or misconfigured."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from include.backup.archive import read_archive
from include.backup.offsite import Offsite
from include.backup.source import Source
from include.encryption.recipients import UnreadableRecipient
from include.evidence.model import Outcome
from include.services.clock import FixedClock
from include.services.errors import ServiceError
from include.services.objectstore.base import ObjectStore, StoreError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.backup.offsite_support import preflight_record
from tests.faults.support import Rig, StoreLocation, mapped, now
from tests.support.faulty_proxy import Fault, FaultyProxy, ProxiedRequest, Rule, every
from tests.support.s3 import MotoServer, client_for, new_bucket, unfinished_uploads

pytestmark = pytest.mark.fault

BROKEN = Fault(status=500, code="InternalError")
THROTTLED = Fault(status=503, code="SlowDown")
SILENT = Fault(hang_seconds=15)
QUICK = {"read_timeout": 5}  # seconds; short, for faults without a response


def in_turn(faults: Iterable[tuple[str, Callable[[ProxiedRequest], bool], Fault]]) -> Rule:
    """Return a proxy rule that applies each fault once, to the next request that matches it.

    The attribute ``hits`` of the rule counts the applied faults by name.

    Args:
        faults: name of each fault, a function that returns whether a request matches, and the
            fault.
    """
    waiting = list(faults)

    def rule(request: ProxiedRequest) -> Fault | None:
        for entry in waiting:
            name, matches, fault = entry
            if matches(request):
                waiting.remove(entry)
                rule.hits[name] += 1  # type: ignore[attr-defined] # a counter for the test
                return fault
        return None

    rule.hits = defaultdict(int)  # type: ignore[attr-defined] # see above
    return rule


def uploads_part(number: int) -> Callable[[ProxiedRequest], bool]:
    return lambda request: request.method == "PUT" and f"partNumber={number}" in request.path


def reading(request: ProxiedRequest) -> bool:
    return request.method == "GET" and ".enc" in request.path


def test_backup_succeeds_although_each_kind_of_store_failure_occurs_once(
    rig: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy
) -> None:
    """Each fault occurs once during a single backup, and the backup is complete."""
    proxy.rule = in_turn(
        [
            (
                "listing",
                lambda request: request.method == "GET" and "uploads" in request.path,
                THROTTLED,
            ),
            (
                "begin",
                lambda request: request.method == "POST" and "uploads" in request.path,
                BROKEN,
            ),
            ("part 1", uploads_part(1), BROKEN),
            ("part 2", uploads_part(2), Fault(reset_upload_after=5_000_000)),
            ("part 2 again", uploads_part(2), SILENT),
            ("part 1 again", uploads_part(1), THROTTLED),
            (
                "finish",
                lambda request: request.method == "POST" and "uploadId" in request.path,
                BROKEN,
            ),
            (
                "lock",
                lambda request: request.method == "PUT" and "retention" in request.path,
                SILENT,
            ),
            ("manifest", lambda request: request.path.endswith("/manifest.json"), THROTTLED),
            ("seal", lambda request: request.path.endswith(".sig"), Fault(lose_answer=True)),
        ]
    )
    rig.back_up(s3_through_proxy.open(**QUICK))
    assert proxy.faults == 10, dict(proxy.rule.hits)  # type: ignore[attr-defined] # see in_turn
    assert unfinished_uploads(client_for(s3.address), s3.bucket) == 0
    require_whole(rig, s3.open())


def require_whole(rig: Rig, store: ObjectStore) -> None:
    """Require that each table of the newest restore point has the digest in the manifest."""
    manifest = rig.points(store)[-1].manifest
    source = Source(store, manifest, rig.keys.opening())
    source.check()
    with source.archive() as archive:
        contents = read_archive(iter(lambda: archive.read(1_000_000), b""))
    digests = {entry.name: contents.digests[entry.dump_id].sha256 for entry in contents.tables()}
    assert digests == {table.name: table.sha256 for table in manifest.tables}
    assert len(digests) == 2


def test_restore_drill_succeeds_although_each_kind_of_store_failure_occurs_once(
    rig: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy
) -> None:
    """Each fault occurs once during a drill, and every restored table equals the original."""
    rig.back_up(s3.open())
    proxy.rule = in_turn(
        [
            ("manifest", lambda request: "/manifest.json?versionId=" in request.path, SILENT),
            ("check", lambda request: request.method == "HEAD", BROKEN),
            ("head", reading, THROTTLED),
            ("head again", reading, Fault(reset_download_after=100_000)),
            ("load", reading, Fault(reset_download_after=10_000_000)),
            ("load again", reading, SILENT),
            ("load once more", reading, BROKEN),
        ]
    )
    record = rig.drill(s3_through_proxy.open(**QUICK))
    assert proxy.faults == 7
    assert record.findings == []
    assert record.data["compared"] == 2


def test_backup_and_restore_drill_succeed_if_store_throttles_every_tenth_request(
    small: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy
) -> None:
    proxy.rule = every(10, THROTTLED)
    store = s3_through_proxy.open()
    small.back_up(store)
    small.back_up(store)
    assert small.drill(store).findings == []
    assert proxy.faults >= 3
    assert len(small.points(s3.open())) == 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(BROKEN, id="500"),
        pytest.param(Fault(hang_seconds=2), id="hang"),
        pytest.param(Fault(reset_upload_after=0), id="reset"),
    ],
)
def test_backup_fails_within_30_seconds_if_store_stays_unavailable(
    rig: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy, fault: Fault
) -> None:
    """The error names the object, and the backup leaves no object and no upload."""
    proxy.rule = lambda request: fault if "partNumber=2" in request.path else None
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"Cannot write 'courier/.*enc' in s3://") as caught:
        rig.back_up(s3_through_proxy.open(read_timeout=0.5, max_attempts=2))
    assert time.monotonic() - begun < 30
    assert proxy.faults == 2
    assert caught.value.action
    assert rig.points(s3.open()) == []
    assert list(s3.open().list()) == []
    assert unfinished_uploads(client_for(s3.address), s3.bucket) == 0


def test_restore_drill_fails_and_drops_scratch_database_if_store_becomes_unavailable(
    rig: Rig, s3: StoreLocation, s3_through_proxy: StoreLocation, proxy: FaultyProxy
) -> None:
    """The error names the object that could not be read."""
    rig.back_up(s3.open())
    numbers = iter(range(1_000))

    def rule(request: ProxiedRequest) -> Fault | None:
        number = (
            next(numbers) if reading(request) else 0
        )  # the header is read first, without a fault
        if number == 0:
            return None
        return Fault(reset_download_after=2_000_000) if number <= 2 else BROKEN

    proxy.rule = rule
    with pytest.raises(StoreError, match=r"Cannot read 'courier/.*enc'"):
        rig.drill(s3_through_proxy.open(max_attempts=2))
    assert proxy.faults >= 3
    assert rig.scratch_names() == rig.owed_scratch() == []


def test_backup_to_full_store_fails_and_leaves_no_file(rig: Rig, small_disk: Path) -> None:
    """The error names the full disk. After space was freed, the next backup succeeds."""
    store = DirectoryStore(small_disk, "beijing")
    with pytest.raises(StoreError, match="No space left on device") as caught:
        rig.back_up(store)
    assert "Free space" in caught.value.action
    assert rig.points(store) == []
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    rig.back_up(store)
    assert len(rig.points(store)) == 1


def findings_of(offsite: Offsite) -> dict[str, Outcome]:
    record = preflight_record(offsite, mapped(), FixedClock(now()))
    assert record.outcome == Outcome.worst(
        [Outcome.PASS, *(finding.severity for finding in record.findings)]
    )
    assert all(finding.message.text and finding.action.text for finding in record.findings)
    return {finding.code: finding.severity for finding in record.findings}


@pytest.mark.parametrize(
    ("bucket", "code", "error"),
    [
        pytest.param("missing", "backup.store.missing", "the bucket does not exist", id="missing"),
        pytest.param("bare", "backup.store.no_versioning", None, id="without versioning"),
        pytest.param("bare", "backup.store.no_object_lock", None, id="without Object Lock"),
    ],
)
def test_preflight_fails_if_bucket_is_missing_or_lacks_versioning_or_object_lock(
    small: Rig, moto: MotoServer, bucket: str, code: str, error: str | None
) -> None:
    """If a backup is made nevertheless, it fails and leaves no restore point."""
    client = client_for(moto.endpoint)
    name = new_bucket(client, lock=False) if bucket == "bare" else "there-is-none"
    store = S3Store(client, name, "p", "beijing")
    assert findings_of(small.keys.offsite(store))[code] == Outcome.FAIL
    with pytest.raises(StoreError, match=error or "Cannot lock 'courier/"):
        small.back_up(store)
    if bucket == "bare":
        assert small.points(store) == []
        assert unfinished_uploads(client, name) == 0


def test_preflight_of_versioned_bucket_with_object_lock_has_no_findings(
    small: Rig, s3: StoreLocation
) -> None:
    """The other tests of the preflight use this store with one changed property."""
    assert findings_of(small.keys.offsite(s3.open())) == {}


def test_preflight_fails_if_offsite_store_is_at_site_of_database(
    small: Rig, s3: StoreLocation
) -> None:
    store = S3Store(client_for(s3.address), s3.bucket, "p", "shanghai")
    assert findings_of(small.keys.offsite(store)) == {"backup.site.same": Outcome.FAIL}


def test_preflight_fails_if_recipient_key_is_unreadable_expired_or_used_twice(
    small: Rig, s3: StoreLocation
) -> None:
    """A recipient has no readable key, an expired key, or the same key as another recipient."""
    sound = small.keys.offsite(s3.open())
    first, second = sound.recipients
    missing = replace(
        sound, recipients=[first], unreadable=[UnreadableRecipient("escrow", "no such file")]
    )
    assert findings_of(missing) == {
        "backup.recipients.unreadable": Outcome.FAIL,
        "backup.recipients.too_few": Outcome.FAIL,
    }
    expired = replace(second, expires_at=now() - timedelta(days=1))
    assert findings_of(replace(sound, recipients=[first, expired])) == {
        "backup.recipients.expired": Outcome.FAIL,
        "backup.recipients.too_few": Outcome.FAIL,
    }
    twice = replace(first, name="escrow")
    assert findings_of(replace(sound, recipients=[first, twice])) == {
        "backup.recipients.too_few": Outcome.FAIL
    }


def test_retry_of_backup_returns_restore_point_that_the_first_attempt_already_published(
    small: Rig, s3: StoreLocation
) -> None:
    """The retry records the killed attempt's restore point and does not create another."""
    store = s3.open()
    record, first = small.back_up(store)
    tried, same = small.back_up(store, again=True)
    assert same == first
    assert [point.id for point in small.points(store)] == [first.id]
    assert tried.data["published_by_an_earlier_try"]
    assert tried.data["seconds"] is None  # the search took a second, not the backup
    assert tried.findings == record.findings
    _record, other = small.back_up(store, again=True, run_id="another run")
    assert other.id != first.id


def test_backup_by_worker_with_slow_clock_does_not_replace_existing_restore_point(
    small: Rig, location: StoreLocation
) -> None:
    """The system clock of the second worker is two hours slow. Both restore points are kept.

    A drill on the second worker fails, because the newest restore point is in the future there.
    """
    store: ObjectStore = location.open()
    _, first = small.back_up(store, clock=FixedClock(now()))
    record, second = small.back_up(store, clock=FixedClock(now() - timedelta(hours=2)))
    assert [point.id for point in small.points(store)] == [first.id, second.id]
    assert record.findings == []
    behind = replace(small, clock=FixedClock(now() - timedelta(hours=2)))
    drilled = behind.drill(store)
    assert drilled.outcome == Outcome.FAIL
    assert [finding.code for finding in drilled.findings] == ["drill.from_the_future"]
    assert small.drill(store).outcome == Outcome.PASS
    with pytest.raises(ServiceError):
        store.delete(first.dump.key)
