"""Files in memory for PostgreSQL's programs: a restore leaves no clear file on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Offer bytes as the descriptor of a seekable file that never touches a disk."""
    with os.fdopen(os.memfd_create("parcelseal-head"), "wb") as file:
        file.write(content)  # repeats a write that the system ends early, as Linux does at 2 GiB
        file.flush()
        yield file.fileno()
