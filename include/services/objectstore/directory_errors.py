"""From what the operating system raises to one line a person can act on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from include.services.objectstore.base import ObjectMissing, StoreError

_ACTIONS = {
    errno.ENOSPC: "Free space there or use a larger disk.",
    errno.EDQUOT: "Raise the quota.",
    errno.EFBIG: "Raise the limit on file sizes.",
    errno.EACCES: "Give the account that runs this the right to it.",
    errno.EPERM: "Give the account that runs this the right to it.",
    errno.EROFS: "Mount it writable.",
    errno.EIO: "Check the disk.",
    errno.ESTALE: "Mount it again.",
}


@contextmanager
def naming(doing: str, key: str, store: str) -> Iterator[None]:
    """Turn OSError inside the block into a StoreError naming store, key and what to do.

    Raises:
        ObjectMissing: an object was to be read and there is no such file.
        StoreError: everything else.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if doing == "read" and key:
            raise ObjectMissing(f"There is no object {key!r} in {store}.") from error
        raise _translated(error, doing, key, store) from error
    except OSError as error:
        raise _translated(error, doing, key, store) from error


def _translated(error: OSError, doing: str, key: str, store: str) -> StoreError:
    what = f"{doing} {key!r} in {store}" if key else f"{doing} {store}"
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    action = _ACTIONS.get(error.errno or 0, "Check that the directory is there and in order.")
    return StoreError(f"Cannot {what}: {reason}.", action)
