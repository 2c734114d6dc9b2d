"""What only S3 does: versions, checksums, Object Lock, bucket checks, errors without secrets."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from include.services.errors import UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    StoreError,
)
from include.services.objectstore.s3 import S3Store, make_s3_client
from include.services.objectstore.s3_streams import (
    FIRST_PART_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PARTS,
    part_bytes,
)
from tests.services.objectstore.test_behaviour import THREE_PARTS, content
from tests.support.faulty_proxy import FaultyProxy
from tests.support.s3 import (
    SECRET_KEY,
    MotoServer,
    client_for,
    new_bucket,
    unfinished_uploads,
)


def part_sizes() -> Iterator[int]:
    sent = 0
    while sent < MAX_OBJECT_BYTES:
        size = part_bytes(sent)
        yield size
        sent += size


def test_parts_reach_the_largest_object() -> None:
    """10,000 parts hold 5 TiB, none beyond S3's 5 GiB, small ones for the first 16 GiB."""
    sizes = list(part_sizes())
    assert len(sizes) <= MAX_PARTS
    assert max(sizes) <= 5 * 1024**3
    assert sizes[0] == FIRST_PART_BYTES
    assert part_bytes(16 * 1024**3) < 25 * 1024**2


def test_the_composite_checksum_follows_the_rule_of_s3(s3_store: S3Store) -> None:
    """SHA-256 over the parts' digests, with the number of parts."""
    with s3_store.open_writer("x") as writer:
        writer.write(content(THREE_PARTS))
        stored = writer.commit()
    first = part_bytes(0)
    second = first + part_bytes(first)
    data = content(THREE_PARTS)
    digests = [
        hashlib.sha256(part).digest() for part in (data[:first], data[first:second], data[second:])
    ]
    combined = base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()
    assert stored.checksum == f"{combined}-3"


def test_a_small_object_is_one_request(moto: MotoServer) -> None:
    """Up to 16 MiB no multipart upload is begun."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    with FaultyProxy(moto.endpoint) as proxy:
        store = S3Store(client_for(proxy.endpoint), bucket)
        with store.open_writer("x") as writer:
            writer.write(bytes(FIRST_PART_BYTES))
            writer.commit()
        assert [request.method for request in proxy.requests] == ["PUT", "HEAD"]


@pytest.mark.parametrize("checksum", ["composite", ""])
def test_a_hidden_locked_version_is_verified_and_read(
    moto: MotoServer, s3_store: S3Store, tomorrow: datetime, checksum: str
) -> None:
    """Neither an overwrite nor a delete marker makes a recorded version unusable."""
    stored = s3_store.put("x", b"locked", locked_until=tomorrow)
    expected = stored if checksum else replace(stored, checksum="")
    s3_store.put("x", b"intruder")
    delete_plainly(moto, s3_store, "x")
    s3_store.verify(expected)
    assert s3_store.get("x", version_id=stored.version_id) == b"locked"
    assert s3_store.stat("x", version_id=stored.version_id).locked_until is not None
    with pytest.raises(ObjectDamaged):
        s3_store.verify(replace(expected, sha256="0" * 64, checksum="0" * 44))
    with pytest.raises(ObjectMissing):
        s3_store.verify(replace(expected, version_id="00000000-0000-0000-0000-000000000000"))


def delete_plainly(moto: MotoServer, store: S3Store, key: str) -> None:
    """Delete as any S3 client does, which only adds a marker."""
    bucket = store.description.split("/")[2]
    client_for(moto.endpoint).delete_object(Bucket=bucket, Key=f"off site/备份/{key}")


def test_versions_are_listed_newest_first_with_their_markers(
    moto: MotoServer, s3_store: S3Store
) -> None:
    """Each version can be read by its id, markers are told apart, other prefixes are left out."""
    first, second = s3_store.put("a/x", b"1"), s3_store.put("a/x", b"22")
    delete_plainly(moto, s3_store, "a/x")
    other = s3_store.put("a/y", b"3")
    s3_store.put("b", b"4")
    versions = list(s3_store.list_versions("a/"))
    assert [(one.key, one.size, one.is_current, one.is_marker) for one in versions] == [
        ("a/x", 0, True, True),
        ("a/x", 2, False, False),
        ("a/x", 1, False, False),
        ("a/y", 1, True, False),
    ]
    ids = [one.version_id for one in versions[1:]]
    assert ids == [second.version_id, first.version_id, other.version_id]
    assert s3_store.get("a/x", version_id=ids[1]) == b"1"


def test_folder_of_which_only_delete_markers_are_left_is_listed(
    moto: MotoServer, s3_store: S3Store
) -> None:
    s3_store.put("a/gone/x", b"1")
    delete_plainly(moto, s3_store, "a/gone/x")
    assert list(s3_store.folders("a/")) == ["gone"]


def test_versions_of_a_bucket_without_versioning_have_no_id(moto: MotoServer) -> None:
    """What is listed there is read like any object."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client, lock=False))
    store.put("x", b"1")
    (version,) = store.list_versions()
    assert (version.version_id, version.is_current) == ("", True)
    assert store.get("x", version_id=version.version_id) == b"1"


