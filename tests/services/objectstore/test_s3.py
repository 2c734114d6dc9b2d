"""Test the special features of S3 stores: versions, checksums, Object Lock, error messages."""

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


def test_part_sizes_allow_an_object_of_five_tebibytes() -> None:
    """S3 allows 10,000 parts of at most 5 GiB, and objects of at most 5 TiB."""
    sizes = list(part_sizes())
    assert len(sizes) <= MAX_PARTS
    assert max(sizes) <= 5 * 1024**3
    assert sizes[0] == FIRST_PART_BYTES
    assert part_bytes(16 * 1024**3) < 25 * 1024**2


def test_checksum_of_multipart_object_is_sha256_of_part_digests_and_number_of_parts(
    s3_store: S3Store,
) -> None:
    """S3 computes the SHA-256 of all parts' digests in sequence, and appends their number."""
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


def test_small_object_is_sent_without_multipart_upload(moto: MotoServer) -> None:
    """Objects of up to 16 MiB are sent in this way."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    with FaultyProxy(moto.endpoint) as proxy:
        store = S3Store(client_for(proxy.endpoint), bucket)
        with store.open_writer("x") as writer:
            writer.write(bytes(FIRST_PART_BYTES))
            writer.commit()
        assert [request.method for request in proxy.requests] == ["PUT", "HEAD"]


@pytest.mark.parametrize("checksum", ["composite", ""])
def test_locked_version_can_be_verified_and_read_after_overwrite_and_delete_marker(
    moto: MotoServer, s3_store: S3Store, tomorrow: datetime, checksum: str
) -> None:
    """An overwrite or a delete marker hides the version."""
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
    """Delete an object without its version id, which only adds a delete marker."""
    bucket = store.description.split("/")[2]
    client_for(moto.endpoint).delete_object(Bucket=bucket, Key=f"off site/备份/{key}")


def test_versions_are_listed_newest_first_with_delete_markers(
    moto: MotoServer, s3_store: S3Store
) -> None:
    """Each version can be read by its id, and objects under other prefixes are not listed."""
    first, second = s3_store.put("a/x", b"1"), s3_store.put("a/x", b"22")
    delete_plainly(moto, s3_store, "a/x")
    other = s3_store.put("a/y", b"3")
    s3_store.put("b", b"4")
    versions = list(s3_store.list_versions("a/"))
    assert [
        (version.key, version.size, version.is_current, version.is_marker) for version in versions
    ] == [
        ("a/x", 0, True, True),
        ("a/x", 2, False, False),
        ("a/x", 1, False, False),
        ("a/y", 1, True, False),
    ]
    ids = [version.version_id for version in versions[1:]]
    assert ids == [second.version_id, first.version_id, other.version_id]
    assert s3_store.get("a/x", version_id=ids[1]) == b"1"


def test_folder_that_contains_only_deleted_objects_is_listed(
    moto: MotoServer, s3_store: S3Store
) -> None:
    s3_store.put("a/gone/x", b"1")
    delete_plainly(moto, s3_store, "a/gone/x")
    assert list(s3_store.folders("a/")) == ["gone"]


def test_versions_of_bucket_without_versioning_have_no_id(moto: MotoServer) -> None:
    """Each listed version can be read like any object."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client, lock=False))
    store.put("x", b"1")
    (version,) = store.list_versions()
    assert (version.version_id, version.is_current) == ("", True)
    assert store.get("x", version_id=version.version_id) == b"1"


def test_lock_with_version_id_locks_this_version_and_not_the_current_version(
    moto: MotoServer, s3_store: S3Store, tomorrow: datetime
) -> None:
    """The lock is set on the version that the store wrote, not on the current version."""
    stored = s3_store.put("x", b"ours")
    s3_store.put("x", b"intruder")
    s3_store.lock("x", tomorrow, version_id=stored.version_id)
    assert s3_store.stat("x", version_id=stored.version_id).locked_until is not None
    assert s3_store.stat("x").locked_until is None
    delete_plainly(moto, s3_store, "x")
    s3_store.lock("x", tomorrow + timedelta(days=1), version_id=stored.version_id)


