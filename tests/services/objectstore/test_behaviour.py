"""Test the behaviour that directory stores and S3 stores share."""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.services.errors import UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    StoredObject,
)
from include.services.objectstore.keys import checked_key
from include.services.objectstore.s3_streams import FIRST_PART_BYTES

BIG = FIRST_PART_BYTES + 12_345
THREE_PARTS = FIRST_PART_BYTES * 2 + 1_000_000

ODD_KEYS = [
    "a b/c 'd' \"e\"/f.json",
    "快递/客户信息 备份/清单.json",
    "plus+percent%2F/&<>?#=@;:,|*\\/x",
    ".hidden/..x/...",
    "😀/e\u0301",
    "Upper/upper",
]

BAD_KEYS = [
    "",
    "/a",
    "a//b",
    "a/",
    "..",
    "a/../b",
    "a/.",
    "./a",
    "a\0b",
    "a\nb",
    "\ud800",
    "\uffff",
    "x" * 201,
    "客" * 67,
    "/".join(["x" * 100] * 10),
    ".x.partial-00ff",
    "a/.x.lock.json",
    ".x.partial-00ff/y",
]


@functools.cache
def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def keys_in(store: ObjectStore, prefix: str = "") -> list[str]:
    return [stored.key for stored in store.list(prefix)]


def test_get_returns_the_bytes_that_were_put(store: ObjectStore) -> None:
    """The store also returns the object's size, digest and time."""
    stored = store.put("a/b", b"hello")
    assert store.get("a/b") == b"hello"
    assert (stored.key, stored.size) == ("a/b", 5)
    assert stored.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert stored.modified_at.tzinfo is not None
    stat = store.stat("a/b")
    assert (stat.size, stat.checksum, stat.version_id) == (
        5,
        stored.checksum,
        stored.version_id,
    )


@pytest.mark.parametrize("size", [0, 1, FIRST_PART_BYTES, FIRST_PART_BYTES + 1, THREE_PARTS])
def test_writer_stores_objects_of_any_size(store: ObjectStore, size: int) -> None:
    """Cases: zero bytes, a few bytes, exactly one part of an upload, one byte more, many parts."""
    data = content(size)
    with store.open_writer(ODD_KEYS[0]) as writer:
        view = memoryview(data)
        for start in range(0, size, 1_000_003):
            assert writer.write(view[start : start + 1_000_003]) == len(
                view[start : start + 1_000_003]
            )
        stored = writer.commit()
    assert stored.size == size
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert store.get(ODD_KEYS[0]) == data
    store.verify(stored)


def test_stored_object_is_unchanged_if_caller_overwrites_its_buffer_after_write(
    store: ObjectStore,
) -> None:
    """The caller may overwrite its buffer as soon as `write` has returned."""
    buffer = bytearray(1_000_000)
    expected = hashlib.sha256()
    with store.open_writer("reused") as writer:
        for turn in range(20):
            buffer[:] = bytes([turn]) * len(buffer)
            expected.update(buffer)
            writer.write(buffer)
        stored = writer.commit()
    assert stored.sha256 == expected.hexdigest()
    assert hashlib.sha256(store.get("reused")).hexdigest() == expected.hexdigest()


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.binary(max_size=4000),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    reads=st.integers(1, 999),
)
def test_object_is_stored_and_read_unchanged_with_any_write_and_read_sizes(
    store: ObjectStore, data: bytes, cuts: list[int], reads: int
) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    with store.open_writer("split") as writer:
        for start, end in itertools.pairwise(edges):
            writer.write(data[start:end])
        stored = writer.commit()
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    with store.open_reader("split") as reader:
        pieces = list(iter(lambda: reader.read(reads), b""))
    assert b"".join(pieces) == data
    assert all(len(piece) == reads for piece in pieces[:-1])


def test_folder_listing_contains_only_direct_subfolders_of_prefix(store: ObjectStore) -> None:
    """The listing does not read the objects in the folders."""
    for key in ("a/1", "a/2/x", "a/3", "a-b/1", "b", "c/d/e"):
        store.put(key, b"1")
    assert list(store.folders()) == ["a-b", "a", "c"]
    assert list(store.folders("a/")) == ["2"]
    assert list(store.folders("missing/")) == []