def test_a_hidden_version_is_locked_by_its_id(
    moto: MotoServer, s3_store: S3Store, tomorrow: datetime
) -> None:
    """The lock lands on what was written, whatever is current now."""
    stored = s3_store.put("x", b"ours")
    s3_store.put("x", b"intruder")
    s3_store.lock("x", tomorrow, version_id=stored.version_id)
    assert s3_store.stat("x", version_id=stored.version_id).locked_until is not None
    assert s3_store.stat("x").locked_until is None
    delete_plainly(moto, s3_store, "x")
    s3_store.lock("x", tomorrow + timedelta(days=1), version_id=stored.version_id)


@pytest.mark.parametrize("survives", [1, 2, 3])
def test_an_interrupted_deletion_brings_no_version_back(
    moto: MotoServer, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """Whatever the step after which it ends, what is current stays current or is gone."""
    for data in (b"first", b"second"):
        s3_store.put("x", data)
    delete_plainly(moto, s3_store, "x")
    s3_store.put("x", b"newest")
    client, deleted = client_for(moto.endpoint), 0
    delete_object = client.delete_object

    def interrupted(**request: Any) -> Any:
        nonlocal deleted
        if deleted == 4 - survives:
            raise KeyboardInterrupt
        deleted += 1
        return delete_object(**request)

    with monkeypatch.context() as patch:
        patch.setattr(client, "delete_object", interrupted)
        with pytest.raises(KeyboardInterrupt):
            s3_store.delete("x")
    assert s3_store.get("x") == b"newest"
    assert len(list(s3_store.list_versions("x"))) == survives


def test_delete_checks_all_locks_before_it_removes_an_unlocked_older_version(
    s3_store: S3Store, tomorrow: datetime
) -> None:
    """The oldest version goes first only when all may go."""
    old = s3_store.put("x", b"old")
    s3_store.put("x", b"new", locked_until=tomorrow)
    with pytest.raises(ObjectLocked):
        s3_store.delete("x")
    assert s3_store.get("x", version_id=old.version_id) == b"old"


def test_a_reader_keeps_to_its_version(s3_store: S3Store) -> None:
    """An object replaced while it is read is read to its old end."""
    s3_store.put("x", b"old")
    with s3_store.open_reader("x") as reader:
        s3_store.put("x", b"replaced")
        assert reader.read() == b"old"


def test_delete_leaves_no_version_and_no_marker(s3_store: S3Store, moto: MotoServer) -> None:
    """Also when somebody deleted the plain way before, which only adds a marker."""
    client = client_for(moto.endpoint)
    bucket = s3_store.description.split("/")[2]
    for data in (b"1", b"2"):
        s3_store.put("x", data)
    client.delete_object(Bucket=bucket, Key="off site/备份/x")
    assert list(s3_store.list()) == []
    s3_store.delete("x")
    left = client.list_object_versions(Bucket=bucket)
    assert left.get("Versions", []) == []
    assert left.get("DeleteMarkers", []) == []


def test_delete_removes_nothing_when_an_old_version_is_locked(
    s3_store: S3Store, tomorrow: datetime
) -> None:
    """The unlocked newer version is not taken either: all or nothing."""
    old = s3_store.put("x", b"old", locked_until=tomorrow)
    s3_store.put("x", b"new")
    with pytest.raises(ObjectLocked):
        s3_store.delete("x")
    assert s3_store.get("x") == b"new"
    assert s3_store.get("x", version_id=old.version_id) == b"old"


def test_a_legal_hold_is_named(s3_store: S3Store, moto: MotoServer) -> None:
    """A hold set in the console keeps the object as a retention does."""
    s3_store.put("x", b"1")
    bucket = s3_store.description.split("/")[2]
    client_for(moto.endpoint).put_object_legal_hold(
        Bucket=bucket, Key="off site/备份/x", LegalHold={"Status": "ON"}
    )
    with pytest.raises(ObjectLocked, match="legal hold"):
        s3_store.delete("x")


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_the_lock_mode_is_the_configured_one(
    moto: MotoServer, tomorrow: datetime, mode: Any
) -> None:
    """Both ways to lock use it."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, lock_mode=mode)
    store.put("put", b"1", locked_until=tomorrow)
    store.put("locked", b"1")
    store.lock("locked", tomorrow)
    for key in ("put", "locked"):
        assert client.head_object(Bucket=bucket, Key=key)["ObjectLockMode"] == mode


def test_default_retention_of_the_bucket_locks_too(moto: MotoServer) -> None:
    """Objects locked by the bucket itself are told apart from other refusals."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client, default_lock_days=1))
    assert store.put("x", b"1").locked_until is not None
    with pytest.raises(ObjectLocked, match="until"):
        store.delete("x")


@pytest.mark.parametrize(
    ("lock", "days", "codes"),
    [(True, 0, []), (True, 1, []), (False, 0, ["no_versioning", "no_object_lock"])],
)
def test_preflight_of_buckets(moto: MotoServer, lock: bool, days: int, codes: list[str]) -> None:
    """Fit, fit with default retention, neither versions nor Object Lock; no probe is left."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client, lock=lock, default_lock_days=days)
    store = S3Store(client, bucket, "p")
    assert [problem.code for problem in store.preflight()] == codes
    left = client.list_object_versions(Bucket=bucket)
    assert left.get("Versions", []) + left.get("DeleteMarkers", []) == []
    assert unfinished_uploads(client, bucket) == 0


def test_preflight_without_a_bucket_or_a_server(moto: MotoServer) -> None:
    """Missing and unreachable are told apart."""
    missing = S3Store(client_for(moto.endpoint), "no-such-bucket").preflight()
    assert [problem.code for problem in missing] == ["missing"]
    nobody = client_for("http://127.0.0.1:9", max_attempts=1)
    assert [problem.code for problem in S3Store(nobody, "b").preflight()] == ["unreachable"]


def test_a_missing_bucket_is_no_empty_store(moto: MotoServer) -> None:
    """Nothing reports an object as merely missing, or deleted, when the bucket is gone."""
    store = S3Store(client_for(moto.endpoint), "no-such-bucket")
    calls = [
        lambda: store.put("x", b"1"),
        lambda: store.get("x"),
        lambda: store.stat("x"),
        lambda: store.delete("x"),
        lambda: list(store.list()),
        lambda: store.clear_abandoned(),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="bucket does not exist") as caught:
            call()
        assert not isinstance(caught.value, ObjectMissing)
        assert SECRET_KEY not in str(caught.value)


def test_locking_without_object_lock_is_refused(moto: MotoServer, tomorrow: datetime) -> None:
    """A lock that cannot be kept is not pretended."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client, lock=False))
    store.put("x", b"1")
    with pytest.raises(StoreError, match="Object Lock"):
        store.lock("x", tomorrow)
    with pytest.raises(StoreError, match="Object Lock"):
        store.put("y", b"1", locked_until=tomorrow)
    store.delete("x")
    assert list(store.list()) == []


def test_an_object_without_sha256_is_compared_by_etag_or_read(
    s3_store: S3Store, moto: MotoServer
) -> None:
    """As a service that keeps no SHA-256 would give it."""
    client = client_for(moto.endpoint)
    bucket = s3_store.description.split("/")[2]
    client.put_object(Bucket=bucket, Key="off site/备份/x", Body=b"foreign")
    found = s3_store.stat("x")
    assert found.checksum.startswith("etag:")
    s3_store.verify(found)
    digest = hashlib.sha256(b"foreign").hexdigest()
    s3_store.verify(replace(found, checksum="sha-256 of old", sha256=digest))
    with pytest.raises(ObjectDamaged):
        s3_store.verify(replace(found, checksum="etag:0"))
    with pytest.raises(ObjectDamaged):
        s3_store.verify(replace(found, checksum="", sha256="0" * 64))


def test_the_client_is_careful_by_default() -> None:
    """TLS verified, retries with backoff, timeouts, path-style where an endpoint is named."""
    client = make_s3_client("https://s3.example.com", "cn-north-1", "k", "s")
    config: Any = client.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 6}
    assert (config.connect_timeout, config.read_timeout) == (10, 60)
    assert config.s3["addressing_style"] == "path"
    assert client._endpoint.http_session._verify is True  # type: ignore[attr-defined]
    assert S3Store(client, "b", "p").description == "s3://b/p/ at s3.example.com"
    plain = make_s3_client(None, "cn-north-1", "k", "s")
    assert S3Store(plain, "b", "p").description == "s3://b/p/"


