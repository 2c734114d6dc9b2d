"""A store that answers errors, hangs, resets, throttles, is full, or is not what it should be."""

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
from tests.faults.support import Rig, StorePlace, mapped, now
from tests.support.faulty_proxy import Fault, FaultyProxy, ProxiedRequest, Rule, every
from tests.support.s3 import MotoServer, client_for, new_bucket, unfinished_uploads

pytestmark = pytest.mark.fault

BROKEN = Fault(status=500, code="InternalError")
THROTTLED = Fault(status=503, code="SlowDown")
SILENT = Fault(hang_seconds=15)
QUICK = {"read_timeout": 5}  # for a fault that is silent


def in_turn(faults: Iterable[tuple[str, Callable[[ProxiedRequest], bool], Fault]]) -> Rule:
    """Let each fault hit the next request that fits, once; ``hits`` counts them by name."""
    waiting = list(faults)

    def rule(request: ProxiedRequest) -> Fault | None:
        for one in waiting:
            if one[1](request):
                waiting.remove(one)
                rule.hits[one[0]] += 1  # type: ignore[attr-defined] # a counter for the test
                return one[2]
        return None

    rule.hits = defaultdict(int)  # type: ignore[attr-defined] # see above
    return rule


def part(number: int) -> Callable[[ProxiedRequest], bool]:
    return lambda one: one.method == "PUT" and f"partNumber={number}" in one.path


def reading(one: ProxiedRequest) -> bool:
    return one.method == "GET" and ".enc" in one.path


def test_a_backup_through_every_kind_of_failure(
    rig: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy
) -> None:
    """Each fault once, on the way of one backup: all retried, and the copy is whole."""
    proxy.rule = in_turn(
        [
            ("listing", lambda one: one.method == "GET" and "uploads" in one.path, THROTTLED),
            ("begin", lambda one: one.method == "POST" and "uploads" in one.path, BROKEN),
            ("part 1", part(1), BROKEN),
            ("part 2", part(2), Fault(reset_upload_after=5_000_000)),
            ("part 2 again", part(2), SILENT),
            ("part 1 again", part(1), THROTTLED),
            ("finish", lambda one: one.method == "POST" and "uploadId" in one.path, BROKEN),
            ("lock", lambda one: one.method == "PUT" and "retention" in one.path, SILENT),
            ("manifest", lambda one: one.path.endswith("/manifest.json"), THROTTLED),
            ("seal", lambda one: one.path.endswith(".sig"), Fault(lose_answer=True)),
        ]
    )
    rig.back_up(s3_through_proxy.open(**QUICK))
    assert proxy.faults == 10, dict(proxy.rule.hits)  # type: ignore[attr-defined] # see in_turn
    assert unfinished_uploads(client_for(s3.place), s3.bucket) == 0
    require_whole(rig, s3.open())


def require_whole(rig: Rig, store: ObjectStore) -> None:
    """Read the newest restore point back, as a restore does: every table is the manifest's."""
    manifest = rig.points(store)[-1].manifest
    source = Source(store, manifest, rig.keys.opening())
    source.check()
    with source.archive() as archive:
        found = read_archive(iter(lambda: archive.read(1_000_000), b""))
    digests = {entry.name: found.digests[entry.dump_id].sha256 for entry in found.tables()}
    assert digests == {table.name: table.sha256 for table in manifest.tables}
    assert len(digests) == 2


