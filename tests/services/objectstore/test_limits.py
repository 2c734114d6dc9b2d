"""Bounded reads of objects that are not verified yet, in every store."""

from __future__ import annotations

import tracemalloc

import pytest

from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore


def test_get_refuses_an_object_larger_than_the_limit(store: ObjectStore) -> None:
    """At the limit it is returned; one byte more is refused by its key."""
    store.put("a/b", b"12345")
    assert store.get("a/b", limit=5) == b"12345"
    with pytest.raises(ObjectDamaged, match=r"'a/b'.* larger than the 4 bytes"):
        store.get("a/b", limit=4)
    with pytest.raises(ObjectMissing):
        store.get("none", limit=4)


def test_get_with_a_limit_reads_little_of_a_large_object(store: ObjectStore) -> None:
    """A hundred times the limit costs no more memory than the limit and a buffer."""
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