@pytest.mark.parametrize("endpoint", ["not a url", "s3.example.com", "http://user:geheim@"])
def test_a_malformed_endpoint_is_a_usage_error(endpoint: str) -> None:
    """Named without repeating it: it may hold a password."""
    with pytest.raises(UsageError) as caught:
        make_s3_client(endpoint, "x", "k", "s")
    assert "geheim" not in str(caught.value)


def test_no_description_shows_a_password() -> None:
    """Credentials in the endpoint's URL stay out of what people read."""
    client = make_s3_client("http://user:geheim@127.0.0.1:9", "x", "k", "s", max_attempts=1)
    store = S3Store(client, "b")
    assert store.description == "s3://b/ at 127.0.0.1:9"
    with pytest.raises(StoreError) as caught:
        store.get("x")
    assert "geheim" not in str(caught.value)
    assert "geheim" not in str(store.preflight())


def test_a_lock_ends_on_a_whole_second(s3_store: S3Store) -> None:
    """S3 keeps no fractions; rounding never shortens."""
    end = datetime(2126, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    stored = s3_store.put("x", b"1", locked_until=end)
    assert stored.locked_until == datetime(2126, 1, 1, 0, 0, 1, tzinfo=UTC)
    with pytest.raises(ObjectLocked):
        s3_store.lock("x", end - timedelta(seconds=1))


def test_boto_errors_stay_as_the_cause(s3_store: S3Store) -> None:
    """For the log, not for people."""
    with pytest.raises(ObjectMissing) as caught:
        s3_store.get("x")
    assert isinstance(caught.value.__cause__, ClientError)


def test_preflight_of_login_that_may_not_delete_deletes_nothing(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins an upload and aborts it, so that it finds whether the login may write."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client, lock=True)
    monkeypatch.setattr(client, "delete_object", None)
    store = S3Store(client, bucket, may_delete=False)
    assert store.preflight() == []
    assert client.list_object_versions(Bucket=bucket).get("Versions", []) == []