def test_a_drill_through_every_kind_of_failure(
    rig: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy
) -> None:
    """The restore goes on where it was, and every table is the original."""
    rig.back_up(s3.open())
    proxy.rule = in_turn(
        [
            ("manifest", lambda one: "/manifest.json?versionId=" in one.path, SILENT),
            ("check", lambda one: one.method == "HEAD", BROKEN),
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


def test_every_tenth_request_is_throttled(
    small: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy
) -> None:
    """Backups and drills come out right, one after the other."""
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
def test_a_store_that_stays_down_is_an_error_in_bounded_time(
    rig: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy, fault: Fault
) -> None:
    """The error names the object; pg_dump is ended, nothing is listed, and then it works again."""
    proxy.rule = lambda one: fault if "partNumber=2" in one.path else None
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"Cannot write 'courier/.*enc' in s3://") as caught:
        rig.back_up(s3_through_proxy.open(read_timeout=0.5, max_attempts=2))
    assert time.monotonic() - begun < 30
    assert proxy.faults == 2
    assert caught.value.action
    assert rig.points(s3.open()) == []
    assert list(s3.open().list()) == []
    assert unfinished_uploads(client_for(s3.place), s3.bucket) == 0


def test_a_store_that_dies_while_a_drill_reads(
    rig: Rig, s3: StorePlace, s3_through_proxy: StorePlace, proxy: FaultyProxy
) -> None:
    """The error names the object, and the scratch database is gone."""
    rig.back_up(s3.open())
    asked = iter(range(1_000))

    def rule(request: ProxiedRequest) -> Fault | None:
        number = next(asked) if reading(request) else 0  # the head is read first, and well
        if number == 0:
            return None
        return Fault(reset_download_after=2_000_000) if number <= 2 else BROKEN

    proxy.rule = rule
    with pytest.raises(StoreError, match=r"Cannot read 'courier/.*enc'"):
        rig.drill(s3_through_proxy.open(max_attempts=2))
    assert proxy.faults >= 3
    assert rig.scratch_names() == rig.owed_scratch() == []


def test_a_full_store(rig: Rig, small_disk: Path) -> None:
    """Says that the disk is full, keeps nothing of the attempt, works when there is space."""
    store = DirectoryStore(small_disk, "beijing")
    with pytest.raises(StoreError, match="No space left on device") as caught:
        rig.back_up(store)
    assert "Free space" in caught.value.action
    assert rig.points(store) == []
    assert [one for one in small_disk.rglob("*") if one.is_file()] == []
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    rig.back_up(store)
    assert len(rig.points(store)) == 1


def findings_of(offsite: Offsite) -> dict[str, Outcome]:
    record = preflight_record(offsite, mapped(), FixedClock(now()))
    assert record.outcome == Outcome.worst(
        [Outcome.PASS, *(one.severity for one in record.findings)]
    )
    assert all(one.message.text and one.action.text for one in record.findings)
    return {one.code: one.severity for one in record.findings}


@pytest.mark.parametrize(
    ("bucket", "code", "error"),
    [
        pytest.param("missing", "backup.store.missing", "the bucket does not exist", id="missing"),
        pytest.param("bare", "backup.store.no_versioning", None, id="without versioning"),
        pytest.param("bare", "backup.store.no_object_lock", None, id="without Object Lock"),
    ],
)
def test_an_unfit_bucket(
    small: Rig, moto: MotoServer, bucket: str, code: str, error: str | None
) -> None:
    """The preflight fails and says what to do; a backup all the same is recorded by nobody."""
    client = client_for(moto.endpoint)
    name = new_bucket(client, lock=False) if bucket == "bare" else "there-is-none"
    store = S3Store(client, name, "p", "beijing")
    assert findings_of(small.keys.offsite(store))[code] == Outcome.FAIL
    with pytest.raises(StoreError, match=error or "Cannot lock 'courier/"):
        small.back_up(store)
    if bucket == "bare":
        assert small.points(store) == []
        assert unfinished_uploads(client, name) == 0


def test_a_sound_place_has_no_findings(small: Rig, s3: StorePlace) -> None:
    """What the other tests of the preflight compare with."""
    assert findings_of(small.keys.offsite(s3.open())) == {}


def test_a_store_on_the_primarys_site(small: Rig, s3: StorePlace) -> None:
    """Not off-site: the preflight fails."""
    store = S3Store(client_for(s3.place), s3.bucket, "p", "shanghai")
    assert findings_of(small.keys.offsite(store)) == {"backup.site.same": Outcome.FAIL}


def test_recipients_that_cannot_be_used(small: Rig, s3: StorePlace) -> None:
    """A missing key, an expired one, and one key under two names: each fails the preflight."""
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


def test_a_run_that_was_killed_after_it_had_published(small: Rig, s3: StorePlace) -> None:
    """Its second try takes no second restore point, and says the same of the first."""
    store = s3.open()
    record, first = small.back_up(store)
    tried, same = small.back_up(store, again=True)
    assert same == first
    assert [one.id for one in small.points(store)] == [first.id]
    assert tried.data["published_by_an_earlier_try"]
    assert tried.data["seconds"] is None  # a second of looking is no backup in a second
    assert tried.findings == record.findings
    _record, other = small.back_up(store, again=True, run_id="another run")
    assert other.id != first.id


def test_a_clock_that_moved_back(small: Rig, place: StorePlace) -> None:
    """A worker's clock two hours slow after a correct one: both restore points stand.

    A drill under the slow clock says that the age of the newest point cannot be told: no pass.
    """
    store: ObjectStore = place.open()
    _, first = small.back_up(store, clock=FixedClock(now()))
    record, second = small.back_up(store, clock=FixedClock(now() - timedelta(hours=2)))
    assert [one.id for one in small.points(store)] == [first.id, second.id]
    assert record.findings == []
    behind = replace(small, clock=FixedClock(now() - timedelta(hours=2)))
    drilled = behind.drill(store)
    assert drilled.outcome == Outcome.FAIL
    assert [one.code for one in drilled.findings] == ["drill.from_the_future"]
    assert small.drill(store).outcome == Outcome.PASS
    with pytest.raises(ServiceError):
        store.delete(first.dump.key)