def test_each_version_from_list_versions_can_be_read_even_in_stores_without_versions(
    store: ObjectStore, tomorrow: datetime
) -> None:
    """This also applies to stores without versions.

    A version id that does not exist is an error.
    """
    store.put("a/x", b"1")
    store.put("b", b"22")
    versions = list(store.list_versions())
    assert [(version.key, version.size) for version in versions] == [("a/x", 1), ("b", 2)]
    assert [version.key for version in store.list_versions("a/")] == ["a/x"]
    for version in versions:
        assert version.is_current
        assert not version.is_marker
        assert len(store.get(version.key, version_id=version.version_id)) == version.size
        assert store.stat(version.key, version_id=version.version_id).size == version.size
    unknown = "00000000-0000-0000-0000-000000000000"
    for call in (store.get, store.stat, store.open_reader):
        with pytest.raises(ObjectMissing):
            call("b", version_id=unknown)
    with pytest.raises(ObjectMissing):
        store.lock("b", tomorrow, version_id=unknown)


def test_object_is_not_visible_before_commit(store: ObjectStore) -> None:
    """A partial object is neither listed nor readable, and the old object stays readable."""
    store.put("x/done", b"old")
    with store.open_writer("x/new") as new, store.open_writer("x/done") as over:
        for writer in (new, over):
            writer.write(content(BIG))
        assert keys_in(store) == ["x/done"]
        with pytest.raises(ObjectMissing):
            store.get("x/new")
        assert store.get("x/done") == b"old"


def test_writer_that_ends_without_commit_leaves_no_object_and_no_upload(store: ObjectStore) -> None:
    """This also applies after an error in the block, and after two calls of `abort`."""

    def fail_half_way() -> None:
        with store.open_writer("x/a") as writer:
            writer.write(content(BIG))
            raise RuntimeError("producer failed")

    with pytest.raises(RuntimeError, match="producer"):
        fail_half_way()
    writer = store.open_writer("x/b")
    writer.write(b"1")
    writer.abort()
    writer.abort()
    assert keys_in(store) == []
    assert store.clear_abandoned() == 0


def test_write_and_commit_raise_error_if_writer_is_closed(store: ObjectStore) -> None:
    with store.open_writer("x") as writer:
        writer.write(b"1")
        writer.commit()
        for late in (lambda: writer.write(b"2"), writer.commit):
            with pytest.raises(Exception, match="closed"):
                late()
    assert store.get("x") == b"1"


def test_last_commit_replaces_earlier_object(store: ObjectStore) -> None:
    store.put("x", b"first")
    store.put("x", b"second")
    assert store.get("x") == b"second"
    assert keys_in(store) == ["x"]


