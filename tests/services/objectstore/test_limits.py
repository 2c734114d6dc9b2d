"""Test that readers can limit how many bytes of an unverified object are read."""

from __future__ import annotations

import tracemalloc

import pytest

from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore


def test_get_raises_object_damaged_if_object_is_larger_than_limit(store: ObjectStore) -> None:
    """An object whose size equals the limit is returned. The error names the key."""
    store.put("a/b", b"12345")
    assert store.get("a/b", limit=5) == b"12345"
    with pytest.raises(ObjectDamaged, match=r"'a/b'.* larger than the 4 bytes"):
        store.get("a/b", limit=4)
    with pytest.raises(ObjectMissing):
        store.get("none", limit=4)


def test_get_with_size_limit_needs_little_memory_for_large_object(store: ObjectStore) -> None:
    """The memory that is needed depends on the limit, not on the size of the object."""
    with store.open_writer("large") as writer:
        for _ in range(32):
            writer.write(bytes(1024 * 1024))
        writer.commit()
    tracemalloc.start()
    try:
        with pytest.raises(ObjectDamaged):
            store.get("large", limit=1000)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
