"""Files in memory hold all bytes, although one write of the system may end early."""

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
    """Limit files of this process to a size in bytes: a longer write ends early, without error."""
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


def test_in_memory_goes_on_after_a_write_that_ended_early() -> None:
    """The system names the reason only then; the rest would be missing without a word."""
    with largest_file(MEBIBYTE), pytest.raises(OSError, match="too large"):  # noqa: SIM117
        with in_memory(b"x" * 3 * MEBIBYTE):
            pass
