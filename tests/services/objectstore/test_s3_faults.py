"""Test S3 stores with errors, throttling and lost connections.

The result is either the correct bytes or a clear error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from include.services.objectstore import s3_streams
from include.services.objectstore.base import StoreError
from include.services.objectstore.s3 import S3Store
from tests.services.objectstore.test_behaviour import content
from tests.support.faulty_proxy import Fault, FaultyProxy, ProxiedRequest, every, first
from tests.support.s3 import MotoServer, client_for, new_bucket, unfinished_uploads

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.fault

SIZE = 40_000_000
SLOW_DOWN = Fault(status=503, code="SlowDown")
BROKEN = Fault(status=500, code="InternalError")


class Rig:
    """An S3 store behind a proxy that causes faults, and a client that uses the bucket directly."""

    def __init__(self, moto: MotoServer) -> None:
        self.direct: S3Client = client_for(moto.endpoint)
        self.bucket = new_bucket(self.direct)
        self.proxy = FaultyProxy(moto.endpoint)
        self.sound = S3Store(self.direct, self.bucket, "p")

    def store(self, **settings: float) -> S3Store:
        client = client_for(self.proxy.endpoint, **({"read_timeout": 20} | settings))
        return S3Store(client, self.bucket, "p")


@pytest.fixture
def rig(moto: MotoServer) -> Iterator[Rig]:
    rig = Rig(moto)
    yield rig
    rig.proxy.stop()


def is_part(request: ProxiedRequest) -> bool:
    return request.method == "PUT" and "partNumber=" in request.path


def is_get(request: ProxiedRequest) -> bool:
    return request.method == "GET"


def is_completion(request: ProxiedRequest) -> bool:
    return request.method == "POST" and "uploadId=" in request.path


def write(store: S3Store, size: int = SIZE) -> None:
    view = memoryview(content(size))
    with store.open_writer("x") as writer:
        for start in range(0, size, 1_000_000):
            writer.write(view[start : start + 1_000_000])
        stored = writer.commit()
    store.verify(stored)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(BROKEN, id="500"),
        pytest.param(SLOW_DOWN, id="throttled"),
        pytest.param(Fault(reset_upload_after=5_000_000), id="reset"),
        pytest.param(Fault(hang_seconds=15), id="hang"),
        pytest.param(Fault(lose_answer=True), id="answer lost"),
    ],
)
def test_upload_succeeds_if_the_first_attempt_of_a_part_fails(rig: Rig, fault: Fault) -> None:
    """The object is complete, and no unfinished upload remains."""
    rig.proxy.rule = first(1, is_part, fault)
    write(rig.store(**({"read_timeout": 5} if fault.hang_seconds else {})))
    assert rig.proxy.faults == 1
    assert rig.sound.get("x") == content(SIZE)
    assert unfinished_uploads(rig.direct, rig.bucket) == 0


def test_upload_succeeds_if_transfer_of_a_part_takes_longer_than_the_timeouts(rig: Rig) -> None:
    """The transfer of a part may take longer than the timeouts if bytes keep arriving."""
    rig.proxy.rule = first(1, is_part, Fault(slow_upload_seconds=10))
    write(rig.store(connect_timeout=6, read_timeout=6, max_attempts=1))
    assert rig.proxy.faults == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(BROKEN, id="500"),
        pytest.param(SLOW_DOWN, id="throttled"),
        pytest.param(Fault(reset_download_after=3_000_000), id="reset"),
        pytest.param(Fault(reset_download_after=0), id="reset at once"),
        pytest.param(Fault(hang_seconds=15), id="hang"),
    ],
)
def test_download_is_complete_after_two_failed_or_interrupted_responses(
    rig: Rig, fault: Fault
) -> None:
    """The first two responses fail or break off.

    The reader continues after the last received byte.
    """
    rig.sound.put("x", content(20_000_000))
    rig.proxy.rule = first(2, is_get, fault)
    settings = {"read_timeout": 5} if fault.hang_seconds else {}
    with rig.store(**settings).open_reader("x") as reader:
        pieces = list(iter(lambda: reader.read(700_000), b""))
    assert b"".join(pieces) == content(20_000_000)
    assert rig.proxy.faults == 2


def test_resumed_download_reads_old_version_if_object_was_replaced(rig: Rig) -> None:
    """The object is replaced before the download resumes. The old version is read to its end."""
    rig.sound.put("x", content(9_000_000, seed=1))
    rig.proxy.rule = first(1, is_get, Fault(reset_download_after=3_000_000))
    with rig.store().open_reader("x") as reader:
        start = reader.read(1_000_000)
        rig.sound.put("x", content(9_000_000, seed=2))
        assert start + reader.read() == content(9_000_000, seed=1)
    assert rig.proxy.faults == 1


def test_resumed_download_fails_if_object_was_replaced_in_bucket_without_versions(rig: Rig) -> None:
    """In a bucket without versions, the old object no longer exists."""
    rig.bucket = new_bucket(rig.direct, lock=False)
    sound = S3Store(rig.direct, rig.bucket, "p")
    sound.put("x", content(9_000_000, seed=1))
    rig.proxy.rule = first(1, is_get, Fault(reset_download_after=3_000_000))
    with rig.store().open_reader("x") as reader:
        reader.read(1_000_000)
        sound.put("x", content(9_000_000, seed=2))
        with pytest.raises(StoreError, match="replaced meanwhile"):
            reader.read()


def test_operations_succeed_if_every_tenth_request_is_throttled(rig: Rig) -> None:
    rig.proxy.rule = every(10, SLOW_DOWN)
    store = rig.store()
    write(store)
    for number in range(3):
        store.put(f"many/{number:02}", str(number).encode())
    assert [item.key for item in store.list("many/")] == [f"many/{n:02}" for n in range(3)]
    assert store.get("x") == content(SIZE)
    for item in list(store.list()):
        store.delete(item.key)
    assert list(rig.sound.list()) == []
    assert rig.proxy.faults >= 2


def test_upload_succeeds_if_response_to_its_completion_is_lost(rig: Rig) -> None:
    """When the request is repeated, S3 no longer knows the upload.

    The object with the sent size and checksum shows that the first request has succeeded.
    """
    completions: list[ProxiedRequest] = []

    def lose_first(request: ProxiedRequest) -> Fault | None:
        if not is_completion(request):
            return None
        completions.append(request)
        if len(completions) == 1:
            return Fault(lose_answer=True)
        return Fault(status=404, code="NoSuchUpload")

    rig.proxy.rule = lose_first
    write(rig.store())
    assert len(completions) == 2
    assert rig.sound.get("x") == content(SIZE)


def test_commit_fails_if_upload_was_aborted_and_another_object_has_the_same_key(rig: Rig) -> None:
    """Another client aborted the upload, and another object has the same key."""
    rig.sound.put("x", content(SIZE, seed=2))
    writer = rig.store().open_writer("x")
    writer.write(content(SIZE))
    rig.proxy.rule = lambda request: (
        Fault(status=404, code="NoSuchUpload") if is_completion(request) else None
    )
    with pytest.raises(StoreError, match="'x'"):
        writer.commit()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(BROKEN, id="500"),
        pytest.param(Fault(reset_upload_after=0), id="reset"),
        pytest.param(Fault(hang_seconds=3), id="hang"),
    ],
)
def test_permanently_failing_upload_raises_store_error_within_20_seconds(
    rig: Rig, fault: Fault
) -> None:
    """The error names the store, the key and an action.

    No object and no unfinished upload remain.
    """
    rig.proxy.rule = lambda request: fault if is_part(request) else None
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        write(rig.store(connect_timeout=0.5, read_timeout=0.5, max_attempts=2))
    assert time.monotonic() - begun < 20
    assert "Cannot write 'x' in s3://" in str(caught.value)
    assert caught.value.action
    assert list(rig.sound.list()) == []
    assert unfinished_uploads(rig.direct, rig.bucket) == 0


def test_download_raises_store_error_if_no_more_bytes_arrive(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.sound.put("x", content(9_000_000))
    monkeypatch.setattr(s3_streams, "_FIRST_PAUSE_SECONDS", 0.01)
    rig.proxy.rule = lambda request: Fault(reset_download_after=0) if is_get(request) else None
    with rig.store().open_reader("x") as reader, pytest.raises(StoreError, match="Cannot read 'x'"):
        reader.read()
    assert 3 <= rig.proxy.faults <= 10


def test_upload_that_cannot_be_aborted_is_deleted_by_clear_abandoned(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the code that writes is raised, and the failed abort is only logged."""
    rig.proxy.rule = lambda request: BROKEN if request.method == "DELETE" else None

    def fail_half_way() -> None:
        with rig.store(max_attempts=1).open_writer("x") as writer:
            writer.write(content(SIZE))
            raise RuntimeError("producer failed")

    with pytest.raises(RuntimeError, match="producer"):
        fail_half_way()
    assert "until the next run clears it" in caplog.text
    assert rig.sound.clear_abandoned() == 1
    assert unfinished_uploads(rig.direct, rig.bucket) == 0


@pytest.mark.parametrize("status", [401, 403])
def test_preflight_reports_denied_access_if_store_responds_with_status_401_or_403(
    rig: Rig, status: int
) -> None:
    """Wrong credentials must not be reported as a missing bucket."""
    rig.proxy.rule = lambda _: Fault(status=status, code="AccessDenied")
    assert [problem.code for problem in rig.store().preflight()] == ["denied"]


def test_preflight_reports_read_only_account(rig: Rig) -> None:
    rig.proxy.rule = lambda request: (
        Fault(status=403, code="AccessDenied") if request.method in {"PUT", "POST"} else None
    )
    problems = rig.store().preflight()
    assert [problem.code for problem in problems] == ["not_writable"]
    assert "denied" in problems[0].detail
