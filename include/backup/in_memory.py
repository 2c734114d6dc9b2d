"""Files in memory for PostgreSQL's programs: a restore leaves no clear file on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Offer bytes as the descriptor of a seekable file that never touches a disk."""
    descriptor = os.memfd_create("parcelseal-head")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)