@pytest.mark.parametrize("survives", [1, 2, 3])
def test_interrupted_deletion_never_makes_an_older_version_readable_as_current(
    moto: MotoServer, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """Wherever a deletion is interrupted, readers find the latest version or no object."""
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


def test_delete_removes_no_version_if_the_newest_version_is_locked(
    s3_store: S3Store, tomorrow: datetime
) -> None:
    """The oldest version is deleted first, but only if all versions may be deleted."""
    old = s3_store.put("x", b"old")
    s3_store.put("x", b"new", locked_until=tomorrow)
    with pytest.raises(ObjectLocked):
        s3_store.delete("x")
    assert s3_store.get("x", version_id=old.version_id) == b"old"


def test_reader_that_was_opened_before_object_was_replaced_reads_old_version(
    s3_store: S3Store,
) -> None:
    s3_store.put("x", b"old")
    with s3_store.open_reader("x") as reader:
        s3_store.put("x", b"replaced")
        assert reader.read() == b"old"


def test_delete_removes_all_versions_and_delete_markers_of_object(
    s3_store: S3Store, moto: MotoServer
) -> None:
    """This also applies after a delete request without a version id, which only adds a marker."""
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


def test_delete_removes_nothing_if_an_old_version_is_locked(
    s3_store: S3Store, tomorrow: datetime
) -> None:
    """The newer version, which is not locked, is kept too."""
    old = s3_store.put("x", b"old", locked_until=tomorrow)
    s3_store.put("x", b"new")
    with pytest.raises(ObjectLocked):
        s3_store.delete("x")
    assert s3_store.get("x") == b"new"
    assert s3_store.get("x", version_id=old.version_id) == b"old"


def test_error_for_deletion_of_object_on_s3_legal_hold_mentions_the_hold(
    s3_store: S3Store, moto: MotoServer
) -> None:
    """An S3 legal hold, which a user set in the S3 console, protects the object like a lock."""
    s3_store.put("x", b"1")
    bucket = s3_store.description.split("/")[2]
    client_for(moto.endpoint).put_object_legal_hold(
        Bucket=bucket, Key="off site/备份/x", LegalHold={"Status": "ON"}
    )
    with pytest.raises(ObjectLocked, match="legal hold"):
        s3_store.delete("x")


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
def test_object_lock_has_the_mode_that_the_store_was_configured_with(
    moto: MotoServer, tomorrow: datetime, mode: Any
) -> None:
    """This applies to locks of `put` and of `lock`."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, lock_mode=mode)
    store.put("put", b"1", locked_until=tomorrow)
    store.put("locked", b"1")
    store.lock("locked", tomorrow)
    for key in ("put", "locked"):
        assert client.head_object(Bucket=bucket, Key=key)["ObjectLockMode"] == mode


def test_new_object_is_locked_if_bucket_has_default_retention(moto: MotoServer) -> None:
    """The error of a refused deletion names the lock."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client, default_lock_days=1))
    assert store.put("x", b"1").locked_until is not None
    with pytest.raises(ObjectLocked, match="until"):
        store.delete("x")


@pytest.mark.parametrize(
    ("lock", "days", "codes"),
    [(True, 0, []), (True, 1, []), (False, 0, ["no_versioning", "no_object_lock"])],
)
def test_preflight_reports_missing_object_lock_of_bucket_and_accepts_default_retention(
    moto: MotoServer, lock: bool, days: int, codes: list[str]
) -> None:
    """Cases: a valid bucket, a bucket with default retention, and a bucket without Object Lock."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client, lock=lock, default_lock_days=days)
    store = S3Store(client, bucket, "p")
    assert [problem.code for problem in store.preflight()] == codes
    left = client.list_object_versions(Bucket=bucket)
    assert left.get("Versions", []) + left.get("DeleteMarkers", []) == []
    assert unfinished_uploads(client, bucket) == 0


def test_preflight_distinguishes_missing_bucket_from_unreachable_server(moto: MotoServer) -> None:
    missing = S3Store(client_for(moto.endpoint), "no-such-bucket").preflight()
    assert [problem.code for problem in missing] == ["missing"]
    nobody = client_for("http://127.0.0.1:9", max_attempts=1)
    assert [problem.code for problem in S3Store(nobody, "b").preflight()] == ["unreachable"]


def test_store_operations_raise_store_error_if_bucket_is_missing(moto: MotoServer) -> None:
    """If the bucket is missing, its objects must not be reported as missing or as deleted."""
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


def test_locking_an_object_raises_store_error_if_bucket_has_no_object_lock(
    moto: MotoServer, tomorrow: datetime
) -> None:
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client, lock=False))
    store.put("x", b"1")
    with pytest.raises(StoreError, match="Object Lock"):
        store.lock("x", tomorrow)
    with pytest.raises(StoreError, match="Object Lock"):
        store.put("y", b"1", locked_until=tomorrow)
    store.delete("x")
    assert list(store.list()) == []


def test_object_without_sha256_is_verified_by_etag_or_by_reading(
    s3_store: S3Store, moto: MotoServer
) -> None:
    """Some services store no SHA-256."""
    client = client_for(moto.endpoint)
    bucket = s3_store.description.split("/")[2]
    client.put_object(Bucket=bucket, Key="off site/备份/x", Body=b"foreign")
    stored = s3_store.stat("x")
    assert stored.checksum.startswith("etag:")
    s3_store.verify(stored)
    digest = hashlib.sha256(b"foreign").hexdigest()
    s3_store.verify(replace(stored, checksum="sha-256 of old", sha256=digest))
    with pytest.raises(ObjectDamaged):
        s3_store.verify(replace(stored, checksum="etag:0"))
    with pytest.raises(ObjectDamaged):
        s3_store.verify(replace(stored, checksum="", sha256="0" * 64))


def test_s3_client_verifies_tls_and_has_timeouts_and_retries_by_default() -> None:
    """In addition, endpoints are addressed path-style."""
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
def test_error_for_malformed_s3_endpoint_does_not_contain_the_password(endpoint: str) -> None:
    """The error must not contain the endpoint, which may include a password."""
    with pytest.raises(UsageError) as caught:
        make_s3_client(endpoint, "x", "k", "s")
    assert "geheim" not in str(caught.value)


def test_store_description_does_not_show_password() -> None:
    """The URL of the endpoint may contain credentials."""
    client = make_s3_client("http://user:geheim@127.0.0.1:9", "x", "k", "s", max_attempts=1)
    store = S3Store(client, "b")
    assert store.description == "s3://b/ at 127.0.0.1:9"
    with pytest.raises(StoreError) as caught:
        store.get("x")
    assert "geheim" not in str(caught.value)
    assert "geheim" not in str(store.preflight())


def test_lock_end_is_rounded_up_to_a_second(s3_store: S3Store) -> None:
    """S3 stores no fractions of a second, and rounding must not shorten a lock."""
    end = datetime(2126, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    stored = s3_store.put("x", b"1", locked_until=end)
    assert stored.locked_until == datetime(2126, 1, 1, 0, 0, 1, tzinfo=UTC)
    with pytest.raises(ObjectLocked):
        s3_store.lock("x", end - timedelta(seconds=1))


def test_boto_error_is_the_cause_of_store_error(s3_store: S3Store) -> None:
    """The original error is thus also written to the log."""
    with pytest.raises(ObjectMissing) as caught:
        s3_store.get("x")
    assert isinstance(caught.value.__cause__, ClientError)


def test_preflight_without_delete_right_deletes_nothing(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is begun and aborted shows whether the credentials allow to write."""
    client = client_for(moto.endpoint)
    bucket = new_bucket(client, lock=True)
    monkeypatch.setattr(client, "delete_object", None)
    store = S3Store(client, bucket, may_delete=False)
    assert store.preflight() == []
    assert client.list_object_versions(Bucket=bucket).get("Versions", []) == []
