"""Is this directory fit for backups? Asked before anything is dumped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from include.services.objectstore.base import StoreProblem
from include.services.objectstore.directory_files import write_durably
from include.services.objectstore.keys import partial_name


def preflight(root: Path, live_paths: Sequence[Path]) -> list[StoreProblem]:
    """Return what keeps the directory from being a proper off-site store.

    Always reports ``no_object_lock``: a directory cannot enforce a lock.

    Args:
        root: created when its parent exists.
        live_paths: where the live data are; on the same device a copy is no backup.
    """
    problem = _reach(root)
    if problem:
        return [problem]
    problems = _same_device(root, live_paths)
    probe = root / partial_name("probe")
    try:
        write_durably(probe, b"probe")
        probe.unlink()
    except OSError as error:
        problems.append(StoreProblem("not_writable", _detail(root, "cannot be written to", error)))
    problems.append(
        StoreProblem(
            "no_object_lock",
            f"The directory {root} cannot keep anyone with write access from deleting backups "
            "before their retention ends. Use S3 with Object Lock for that.",
        )
    )
    return problems


def _reach(root: Path) -> StoreProblem | None:
    try:
        root.mkdir(exist_ok=True)
        with os.scandir(root):
            return None
    except PermissionError as error:
        return StoreProblem("denied", _detail(root, "cannot be used", error))
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        return StoreProblem("missing", _detail(root, "is not there", error))
    except OSError as error:
        return StoreProblem("unreachable", _detail(root, "cannot be used", error))


def _same_device(root: Path, live_paths: Sequence[Path]) -> list[StoreProblem]:
    device = root.stat().st_dev
    return [
        StoreProblem(
            "same_device",
            f"The directory {root} is on the same device as {live}: "
            "what destroys the one destroys the other. Use another disk at another site.",
        )
        for live in live_paths
        if live.exists() and live.stat().st_dev == device
    ]


def _detail(root: Path, what: str, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return f"The directory {root} {what}: {reason}. Create or mount it, writable for this account."