def test_error_for_missing_object_contains_its_key_and_store(store: ObjectStore) -> None:
    """Deleting a missing object is not an error."""
    store.put("dir/x", b"")
    for key in ("no 客户", "dir", "dir/x/y"):
        for ask in (store.get, store.stat, store.open_reader):
            with pytest.raises(ObjectMissing, match=key) as caught:
                ask(key)
            assert store.description in str(caught.value)
        with pytest.raises(ObjectMissing):
            store.verify(StoredObject(key, 0, datetime.now(UTC), sha256="0", checksum="0"))  # noqa: TID251
        store.delete(key)
    assert keys_in(store) == ["dir/x"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_object_key_with_unusual_characters_is_stored_and_listed_unchanged(
    store: ObjectStore, key: str
) -> None:
    """Keys may contain spaces, quotes, Chinese text and text that looks like escape sequences."""
    stored = store.put(key, key.encode())
    assert keys_in(store) == [key]
    assert keys_in(store, key[:2]) == [key]
    assert store.get(key) == key.encode()
    store.verify(stored)
    store.delete(key)
    assert keys_in(store) == []


@pytest.mark.parametrize("key", BAD_KEYS)
def test_store_operations_raise_usage_error_if_object_key_is_invalid(
    store: ObjectStore, key: str, tomorrow: datetime
) -> None:
    """A key must neither lead out of the store nor name one of the store's own files."""
    calls = [
        store.open_writer,
        store.open_reader,
        store.get,
        store.stat,
        store.delete,
        lambda name: store.put(name, b""),
        lambda name: store.lock(name, tomorrow),
    ]
    for call in calls:
        with pytest.raises(UsageError):
            call(key)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_valid_object_key_cannot_lead_outside_of_the_store(names: list[str]) -> None:
    """Each valid key is a relative path without ".."."""
    key = "/".join(names)
    try:
        checked_key(key)
    except UsageError:
        return
    assert not key.startswith("/")
    assert not {"", ".", ".."} & set(key.split("/"))
    assert all(len(name.encode()) <= 200 for name in key.split("/"))


def test_listing_is_in_key_order_for_any_prefix(store: ObjectStore) -> None:
    """All stores sort by the bytes of the complete key."""
    keys = ["a-b", "a/b", "a/c/d", "a0", "ab/x", "b", "客/户", "a b"]
    for key in keys:
        store.put(key, b"123")
    assert keys_in(store) == sorted(keys)
    for prefix in ("a", "a/", "a/c", "a/c/", "ab", "客", "zz", "a/c/d", "a/c/d/e"):
        assert keys_in(store, prefix) == sorted(key for key in keys if key.startswith(prefix))
    assert [item.size for item in store.list("b")] == [3]
    with pytest.raises(UsageError):
        list(store.list("../x"))


def test_delete_removes_every_version_of_the_given_key_and_no_other_object(
    store: ObjectStore,
) -> None:
    """An object whose key begins with the whole given key is kept."""
    for data in (b"1", b"2", b"3"):
        store.put("x/a", data)
    store.put("x/ab", b"stays")
    store.delete("x/a")
    store.delete("x/a")
    with pytest.raises(ObjectMissing):
        store.get("x/a")
    assert keys_in(store) == ["x/ab"]


def test_verify_raises_object_damaged_if_stored_content_differs(store: ObjectStore) -> None:
    """Cases: other bytes of the same size, another size, and an object that was replaced."""
    stored = store.put("x", b"right")
    other = store.put("y", b"wrong")
    store.verify(stored)
    store.verify(other)
    swapped = replace(stored, key="y", version_id="")
    longer = replace(stored, size=6)
    for wrong in (swapped, longer, replace(swapped, checksum="")):
        with pytest.raises(ObjectDamaged, match=wrong.key):
            store.verify(wrong)
    store.put("x", b"wrong")
    with pytest.raises(ObjectDamaged, match="x"):
        store.verify(replace(stored, version_id=""))


def test_verify_raises_usage_error_if_no_checksum_was_recorded(store: ObjectStore) -> None:
    """If neither a checksum nor a digest was recorded, an object cannot be verified."""
    stored = replace(store.put("x", b"1"), sha256="", checksum="")
    with pytest.raises(UsageError, match="without"):
        store.verify(stored)


def test_locked_object_cannot_be_deleted(store: ObjectStore, tomorrow: datetime) -> None:
    """The object is locked by `put`, or by `lock` afterwards.

    The error names the end of the lock.
    """
    store.put("put", b"1", locked_until=tomorrow)
    with store.open_writer("written") as writer:
        writer.write(b"1")
        writer.commit()
    store.lock("written", tomorrow)
    for key in ("put", "written"):
        end = store.stat(key).locked_until
        assert end is not None
        assert timedelta(0) <= end - tomorrow < timedelta(seconds=1)
        with pytest.raises(ObjectLocked, match=end.strftime("%Y-%m-%dT%H:%M:%S")):
            store.delete(key)
        assert store.get(key) == b"1"


def test_lock_can_be_repeated_and_extended_but_not_shortened(
    store: ObjectStore, tomorrow: datetime
) -> None:
    """A call with an earlier end raises an error, and the existing lock is kept."""
    store.put("x", b"1")
    store.lock("x", tomorrow)
    store.lock("x", tomorrow)
    store.lock("x", tomorrow + timedelta(days=1))
    with pytest.raises(ObjectLocked, match="shortened"):
        store.lock("x", tomorrow)
    end = store.stat("x").locked_until
    assert end is not None
    assert end >= tomorrow + timedelta(days=1)


def test_lock_raises_error_if_object_is_missing_or_lock_end_has_no_timezone(
    store: ObjectStore, tomorrow: datetime
) -> None:
    with pytest.raises(ObjectMissing):
        store.lock("x", tomorrow)
    store.put("x", b"1")
    naive = tomorrow.replace(tzinfo=None)
    with pytest.raises(UsageError, match="timezone"):
        store.lock("x", naive)
    with pytest.raises(UsageError, match="timezone"):
        store.put("y", b"1", locked_until=naive)
    assert keys_in(store) == ["x"]


def test_clear_abandoned_removes_only_unfinished_uploads_under_given_prefix(
    store: ObjectStore,
) -> None:
    """Finished objects are kept."""
    store.put("a/done", b"1")
    for key in ("a/x", "a/y", "b/x"):
        # Left open on purpose, as by a killed process.
        store.open_writer(key).write(content(BIG))
    assert store.clear_abandoned("a/") == 2
    assert store.clear_abandoned("a/") == 0
    assert store.clear_abandoned() == 1
    assert keys_in(store) == ["a/done"]


def test_store_has_kind_and_site_and_a_description_without_secrets(store: ObjectStore) -> None:
    assert store.kind in {"s3", "directory"}
    assert store.site == "shanghai"
    assert "secret" not in store.description
