"""Test that a file in memory has all bytes, although a write may store only some of them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from include.backup.restore_program import in_memory

MEBIBYTE = 1 << 20


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of the files that this process writes.

    A write that exceeds the limit stores fewer bytes, without an error.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_in_memory_file_can_be_read_from_its_start() -> None:
    content = os.urandom(3 * MEBIBYTE)
    with in_memory(content) as descriptor:
        assert os.pread(descriptor, len(content) + 1, 0) == content


def test_in_memory_file_fails_if_the_system_writes_only_a_part_of_the_content() -> None:
    """Only at the next write, the system reports why the previous write was partial."""
    with largest_file(MEBIBYTE), pytest.raises(OSError, match="too large"):  # noqa: SIM117
        with in_memory(b"x" * 3 * MEBIBYTE):
            pass
