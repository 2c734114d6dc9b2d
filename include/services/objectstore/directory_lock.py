"""The lock of a file: a small file beside it that names the end of the retention."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from include.services.objectstore.base import ObjectDamaged
from include.services.objectstore.directory_files import (
    NotRegularFile,
    open_regular,
    sync_directory,
    write_durably,
)
from include.services.objectstore.keys import partial_name

_MAX_LOCK_BYTES = 4096  # a lock is one short line


def lock_path(path: Path) -> Path:
    """Return where the lock of an object is kept."""
    return path.with_name(f".{path.name}.lock.json")


def read_lock(root: Path, names: Sequence[str], key: str, store: str) -> datetime | None:
    """Return the end of an object's lock, which may have passed; None without one.

    Args:
        root: the store's directory.
        names: of the folders below it and, last, of the object's file.
        key: of the object, for the error.
        store: the store's description, for the error.

    Raises:
        ObjectDamaged: the lock is unreadable, so it holds.
    """
    lock = lock_path(root.joinpath(*names))
    try:
        with os.fdopen(open_regular(root, lock.relative_to(root).parts), "rb") as file:
            text = file.read(_MAX_LOCK_BYTES)
        end = datetime.fromisoformat(json.loads(text)["locked_until"])
    except NotRegularFile as error:
        raise _unreadable(key, store, lock) from error
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(key, store, lock) from error
    if end.tzinfo is None:
        raise ObjectDamaged(f"The lock of {key!r} in {store} names no timezone.")
    return end


def _unreadable(key: str, store: str, lock: Path) -> ObjectDamaged:
    return ObjectDamaged(
        f"The lock of {key!r} in {store} cannot be read, so it holds.",
        f"Look at the file {lock.name!r} beside it.",
    )


def write_lock(path: Path, end: datetime) -> None:
    """Write the lock of a file, durably; it replaces the present one.

    Args:
        path: of the object's file.
        end: of its retention, timezone-aware.
    """
    text = json.dumps({"locked_until": end.astimezone(UTC).isoformat()})
    partial = path.with_name(partial_name(path.name))
    try:
        write_durably(partial, text.encode())
        partial.replace(lock_path(path))
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)
